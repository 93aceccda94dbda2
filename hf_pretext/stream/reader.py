"""Undecoded rows by sample number: a window at a time, the next one of each part read ahead in threads.

sample number g -> MixedOrder -> window of a source -> rows, each with its key
"""

import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from transformers.utils import logging

from ..data.rows import size_of
from ..data.sources import Source
from .order import FAR, SPARE, GlobalOrder, MixedOrder, Window
from .settings import StreamSettings

THREADS = 4
SLACK = 4  # windows of each part that a buffer has room for: one in use, one ahead, and rows larger than the first ones

Place = tuple[int, Window]  # which source, and which of its windows
log = logging.get_logger(__name__)


class Reader:
    """`row(g)` for one rank's sample numbers, in their order.

    A window is kept until training has come past its last sample (`consumed`), for those who are late, as the lanes of
    a mixture that share an iterable, and for those who look for a substitute. Rows that together take more than
    `buffer_bytes` are dropped, and read again when needed.

    consumed: the first sample number that training has not consumed yet. None: the one last asked for.
    """

    def __init__(self, sources: Sequence[Source], order: MixedOrder, buffer_bytes: int):
        self.sources, self.order, self.buffer_bytes = sources, order, buffer_bytes
        for source, of_source in zip(sources, order.orders, strict=True):
            source.rows.kept_open = of_source.parts  # each part is read in one place at a time
        self._windows: OrderedDict[Place, Future] = OrderedDict()  # those used last come last
        self._current: dict[tuple[int, int], Place] = {}  # of each source, in each lane
        self._pools: dict[bool, ThreadPoolExecutor] = {}  # made when first needed: the loader's workers fork before
        self.consumed: int | None = None
        self._warned = False
        self.waited = 0.0  # seconds spent waiting for rows to be read

    def row(self, g: int) -> dict:
        """Sample g's row, undecoded, with its number `g` and its `key`."""
        k, i = self.order.choose(g)
        window, at = self.order.orders[k].find(i)
        rows = self._enter((k, window), g, i)
        return {**rows[at], "g": g}

    def key(self, g: int) -> str:
        """Where sample g's row lies. Reads nothing."""
        k, i = self.order.choose(g)
        return self.sources[k].key(*self.order.orders[k][i])

    def substitutes(self, g: int, step: int, excluded: Container[str] = ()) -> Iterator[dict]:
        """Rows that may take the place of sample g's, from the same source, but none of the excluded keys: first of its
        own window, then from anywhere in its epoch. The same ones for any number of ranks and workers.

        No two of `step` neighbouring samples, as many as a global batch has, are given the same row: only where all
        those are bad do random ones follow that another could be given too, or where an epoch ends among them."""
        k, i = self.order.choose(g)
        order = self.order.orders[k]
        for number in itertools.chain(self.order.spares(g, step), self._anywhere(k, i)):
            window, at = order.find(number)
            place = order.place(window, at)
            if self.sources[k].key(*place) not in excluded:  # before it is read
                future = self._windows.get((k, window))
                yield {**(self._single(k, place) if future is None else future.result()[0][at]), "g": g}

    def _anywhere(self, k: int, i: int) -> Iterator[int]:
        order = self.order.orders[k]
        if not order.endless:
            for number in np.random.default_rng([order.seed, SPARE, i, k]).integers(order.rows, size=FAR).tolist():
                yield i - i % order.rows + number

    def close(self) -> None:
        """Ends the reading ahead."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()
        self._windows.clear()

    def _enter(self, place: Place, g: int, i: int) -> list[dict]:
        lane = (place[0], g % self.order.lanes)
        entering, future = self._current.get(lane) != place, self._windows.get(place)
        if not entering and future is not None and future.done():  # as for all but the first of a window's rows
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
            endless = self.sources[place[0]].endless  # whose windows must be read in turn, or each would begin anew
            if endless not in self._pools:
                self._pools[endless] = ThreadPoolExecutor(1 if endless else THREADS, thread_name_prefix="reader")
            future = self._windows[place] = self._pools[endless].submit(self._read, place)
        return future

    def _read(self, place: Place) -> tuple[list[dict], int]:
        """A window's rows, and how many bytes they take."""
        k, window = place
        source, rows = self.sources[k], []
        for piece, start, stop in self.order.orders[k].ranges(window):
            for index, row in enumerate(source.read(piece, start, stop), start):
                rows.append({**row, "key": source.key(piece, index)})
        return rows, sum(map(size_of, rows))

    def _single(self, k: int, place: tuple[int, int]) -> dict:
        piece, index = place
        return {**self.sources[k].read(piece, index, index + 1)[0], "key": self.sources[k].key(piece, index)}

    def _held(self) -> int:
        return sum(future.result()[1] for future in self._windows.values() if future.done() and not future.exception())

    def _make_room(self, g: int) -> None:
        """Drops windows that were consumed; where room is short, also those that only wait for it, then any."""
        self._drop_before(g if self.consumed is None else self.consumed)
        if self._held() > self.buffer_bytes:
            self._drop_before(g)
        while len(self._windows) > 1 and self._held() > self.buffer_bytes:
            if not self._warned:
                log.warning(
                    f"The rows in use take more than --buffer_bytes {self.buffer_bytes:,}, so some are read several "
                    "times. Raise it, or give a smaller --window."
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
) -> MixedOrder:
    """The order of samples. windows: those of a run that goes on; else each source's is as large as the settings and
    the size of its rows allow. together: samples in a row that are of one source: a step's, or 1. It takes as many
    parts as divide that."""
    parts = settings.parts if together == 1 else math.gcd(settings.parts, together)
    if windows is None:
        share = settings.buffer_bytes / (SLACK * parts * len(sources))
        windows = [max(1, min(settings.window, int(share / source.row_bytes()))) for source in sources]
    orders = [
        GlobalOrder(source.counts, seed + k, parts, window)
        for k, (source, window) in enumerate(zip(sources, windows, strict=True))
    ]
    return MixedOrder(orders, weights, seed, together)


def reading_notes(sources: Sequence[Source], order: MixedOrder, ranks: int) -> list[str]:
    """What is read more than once, how often, and what mends it."""
    notes = []
    times = ranks // math.gcd(ranks, order.lanes)
    if times > 1:
        better = ranks * -(-order.lanes // ranks)
        notes.append(
            f"{ranks} processes do not divide --parts {order.lanes}: each row is read by {times} of them. "
            f"--parts {better} would have each read its own."
        )
    for source, of_source in zip(sources, order.orders, strict=True):
        if source.endless:
            notes.append(
                f"{source.name} is a plain iterable: it is shuffled only within windows of {of_source.window} rows, "
                f"each process goes through all of it, and resuming goes through what was seen again."
            )
        elif source.rows.reads_from_start:
            notes += piece_notes(source, of_source, ranks)
    return notes


def piece_notes(source: Source, order: GlobalOrder, ranks: int) -> list[str]:
    """What is to be said of pieces that can only be read from their start, where they are few."""
    pieces, piece = sum(count > 0 for count in source.counts), source.rows.piece
    if pieces >= order.parts:
        return []
    times = -(-order.parts // pieces)
    note = (
        f"{source.name} has {pieces} {piece}{'s' * (pieces > 1)}, which can only be read from the start, for --parts "
        f"{order.parts}: a {piece} is begun about {times} times an epoch"
    )
    if piece == "shard":
        return [f"{note}. Write it as Parquet or in more shards, or give --parts {max(pieces, ranks)}."]
    if max(source.counts) <= order.parts * order.window:  # no more than are held at any time anyway
        return []
    return [
        f"{note}, and again at each resume, by each process that reads of it. Write smaller row groups: at least "
        f"{order.parts}, of some hundred or thousand rows each."
    ]
