"""Reader of undecoded rows by sample number. Reads a window at a time; threads read the next window of each part ahead.

sample number g -> MixedOrder -> window of a source -> rows, each with its key
"""

import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
from transformers.utils import logging

from ..data.rows import size_of
from ..data.sources import Source
from ..utils.threads import DaemonThreads
from .order import FAR, SPARE, GlobalOrder, MixedOrder, Window
from .settings import PARTS, StreamSettings

THREADS = 4
SLACK = 4  # windows of each part that fit in the buffer: one in use, one read ahead, a reserve for larger rows

Place = tuple[int, Window]  # index of a source, a window of that source
log = logging.get_logger(__name__)


class Reader:
    """Reads the rows of one rank, in order of the sample numbers: `row(g)`.

    A window is kept in memory until training has passed its last sample (`consumed`). Lanes of a mixture that share an
    iterable, and substitutes of bad samples, may need it until then. If the windows take more than `buffer_bytes`, some
    are dropped, and read again when needed.

    consumed: the first sample number that training has not consumed yet; None: the number last passed to `row`. waited:
    seconds spent waiting for rows.
    """

    def __init__(self, sources: Sequence[Source], order: MixedOrder, buffer_bytes: int):
        self.sources, self.order, self.buffer_bytes = sources, order, buffer_bytes
        counts = itertools.accumulate((count for source in sources for count in source.counts), initial=0)
        self._first = [list(itertools.islice(counts, len(source.counts))) for source in sources]  # rows of each piece
        for source, of_source in zip(sources, order.orders, strict=True):
            source.rows.kept_open = of_source.parts  # each part reads from one piece at a time
        self._windows: OrderedDict[Place, Future] = OrderedDict()  # least recently used first
        self._current: dict[tuple[int, int], Place] = {}  # window in use, by (source, lane)
        self._pools: dict[bool, DaemonThreads] = {}  # made on first use, after the loader's workers have forked
        self.consumed: int | None = None
        self._warned = False
        self.waited = 0.0

    def row(self, g: int) -> dict:
        """Returns the undecoded row of sample g, with its number `g`, its `key` and its `number` among all rows."""
        k, i = self.order.choose(g)
        window, at = self.order.orders[k].find(i)
        rows = self._enter((k, window), g, i)
        return {**rows[at], "g": g}

    def key(self, g: int) -> str:
        """Returns the key of sample g: the place of its row. Reads no data."""
        k, i = self.order.choose(g)
        return self.sources[k].key(*self.order.orders[k][i])

    def number(self, g: int) -> int:
        """Returns the number of the row of sample g among the rows of all sources, from 0. Reads no data."""
        k, i = self.order.choose(g)
        piece, index = self.order.orders[k][i]
        return self._first[k][piece] + index

    def substitutes(self, g: int, step: int, excluded: Container[tuple[int, int]] = ()) -> Iterator[dict]:
        """Yields undecoded rows that can replace the row of sample g, from the same source: first from its window, then
        from its whole epoch. Rows are the same for any number of ranks and workers.

        step: samples of a global batch. Samples of one global batch get different rows, with two exceptions: if all
        spares of a sample are bad, random rows follow; and the batch may contain the end of an epoch. excluded: samples
        (source, sample number in that source) whose rows are left out, for example `RowsOf` a global batch."""
        k, i = self.order.choose(g)
        order = self.order.orders[k]
        for number in itertools.chain(self.order.spares(g, step), self._anywhere(k, i)):
            if (k, number) not in excluded:  # checked before reading
                window, at = order.find(number)
                place, future = order.place(window, at), self._windows.get((k, window))
                yield {**(self._single(k, place) if future is None else future.result()[0][at]), "g": g}

    def _anywhere(self, k: int, i: int) -> Iterator[int]:
        order = self.order.orders[k]
        if not order.endless:
            for number in np.random.default_rng([order.seed, SPARE, i, k]).integers(order.rows, size=FAR).tolist():
                yield i - i % order.rows + number

    def close(self) -> None:
        """Stops reading ahead, and drops all rows."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._windows.clear()

    def _enter(self, place: Place, g: int, i: int) -> list[dict]:
        lane = (place[0], g % self.order.lanes)
        entering, future = self._current.get(lane) != place, self._windows.get(place)
        if not entering and future is not None and future.done():  # the usual case: the window is in memory
            self._windows.move_to_end(place)
            return future.result()[0]
        self._current[lane] = place
        self._make_room(g)
        future = self._request(place)
        self._windows.move_to_end(place)
        start = time.perf_counter()
        rows, size = future.result()
        self.waited += time.perf_counter() - start
        if entering and self._held() + size <= self.buffer_bytes:
            self._request((place[0], self.order.orders[place[0]].after(i)))
        return rows

    def _request(self, place: Place) -> Future:
        future = self._windows.get(place)
        if future is None:
            endless = self.sources[place[0]].endless  # one thread: out of order, each read would restart the iterable
            if endless not in self._pools:
                self._pools[endless] = DaemonThreads(1 if endless else THREADS, "reader")
            future = self._windows[place] = self._pools[endless].submit(self._read, place)
        return future

    def _read(self, place: Place) -> tuple[list[dict], int]:
        """Reads a window. Returns its rows and their size in bytes."""
        k, window = place
        source, rows = self.sources[k], []
        for piece, start, stop in self.order.orders[k].ranges(window):
            for index, row in enumerate(source.read(piece, start, stop), start):
                rows.append({**row, **self._named(k, piece, index)})
        return rows, sum(map(size_of, rows))

    def _single(self, k: int, place: tuple[int, int]) -> dict:
        piece, index = place
        return {**self.sources[k].read(piece, index, index + 1)[0], **self._named(k, piece, index)}

    def _named(self, k: int, piece: int, index: int) -> dict:
        return {"key": self.sources[k].key(piece, index), "number": self._first[k][piece] + index}

    def _held(self) -> int:
        return sum(future.result()[1] for future in self._windows.values() if future.done() and not future.exception())

    def _make_room(self, g: int) -> None:
        """Drops consumed windows. Above `buffer_bytes`, also drops windows that end before sample g, then the least
        recently used ones."""
        self._drop_before(g if self.consumed is None else self.consumed)
        if self._held() > self.buffer_bytes:
            self._drop_before(g)
        while len(self._windows) > 1 and self._held() > self.buffer_bytes:
            if not self._warned:
                log.warning(
                    f"The rows in use take more than --buffer_bytes {self.buffer_bytes:,}, so some are read several "
                    "times. Raise it, or give a smaller --window (in a new run)."
                )
                self._warned = True
            self._windows.popitem(last=False)

    def _drop_before(self, g: int) -> None:
        for k, window in [place for place in self._windows if self.order.is_past(*place, g)]:
            del self._windows[k, window]


def make_order(
    sources: Sequence[Source],
    weights: Sequence[float] | None,
    settings: StreamSettings,
    seed: int,
    windows: Sequence[int] | None = None,
    together: int = 1,
    ranks: int = 1,
) -> MixedOrder:
    """Makes the order of the samples.

    windows: rows of a window of each source, of a resumed run; default: as many as `settings.window` and
    `settings.buffer_bytes` allow. together: consecutive samples that are of one source: the samples of a step, or 1.
    With a step, the number of parts is the greatest common divisor of it and `settings.parts`. ranks: the order does
    not depend on it up to `PARTS` ranks, unless the memory of one rank is too small for the windows of all parts."""
    parts = settings.on(ranks).parts
    parts = parts if together == 1 else math.gcd(parts, together)
    if windows is None:
        held = parts if ranks <= PARTS else parts // math.gcd(parts, ranks)  # parts whose windows a rank has in memory
        share = settings.buffer_bytes / (SLACK * held * len(sources))
        windows = [max(1, min(settings.window, int(share / source.row_bytes()))) for source in sources]
    orders = [
        GlobalOrder(source.counts, seed + k, parts, window)
        for k, (source, window) in enumerate(zip(sources, windows, strict=True))
    ]
    return MixedOrder(orders, weights, seed, together)


def parts_notes(settings: StreamSettings, ranks: int) -> list[str]:
    """Returns a note about the number of parts of a new run if it depends on the number of ranks; else `[]`."""
    if settings.parts is not None or ranks <= PARTS:
        return []
    parts = settings.on(ranks).parts
    return [
        f"--parts is {parts} for {ranks} processes, since more than {PARTS} would read the same rows. The order of the "
        f"samples depends on it: a resume on any number of processes keeps it; a new run gets it with --parts {parts}."
    ]


def reading_notes(sources: Sequence[Source], order: MixedOrder, ranks: int) -> list[str]:
    """Returns warnings about rows that are read more than once, each with its fix."""
    notes = []
    times = ranks // math.gcd(ranks, order.lanes)
    if times > 1:
        better = ranks * -(-order.lanes // ranks)
        notes.append(
            f"--parts {order.lanes} is not divisible by {ranks} processes: each row is read by {times} of them. In "
            f"a new run with --parts {better}, each row is read by one."
        )
    for source, of_source in zip(sources, order.orders, strict=True):
        if source.endless:
            notes.append(
                f"{source.name} is a plain iterable: it is shuffled only within windows of {of_source.window} rows, "
                f"each process reads all of it, and a resumed run first reads all samples that were seen before."
            )
        elif source.rows.reads_from_start:
            notes += piece_notes(source, of_source, ranks)
    return notes


def piece_notes(source: Source, order: GlobalOrder, ranks: int) -> list[str]:
    """Returns a warning if pieces that can only be read from their start are fewer than the parts; else `[]`."""
    pieces, piece = sum(count > 0 for count in source.counts), source.rows.piece
    if pieces >= order.parts:
        return []
    times = -(-order.parts // pieces)
    note = (
        f"{source.name} has {pieces} {piece}{'s' * (pieces > 1)}, which can only be read from the start, for --parts "
        f"{order.parts}: each {piece} is read from its start about {times} times an epoch"
    )
    if piece == "shard":
        return [f"{note}. Write the data as Parquet or in more shards, or give --parts {max(pieces, ranks)}."]
    if max(source.counts) <= order.parts * order.window:  # all rows fit in the windows in use
        return []
    return [
        f"{note}, and once more at each resume, by each process that reads from it. Write smaller row groups: at least "
        f"{order.parts}, each of a few hundred or thousand rows."
    ]
