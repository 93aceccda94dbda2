"""Order of the samples: a pure function of (seed, row counts, weights, settings).

    sample number g -> source -> part and window of an epoch -> (piece, row in the piece)

Ranks and workers only divide this order. So the state of the data is one integer: the number of samples seen.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..data.rows import ENDLESS
from .settings import PARTS, WINDOW

BLOCK = 1000  # every block of so many samples of a lane meets the weights of a mixture exactly
CYCLE = 20  # if each step is of one source, every block of so many steps meets the weights
# part of a seed: draws for different purposes are independent
ORDER, PART, SPARE, SAMPLE, MIXTURE, TURN, ROW = range(7)
CACHED = 64  # permutations in a cache, per part or lane
NEAR, FAR = 8, 24  # most spares of a sample: from its window, from the whole epoch


class Window(NamedTuple):
    """Rows that are read together and shuffled together: window `number` of a part of an epoch."""

    epoch: int
    part: int
    number: int


class Range(NamedTuple):
    """Rows `start` to `stop` (exclusive) of a piece."""

    piece: int
    start: int
    stop: int


class GlobalOrder:
    """Order of the samples of one source.

    An epoch permutes the pieces and starts at a random row. It cuts the rows into `parts` of equal length, permutes
    each part inside windows of `window` rows, and takes samples from the parts in turn. So at any time only `parts`
    windows are read, neighbouring samples come from distant places, and an epoch contains each row once. The windows of
    the parts end at different times, so that reading is spread evenly.
    """

    def __init__(self, counts: Sequence[int], seed: int = 0, parts: int = PARTS, window: int = WINDOW):
        """counts: rows of each piece. An endless source has one part and is read from its start."""
        self.counts, self.seed = np.asarray(counts, np.int64), seed
        self.rows = int(self.counts.sum())
        self.endless = self.rows >= ENDLESS
        self.parts, self.window = 1 if self.endless else parts, window
        self._layouts: OrderedDict[int, tuple[np.ndarray, list[int], int]] = OrderedDict()
        self._permutations: OrderedDict[Window, list[int]] = OrderedDict()

    def __getitem__(self, i: int) -> tuple[int, int]:
        """Returns (piece, row in the piece) of sample number i >= 0. Numbers continue over epochs."""
        return self.place(*self.find(i))

    def place(self, window: Window, at: int) -> tuple[int, int]:
        """Returns (piece, row in the piece) of row `at` of a window. Raises `IndexError` beyond its last row."""
        for piece, start, stop in self.ranges(window):
            if at < stop - start:
                return piece, start + at
            at -= stop - start
        raise IndexError(f"{window} has no row {at}.")

    def find(self, i: int) -> tuple[Window, int]:
        """Returns the window of sample i, and the index of the row in the window."""
        epoch, left = divmod(i, self.rows)
        j, part = divmod(left, self.parts)
        window, k = self._window(epoch, part, j)
        return window, self._permutation(window)[k]

    def number(self, piece: int, index: int, epoch: int) -> int:
        """Returns the sample number of row `index` of a piece in an epoch: the inverse of `[]`."""
        at = index  # of an endless source
        if not self.endless:
            pieces, ends, turn = self._layout(epoch)
            place = int(np.flatnonzero(pieces == piece)[0])
            at = ((ends[place - 1] if place else 0) + index - turn) % self.rows
        length, longer = divmod(self.rows, self.parts)  # the first `longer` parts have one row more
        beyond = at - longer * (length + 1)
        part = at // (length + 1) if beyond < 0 else longer + beyond // length
        window, k = self._window(epoch, part, at - part * length - min(part, longer))
        return self.samples(window)[self._permutation(window).index(k)]

    def _permutation(self, window: Window) -> list[int]:
        if window not in self._permutations:
            draw = np.random.default_rng([self.seed, PART, *window]).permutation(self.size(window))
            remember(self._permutations, window, draw.tolist(), CACHED * self.parts)
        return self._permutations[window]

    def samples(self, window: Window) -> range:
        """Numbers of the samples of a window, in order."""
        first, last = self._bounds(window)
        start = window.epoch * self.rows + window.part
        return range(start + first * self.parts, start + last * self.parts, self.parts)

    def spares(self, i: int, apart: int) -> Iterator[int]:
        """Yields spares of sample i: samples of the same epoch whose rows can replace the row of sample i. First up to
        `NEAR` from its window, then up to `FAR` from the whole epoch.

        apart: a multiple of `parts`. Two samples share a spare only if their numbers differ by a multiple of `apart`.
        So samples of one global batch never share a spare, and ranks need no communication. Spares from the window
        differ from i by multiples of `apart`. Spares from the whole epoch are one sample from each drawn run of `apart`
        samples, never one that is a spare in its own window."""
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
        """Steps of a window whose samples are spares in their own window. At most half of the steps: the others are for
        samples of other windows."""
        count = -(-self.size(window) // step)
        draw = np.random.default_rng([self.seed, SPARE, *window]).permutation(count)
        return draw[: min(NEAR, count // 2)].tolist()

    def _is_near(self, i: int, step: int) -> bool:
        """True if sample i is a spare of samples of its own window."""
        window, _ = self.find(i)
        return self.samples(window).index(i) // step in self._slots(window, step)

    def size(self, window: Window) -> int:
        """Number of rows of a window."""
        first, last = self._bounds(window)
        return last - first

    def ranges(self, window: Window) -> list[Range]:
        """Ranges of rows that make up a window, in order, before shuffling."""
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
        """The window that follows the window of sample i, for a reader that takes every `parts`-th sample."""
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
        return (self.rows - 1 - part) // self.parts + 1  # lengths of parts differ by at most one row

    def _first(self, part: int) -> int:
        """Rows of the first window of a part. Shorter than other windows, differently for each part."""
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
    """Order of the samples of several sources. Maps sample number g to a source and to a sample number of that source.

    A lane is every `lanes`-th sample, where `lanes` is the most parts of a source. In each lane, each block of `BLOCK`
    samples contains each source in proportion to its weight, at random positions. A reader of one lane reads one part
    of each source at a time. With `together` above 1, runs of `together` samples are of one source, for example all
    samples of a step; then each block of `CYCLE` runs meets the weights.
    """

    def __init__(
        self, orders: Sequence[GlobalOrder], weights: Sequence[float] | None = None, seed: int = 0, together: int = 1
    ):
        """weights: shares of the samples, in any scale; default: the rows of each source. Each must be large enough
        (see `can_be_met`). together: 1, or a multiple of the parts of the orders."""
        self.orders, self.seed, self.together = list(orders), seed, together
        self.lanes = max(order.parts for order in orders)
        weights = [order.rows for order in orders] if weights is None else weights
        self.weights = [w / sum(weights) for w in weights]
        self.block = BLOCK if together == 1 else CYCLE  # turns of a block; a turn is `self.turn` samples of a lane
        self.turn = max(together // self.lanes, 1)
        self.quotas = quotas(self.weights, self.block)
        self._blocks: OrderedDict[tuple[int, int], tuple[list[int], list[int]]] = OrderedDict()

    def choose(self, g: int) -> tuple[int, int]:
        """Returns (source, sample number in that source) of sample number g."""
        if len(self.orders) == 1:
            return 0, g
        q, lane = divmod(g, self.lanes)
        turn, at = divmod(q, self.turn)
        block, s = divmod(turn, self.block)
        sources, before = self._block(lane, block)
        k = sources[s]
        return k, ((block * self.quotas[k] + before[s]) * self.turn + at) * self.lanes + lane

    def number(self, k: int, i: int) -> int:
        """Returns the sample number of sample i of source k: the inverse of `choose`."""
        if len(self.orders) == 1:
            return i
        q, lane = divmod(i, self.lanes)
        turn, at = divmod(q, self.turn)
        block, before = divmod(turn, self.quotas[k])
        s = list(zip(*self._block(lane, block), strict=True)).index((k, before))
        return ((block * self.block + s) * self.turn + at) * self.lanes + lane

    def epochs(self, k: int, numbers: range) -> range:
        """Returns the epochs of source k, of known length, that the samples of consecutive numbers may come from."""
        first = min(self._drawn(k, lane, numbers.start) * self.lanes + lane for lane in range(self.lanes))
        stop = max(self._drawn(k, lane, numbers.stop) * self.lanes + lane for lane in range(self.lanes))
        return range(first // self.orders[k].rows, (stop - 1) // self.orders[k].rows + 1)

    def drawn(self, g: int) -> list[int]:
        """Returns how many of the first g samples come from each source."""
        if len(self.orders) == 1:
            return [g]
        return [sum(self._drawn(k, lane, g) for lane in range(self.lanes)) for k in range(len(self.orders))]

    def is_past(self, k: int, window: Window, g: int) -> bool:
        """True if all samples of a window of source k come before sample number g."""
        last = self.orders[k].samples(window)[-1]
        # a window belongs to one lane; but all lanes take from a window of an endless source, each at its pace
        lanes = [last % self.lanes] if self.orders[k].parts == self.lanes else range(self.lanes)
        return all(self._drawn(k, lane, g) * self.lanes + lane > last for lane in lanes)

    def spares(self, g: int, step: int) -> Iterator[int]:
        """Yields spares of sample g from its source (see `GlobalOrder.spares`). Samples of `step` consecutive numbers
        share no spare."""
        k, i = self.choose(g)
        return self.orders[k].spares(i, -(-step // self.lanes) * self.lanes)

    def _drawn(self, k: int, lane: int, g: int) -> int:
        """Number of samples of a lane before sample number g that are of source k."""
        q = max((g - lane + self.lanes - 1) // self.lanes, 0)
        if len(self.orders) == 1:
            return q
        turn, at = divmod(q, self.turn)
        block, s = divmod(turn, self.block)
        sources, _ = self._block(lane, block)
        return (block * self.quotas[k] + sources[:s].count(k)) * self.turn + (at if sources[s] == k else 0)

    def _block(self, lane: int, block: int) -> tuple[list[int], list[int]]:
        """Returns the source of each turn of a block, and how many turns of the same source come before it in the
        block."""
        lane = lane if self.together == 1 else 0  # runs of one source span all lanes
        if (lane, block) not in self._blocks:
            sources = np.repeat(np.arange(len(self.orders)), self.quotas)
            sources = np.random.default_rng([self.seed, MIXTURE, lane, block]).permutation(sources)
            before = np.empty_like(sources)
            for k, quota in enumerate(self.quotas):
                before[sources == k] = np.arange(quota)
            remember(self._blocks, (lane, block), (sources.tolist(), before.tolist()), CACHED * self.lanes)
        return self._blocks[lane, block]


class RowsOf:
    """Rows of consecutive samples, for example of a global batch. `(k, i) in rows` is True if one of them has the row
    of sample i of source k, of whichever epoch. The order is inverted for that: the samples are not listed, which takes
    hundreds of milliseconds for a large batch."""

    def __init__(self, order: MixedOrder, numbers: range):
        self.order, self.numbers = order, numbers
        self._epochs: dict[int, range] = {}  # of each source

    def __contains__(self, sample: tuple[int, int]) -> bool:
        k, i = sample
        order = self.order.orders[k]
        if k not in self._epochs:
            self._epochs[k] = range(1) if order.endless else self.order.epochs(k, self.numbers)
        place = order[i]
        return any(self.order.number(k, order.number(*place, epoch)) in self.numbers for epoch in self._epochs[k])


def quotas(weights: Sequence[float], total: int) -> list[int]:
    """Returns integers in proportion to `weights` (sum 1) that add up to `total`, by the largest remainder method."""
    exact = np.asarray(weights) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts.tolist()


def can_be_met(weights: Sequence[float], block: int = BLOCK) -> bool:
    """True if every block of a mixture contains each source at least once."""
    return min(quotas([w / sum(weights) for w in weights], block)) > 0


def remember(cache: OrderedDict, key, value, most: int) -> None:
    """Adds an item to a cache of at most `most` items. Drops the oldest item if the cache is full."""
    cache[key] = value
    if len(cache) > most:
        cache.popitem(last=False)
