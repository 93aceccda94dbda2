"""Holds rows of the training data out of training: always the same ones, to measure a model on rows it never saw.

row counts -> places of the held-out rows -> a Source of the other rows, in their order
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .remote import digest
from .sources import Source

SEED = 0
SHARE, LEAST, MOST = 0.01, 64, 1000  # of the rows that are held out
SEEN = 256  # rows of a sample of rows that are trained on
TIMES = 10  # data with fewer than `TIMES * LEAST` rows is trained on in full
PIECES = 16  # of a source that are read for the held-out rows, at least: each may be a large part of a file
CHOICE = 4  # and at least this many rows for each held-out one

Place = tuple[int, int]  # piece, row in the piece


class HeldOut(NamedTuple):
    """Rows to measure a model on. source: has all rows. places: (piece, row in the piece) of the rows, ascending.
    trained_on: True if training sees them, too."""

    source: Source
    places: list[Place]
    trained_on: bool


class OtherRows(Source):
    """The rows of a source without some of them, in the same order and with the same keys.

    Its fingerprint names the rows that it lacks, so that no run resumes without noticing that they changed."""

    def __init__(self, source: Source, places: Sequence[Place]):
        """places: (piece, row in the piece) of the rows to leave out, ascending."""
        vars(self).update(vars(source))
        self._left_out: dict[int, list[int]] = {}
        for piece, index in places:
            self._left_out.setdefault(piece, []).append(index)
        self.counts = [n - len(self._left_out.get(piece, ())) for piece, n in enumerate(source.counts)]
        without = digest([list(place) for place in places])
        self.rows = source.rows.with_mark(f"held out: {without}")

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        """Returns rows `start` to `stop` (exclusive) of a piece, counted without the rows that are left out."""
        ranges = self._ranges(piece, start, stop)
        return [row for first, end in ranges for row in super(OtherRows, self).read(piece, first, end)]

    def key(self, piece: int, index: int) -> str:
        """Returns the key of a row: that of the source with all rows."""
        return super().key(piece, self._index(piece, index))

    def _index(self, piece: int, index: int) -> int:
        """Returns the index of a row among all rows of its piece."""
        left_out = self._left_out.get(piece, [])
        # before the i-th row that is left out are left_out[i] - i others
        return index + bisect_right(range(len(left_out)), index, key=lambda i: left_out[i] - i)

    def _ranges(self, piece: int, start: int, stop: int) -> list[Place]:
        """Returns ranges (first, end) of all rows of a piece that make up a range of the others."""
        if start >= stop:
            return []
        first, end = self._index(piece, start), self._index(piece, stop - 1) + 1
        holes = [index for index in self._left_out.get(piece, []) if first < index < end]
        cuts = zip([first, *(hole + 1 for hole in holes)], [*holes, end], strict=True)
        return [(begin, until) for begin, until in cuts if begin < until]


class Cut(NamedTuple):
    """Rows of a labelled set that are left out of training. index: of the data in --dataset. label: column of the
    labels. places: (piece, row in the piece) of the rows, ascending. counts: rows of each piece of the training split.
    """

    index: int
    label: str
    places: list[Place]
    counts: list[int]

    def of(self, source: Source) -> Source:
        """Returns a source without the rows. Raises `ValueError` if it has other pieces than the labelled set."""
        if source.counts != self.counts:
            raise ValueError(
                f"{source.name} has other rows as training data than as labelled set, so no test rows can be left out "
                "of training. Give an --eval_dataset of other files, or --eval_dataset none."
            )
        return OtherRows(source, self.places) if self.places else source


def held_out_rows(rows: int, asked: int | None = None) -> int:
    """Returns how many of the rows of the data are held out: 1%, at least `LEAST` and at most `MOST`; 0 of data with
    fewer than `TIMES * LEAST` rows.

    asked: this many instead. Raises `ValueError` if that is more than a `TIMES`-th of the rows."""
    if asked is None:
        return 0 if rows < TIMES * LEAST else min(max(int(rows * SHARE), LEAST), MOST)
    if asked * TIMES > rows:
        raise ValueError(
            f"--held_out_rows {asked:,} is too many of {rows:,} rows. Give at most {rows // TIMES:,}, or 0."
        )
    return asked


def hold_out(sources: Sequence[Source], asked: int | None = None) -> tuple[list[Source], list[HeldOut]]:
    """Holds rows out of sources, of each in proportion to its rows. The choice depends only on the row counts.

    asked: number of rows; default: see `held_out_rows`. Returns the sources without these rows, and the rows. Data that
    is endless or has too few rows is not cut. Then the rows are a sample of at most `SEEN` that training sees. Raises
    `ValueError` like `held_out_rows`."""
    endless = any(source.endless for source in sources)
    if endless and asked:
        raise ValueError(f"--held_out_rows {asked}: the data has no known length. Leave it out, or give 0.")
    total = 0 if endless else sum(map(len, sources))
    count = 0 if endless else held_out_rows(total, asked)
    if not count:
        return list(sources), [
            HeldOut(source, sample(source, max(SEEN // len(sources), 1)), True) for source in sources[:SEEN]
        ]
    kept, held, before = [], [], 0
    for source in sources:
        upto = before + len(source)
        places = chosen(source.counts, count * upto // total - count * before // total)  # the sum is `count`
        before = upto
        kept.append(OtherRows(source, places) if places else source)
        held += [HeldOut(source, places, False)] if places else []
    return kept, held


def sample(source: Source, most: int) -> list[Place]:
    """Returns the places of at most `most` rows of a source: the first ones if its length is unknown."""
    if source.endless:
        return [(0, index) for index in range(most)]
    return chosen(source.counts, min(most, len(source)))


def chosen(counts: Sequence[int], number: int) -> list[Place]:
    """Chooses rows at random, always the same for the same row counts. Returns their places, ascending.

    They are of few pieces: of at least `PIECES`, and of pieces with `CHOICE` rows for each chosen one."""
    random = np.random.default_rng([SEED, sum(counts), number])
    pieces: list[int] = []
    rows = 0
    for piece in random.permutation(len(counts)).tolist():
        if len(pieces) >= PIECES and rows >= CHOICE * number:
            break
        pieces.append(piece)
        rows += counts[piece]
    ends = np.cumsum([counts[piece] for piece in pieces])
    numbers = random.choice(rows, number, replace=False)
    which = np.searchsorted(ends, numbers, "right")
    return sorted((pieces[k], int(i - ends[k] + counts[pieces[k]])) for k, i in zip(which, numbers, strict=True))
