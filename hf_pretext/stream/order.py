"""Which sample comes when: pure numbers, a function of (seed, row counts) and nothing else.

    sample number g -> source -> part and window of an epoch -> (piece, row in the piece)

Ranks and workers only divide this order, so the state of the data is one integer: how many samples were seen.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..data.rows import ENDLESS
from .settings import PARTS, WINDOW

BLOCK = 1000  # samples in which a mixture's weights are met exactly, in each lane
CYCLE = 20  # steps in which they are, where each step is of one source
ORDER, PART, SPARE, SAMPLE, MIXTURE, TURN = range(6)  # what a random draw is for, so that no two share their numbers
CACHED = 64  # drawn permutations kept
NEAR, FAR = 8, 24  # spares of a sample: from its own window, from anywhere


class Window(NamedTuple):
    """Rows that are read together and shuffled among themselves: the number-th window of a part of an epoch."""

    epoch: int
    part: int
    number: int


class Range(NamedTuple):
    """Rows `start` to `stop` (exclusive) of a piece."""

    piece: int
    start: int
    stop: int


class GlobalOrder:
    """The order of one source.

    An epoch permutes the pieces, begins at a random row of them, cuts their rows into `parts` of equal length,
    permutes each part inside windows of `window` rows, and takes from the parts in turn. So reads stay within `parts`
    windows at any time, neighbours come from far apart, and each row comes once an epoch. The parts' windows end at
    different times, so that reading is spread evenly.
    """

    def __init__(self, counts: Sequence[int], seed: int = 0, parts: int = PARTS, window: int = WINDOW):
        """counts: rows of each piece. An endless source is one part, read from its start."""
        self.counts, self.seed = np.asarray(counts, np.int64), seed
        self.rows = int(self.counts.sum())
        self.endless = self.rows >= ENDLESS
        self.parts, self.window = 1 if self.endless else parts, window
        self._layouts: OrderedDict[int, tuple[np.ndarray, list[int], int]] = OrderedDict()
        self._permutations: OrderedDict[Window, list[int]] = OrderedDict()

    def __getitem__(self, i: int) -> tuple[int, int]:
        """Sample number i >= 0, of any epoch, to (piece, row in the piece)."""
        return self.place(*self.find(i))

    def place(self, window: Window, at: int) -> tuple[int, int]:
        """A row of a window to (piece, row in the piece)."""
        for piece, start, stop in self.ranges(window):
            if at < stop - start:
                return piece, start + at
            at -= stop - start
        raise IndexError(f"{window} has no row {at}.")

    def find(self, i: int) -> tuple[Window, int]:
        """The window of sample i, and which of its rows that is."""
        epoch, left = divmod(i, self.rows)
        j, part = divmod(left, self.parts)
        window, k = self._window(epoch, part, j)
        if window not in self._permutations:
            draw = np.random.default_rng([self.seed, PART, *window]).permutation(self.size(window))
            remember(self._permutations, window, draw.tolist(), CACHED * self.parts)
        return window, self._permutations[window][k]

    def samples(self, window: Window) -> range:
        """The numbers of the samples that a window holds, in their order."""
        first, last = self._bounds(window)
        start = window.epoch * self.rows + window.part
        return range(start + first * self.parts, start + last * self.parts, self.parts)

    def spares(self, i: int, apart: int) -> Iterator[int]:
        """Other samples of the epoch whose rows may take the place of sample i's: up to `NEAR` of its own window, then
        up to `FAR` from anywhere.

        No two samples of an epoch have a spare in common, unless their numbers differ by a multiple of `apart`, itself
        a multiple of `parts`: they need not ask each other. Of a window, only samples whole multiples of `apart` from
        i; of each run of `apart` samples in the epoch, one, and none that a sample of its own window could be given."""
        window, _ = self.find(i)
        samples, step = self.samples(window), apart // self.parts
        for slot in self._slots(window, step):
            at = samples.index(i) % step + slot * step
            if at < len(samples) and samples[at] != i:
                yield samples[at]
        if self.endless:
            return
        start = i - i % self.rows
        runs = range(start // apart, (start + self.rows - 1) // apart + 1)
        random = np.random.default_rng([self.seed, SPARE, i])
        for run in random.choice(len(runs), min(FAR, len(runs)), replace=False).tolist():
            turn = int(np.random.default_rng([self.seed, SPARE, runs[run], apart]).integers(apart))
            other = runs[run] * apart + (i + turn) % apart
            if start <= other < start + self.rows and other != i and not self._is_near(other, step):
                yield other

    def _slots(self, window: Window, step: int) -> list[int]:
        """Which spares of their own window its samples have, counted in steps; at most half, so as to leave some for
        samples of other windows."""
        count = -(-self.size(window) // step)
        draw = np.random.default_rng([self.seed, SPARE, *window]).permutation(count)
        return draw[: min(NEAR, count // 2)].tolist()

    def _is_near(self, i: int, step: int) -> bool:
        """Whether sample i is a spare of samples of its own window."""
        window, _ = self.find(i)
        return self.samples(window).index(i) // step in self._slots(window, step)

    def size(self, window: Window) -> int:
        """Rows of a window."""
        first, last = self._bounds(window)
        return last - first

    def ranges(self, window: Window) -> list[Range]:
        """Where a window's rows lie, in their order before shuffling."""
        first, last = self._bounds(window)
        start = window.part * (self.rows // self.parts) + min(window.part, self.rows % self.parts)
        if self.endless:
            return [Range(0, first, last)]
        pieces, ends, turn = self._layout(window.epoch)
        result, at, left = [], (start + first + turn) % self.rows, last - first
        while left:
            place = bisect_right(ends, at)
            offset = at - (ends[place - 1] if place else 0)
            count = min(left, ends[place] - at)
            result.append(Range(int(pieces[place]), offset, offset + count))
            at, left = (at + count) % self.rows, left - count
        return result

    def after(self, i: int) -> Window:
        """The window that is read after that of sample i, by whoever takes every `parts`-th sample."""
        window, _ = self.find(i)
        j = (i % self.rows) // self.parts
        return self.find(i + self.parts * (self._bounds(window)[1] - j))[0]

    def _layout(self, epoch: int) -> tuple[np.ndarray, list[int], int]:
        if epoch not in self._layouts:
            pieces = np.random.default_rng([self.seed, ORDER, epoch]).permutation(len(self.counts))
            pieces = pieces[self.counts[pieces] > 0]
            turn = int(np.random.default_rng([self.seed, TURN, epoch]).integers(self.rows))
            remember(self._layouts, epoch, (pieces, np.cumsum(self.counts[pieces]).tolist(), turn), 3)
        return self._layouts[epoch]

    def _length(self, part: int) -> int:
        return (self.rows - 1 - part) // self.parts + 1  # parts differ by one row at most

    def _first(self, part: int) -> int:
        """Rows of a part's first window: shorter than the others, by part."""
        return self.window if self._length(part) <= self.window else max(self.window * (part + 1) // self.parts, 1)

    def _window(self, epoch: int, part: int, j: int) -> tuple[Window, int]:
        first = self._first(part)
        if j < first:
            return Window(epoch, part, 0), j
        number, k = divmod(j - first, self.window)
        return Window(epoch, part, number + 1), k

    def _bounds(self, window: Window) -> tuple[int, int]:
        first, length = self._first(window.part), self._length(window.part)
        start = first + (window.number - 1) * self.window if window.number else 0
        return start, min(start + self.window if window.number else first, length)


class MixedOrder:
    """The order of several sources: which of them sample g is from, and which of its own samples that is.

    Within each lane (every `parts`-th sample) each block of `BLOCK` samples holds each source as often as its weight
    says, in random places. Lanes are kept apart so that whoever reads a lane reads one part of each source at a time.
    Where `together` samples in a row are to be of one source, as a step's, so are `CYCLE` times as many.
    """

    def __init__(
        self, orders: Sequence[GlobalOrder], weights: Sequence[float] | None = None, seed: int = 0, together: int = 1
    ):
        """weights: shares of the samples, in any scale; by the sources' rows where None. Each must be large enough to
        be met (see `can_be_met`). together: 1, or a multiple of the orders' parts."""
        self.orders, self.seed, self.together = list(orders), seed, together
        self.lanes = max(order.parts for order in orders)
        weights = [order.rows for order in orders] if weights is None else weights
        self.weights = [w / sum(weights) for w in weights]
        self.block = BLOCK if together == 1 else CYCLE  # turns, of one sample each in a lane, or of some
        self.turn = max(together // self.lanes, 1)
        self.quotas = quotas(self.weights, self.block)
        self._blocks: OrderedDict[tuple[int, int], tuple[list[int], list[int]]] = OrderedDict()

    def choose(self, g: int) -> tuple[int, int]:
        """Sample number g to (source, number of that source's own sample)."""
        if len(self.orders) == 1:
            return 0, g
        q, lane = divmod(g, self.lanes)
        turn, at = divmod(q, self.turn)
        block, s = divmod(turn, self.block)
        sources, before = self._block(lane, block)
        k = sources[s]
        return k, ((block * self.quotas[k] + before[s]) * self.turn + at) * self.lanes + lane

    def drawn(self, g: int) -> list[int]:
        """How many of the first g samples each source gave."""
        if len(self.orders) == 1:
            return [g]
        return [sum(self._drawn(k, lane, g) for lane in range(self.lanes)) for k in range(len(self.orders))]

    def is_past(self, k: int, window: Window, g: int) -> bool:
        """Whether all samples of a window of source k come before sample number g."""
        last = self.orders[k].samples(window)[-1]
        # a window is one lane's, but that of an endless source, which all lanes take from, at their own pace
        lanes = [last % self.lanes] if self.orders[k].parts == self.lanes else range(self.lanes)
        return all(self._drawn(k, lane, g) * self.lanes + lane > last for lane in lanes)

    def spares(self, g: int, step: int) -> Iterator[int]:
        """As those of sample g's source (see `GlobalOrder.spares`), none of which another of `step` neighbours has."""
        k, i = self.choose(g)
        return self.orders[k].spares(i, -(-step // self.lanes) * self.lanes)

    def _drawn(self, k: int, lane: int, g: int) -> int:
        """How many of a lane's samples before sample number g are of source k."""
        q = max((g - lane + self.lanes - 1) // self.lanes, 0)
        if len(self.orders) == 1:
            return q
        turn, at = divmod(q, self.turn)
        block, s = divmod(turn, self.block)
        sources, _ = self._block(lane, block)
        return (block * self.quotas[k] + sources[:s].count(k)) * self.turn + (at if sources[s] == k else 0)

    def _block(self, lane: int, block: int) -> tuple[list[int], list[int]]:
        """The source of each turn of a block, and how many of the same source come before it there."""
        lane = lane if self.together == 1 else 0  # all lanes have the same
        if (lane, block) not in self._blocks:
            sources = np.repeat(np.arange(len(self.orders)), self.quotas)
            sources = np.random.default_rng([self.seed, MIXTURE, lane, block]).permutation(sources)
            before = np.empty_like(sources)
            for k, quota in enumerate(self.quotas):
                before[sources == k] = np.arange(quota)
            remember(self._blocks, (lane, block), (sources.tolist(), before.tolist()), CACHED * self.lanes)
        return self._blocks[lane, block]


def quotas(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers in proportion to `weights` (which add up to 1) that add up to `total`, by largest remainder."""
    exact = np.asarray(weights) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts.tolist()


def can_be_met(weights: Sequence[float], block: int = BLOCK) -> bool:
    """Whether each source of a mixture comes in each block: at least about once."""
    return min(quotas([w / sum(weights) for w in weights], block)) > 0


def remember(cache: OrderedDict, key, value, most: int) -> None:
    """Adds to a cache that forgets what was added first."""
    cache[key] = value
    if len(cache) > most:
        cache.popitem(last=False)
