"""Reads rows of each split, evenly spaced, and looks at each value as training decodes it.

Sources -> places of some rows -> Row: facts of each kind of data, or the reasons why it can't be used
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate

from ..data.decoding import UNREADABLE, BadSample
from ..data.sources import READ_TOGETHER, Source
from ..evaluation.labelled_rows import label_of
from ..stream.loader import path_of
from ..utils.progress import progress
from . import clips, images, texts
from .opening import LABEL, DataSet

MOST_ROWS = {"image": 4_000, "text": 4_000, "video": 400, "audio": 400}  # of a split, by the slowest kind to decode
MOST_PIECES = 64  # row groups and shards that are read: each is read from its start
MOST_BYTES = 2**27  # of rows that are in memory at the same time, approximately
TILES = 40  # images of the first block of the sheet
COMPARED = 20_000  # rows of which a small image stays in memory, and among which near-duplicates are looked for
LOOKS: Mapping[str, Callable] = {
    "image": images.look_at, "video": clips.look_at_film, "audio": clips.look_at_sound, "text": texts.look_at,
    "subtitles": texts.look_at_subtitles,
}  # fmt: skip


@dataclass(slots=True)
class Row:
    """A row that was looked at. facts: by kind of data. reasons: of what can't be used, by kind; "row" for all of it.
    label: None without one. shown: whether it is in the first block of the sheet."""

    split: str
    key: str
    path: str | None = None
    facts: dict = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    label: object = None
    shown: bool = False


@dataclass
class Clock:
    """Seconds of reading and decoding. `with clock(): ...` adds those of the block to `decoding`.

    looked_at: number of rows that were decoded. passed: of rows that were read for them: row groups are read from their
    start."""

    decoding: float = 0.0
    reading: float = 0.0
    looked_at: int = 0
    passed: int = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.decoding += time.perf_counter() - start

    @property
    def seconds_of_a_row(self) -> float:
        """Seconds of reading and decoding one of many rows."""
        return self.reading / max(self.passed, 1) + self.decoding / max(self.looked_at, 1)


@dataclass
class Survey:
    """Rows of all splits. clocks: seconds of reading and decoding them, by split."""

    rows: list[Row]
    clocks: dict[str, Clock]

    def of(self, kind: str) -> list[Row]:
        """Returns the rows with facts of a kind."""
        return [row for row in self.rows if kind in row.facts]


def look_at_rows(data: DataSet, most: int | None = None) -> Survey:
    """Looks at rows of every split. most: largest number of rows of a split; default: `MOST_ROWS`."""
    most = most or min((MOST_ROWS[kind] for kind in data.columns if kind in MOST_ROWS), default=MOST_ROWS["text"])
    chosen = {split: chosen_places(source, most) for split, source in data.sources.items()}
    result = Survey([], {split: Clock() for split in chosen})
    total, number = sum(map(len, chosen.values())), 0
    with progress(total=total, description=f"looking at {data.name}", unit="rows") as bar:
        for split, places in chosen.items():
            source, clock = data.sources[split], result.clocks[split]
            for place, values in zip(places, read(source, places, clock), strict=True):
                # the places of the sheet are chosen before, so that no image is read twice
                shown = number * TILES // total != (number + 1) * TILES // total
                row = looked(Row(split, source.key(*place), shown=shown), values, source, clock)
                if number % -(-total // COMPARED) and not shown:
                    row.facts = {kind: without_tile(facts) for kind, facts in row.facts.items()}
                result.rows.append(row)
                number += 1
                bar.update()
            clock.looked_at, clock.passed = len(places), rows_passed(source, places)
            source.rows.close()
    return result


def rows_passed(source: Source, places: list[tuple[int, int]]) -> int:
    """Returns the number of rows that are read to get those at some ascending places."""
    last = dict(places)  # index of the last row of each piece
    return sum(index + 1 for index in last.values()) if source.rows.reads_from_start else len(places)


def without_tile(facts):
    """Returns the facts of a value without its small image."""
    return replace(facts, tile=b"") if hasattr(facts, "tile") else facts


def chosen_places(source: Source, most: int) -> list[tuple[int, int]]:
    """Returns the places (piece, index) of at most `most` rows, evenly spaced.

    Of pieces that are read from their start, as row groups of Parquet, rows are of at most `MOST_PIECES` of them."""
    pieces = [piece for piece, count in enumerate(source.counts) if count]
    if source.rows.reads_from_start and len(pieces) > MOST_PIECES and len(source) > most:
        pieces = [pieces[i * len(pieces) // MOST_PIECES] for i in range(MOST_PIECES)]
    ends = list(accumulate(source.counts[piece] for piece in pieces))
    count = min(most, ends[-1])
    numbers = [i * ends[-1] // count for i in range(count)]
    owners = [bisect_right(ends, number) for number in numbers]
    return [
        (pieces[at], number - ends[at] + source.counts[pieces[at]]) for at, number in zip(owners, numbers, strict=True)
    ]


def read(source: Source, places: list[tuple[int, int]], clock: Clock) -> Iterator[dict]:
    """Yields the rows at some places. Few are in memory at the same time if they are large."""
    together = max(1, min(READ_TOGETHER, int(MOST_BYTES / source.row_bytes())))
    for first in range(0, len(places), together):
        start = time.perf_counter()
        rows = list(source.take(places[first : first + together]))
        clock.reading += time.perf_counter() - start
        yield from rows


def looked(row: Row, values: dict, source: Source, clock: Clock) -> Row:
    """Adds to a row the facts of its values, or why they can't be used."""
    row.path = path_of(values)
    if UNREADABLE in values:
        row.reasons["row"] = values[UNREADABLE]
        return row
    for kind, look in LOOKS.items():
        if kind in values:
            try:
                row.facts[kind] = look(values[kind], clock)
            except BadSample as error:
                row.reasons[kind] = str(error)
    if LABEL in values:
        row.label = label_of(values, source.features)
    return row
