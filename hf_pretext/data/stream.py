"""The order of samples: shuffled, sharded over ranks and workers, resumable.

    Source + seed -> one global order -> rank r takes samples g with g % ranks == r -> batches, from any g on

Sample number g is a function of (seed, row counts) and nothing else. Ranks and workers only divide that order, so the
state of the data is one integer: how many samples were seen. A reader in the training process hands undecoded rows to
the loader's workers, which decode and augment them with random numbers drawn from (seed, g).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .collate import collate
from .decoding import BadSample
from .sources import Source

PARTS, WINDOW = 16, 256
SPARES_PER_BATCH = 2
ORDER, PART, SPARE, SAMPLE = range(4)  # what a random draw is for, so that no two share their numbers


class GlobalOrder:
    """Sample number g -> (piece, row in the piece).

    An epoch permutes the pieces, cuts their rows into `parts` of equal length, permutes each part inside windows of
    `window` rows, and takes from the parts in turn. So reads stay within `parts` windows at any time, neighbours come
    from far apart, and each row comes once an epoch.
    """

    def __init__(self, counts: list[int], seed: int = 0, parts: int = PARTS, window: int = WINDOW):
        self.counts, self.seed, self.parts, self.window = np.asarray(counts), seed, parts, window
        self.rows = int(self.counts.sum())
        self._epoch = None
        self._windows: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def __getitem__(self, g: int) -> tuple[int, int]:
        epoch, i = divmod(g, self.rows)
        j, part = divmod(i, self.parts)
        window, k = divmod(j, self.window)
        start = part * (self.rows // self.parts) + min(part, self.rows % self.parts)
        return self._locate(epoch, start + window * self.window + int(self._shuffled(epoch, part, window)[k]))

    def near(self, g: int, draw: int) -> int:
        """Another sample's number from the windows that are read around sample g; `draw` chooses which."""
        epoch, i = divmod(g, self.rows)
        span = self.parts * self.window
        first = i // span * span
        return epoch * self.rows + first + draw % min(span, self.rows - first)

    def _locate(self, epoch: int, position: int) -> tuple[int, int]:
        if epoch != self._epoch:
            self._epoch = epoch
            self._pieces = np.random.default_rng([self.seed, ORDER, epoch]).permutation(len(self.counts))
            self._ends = np.cumsum(self.counts[self._pieces])
        at = int(np.searchsorted(self._ends, position, side="right"))
        return int(self._pieces[at]), position - (int(self._ends[at - 1]) if at else 0)

    def _shuffled(self, epoch: int, part: int, window: int) -> np.ndarray:
        key = (epoch, part, window)
        if key not in self._windows:
            length = (self.rows - 1 - part) // self.parts + 1  # parts differ by one row at most
            size = min(self.window, length - window * self.window)
            self._windows[key] = np.random.default_rng([self.seed, PART, *key]).permutation(size)
            while len(self._windows) > 4 * self.parts:
                self._windows.popitem(last=False)
        return self._windows[key]


@dataclass
class Request:
    """What a worker is asked for: undecoded rows, each with its number `g` and `key`, and spares for bad ones."""

    rows: list[dict]
    spares: list[dict] = field(default_factory=list)


def read(
    source: Source, order: GlobalOrder, batch_size: int, rank: int = 0, ranks: int = 1, start: int = 0
) -> Iterator[Request]:
    """For ever: the rows of one rank's batches, from global sample number `start` on."""

    def row(g: int, number: int) -> dict:
        piece, index = order[number]
        return {**source.row(piece, index), "g": g, "key": source.key(piece, index)}

    first = start + rank
    while True:
        numbers = range(first, first + batch_size * ranks, ranks)
        draws = np.random.default_rng([order.seed, SPARE, first]).integers(1 << 62, size=8 * SPARES_PER_BATCH)
        others = dict.fromkeys(order.near(first, int(draw)) for draw in draws)
        spares = [g for g in others if g not in numbers][:SPARES_PER_BATCH]
        yield Request([row(g, g) for g in numbers], [row(g, g) for g in spares])
        first += batch_size * ranks


class Decoder(Dataset):
    """Runs in the workers: a request to examples, a bad row replaced by a spare one.

    process: `(row, generator) -> example`; raises `BadSample`. The generator belongs to the sample, not the worker.
    """

    def __init__(self, process: Callable[[dict, np.random.Generator], dict], seed: int):
        self.process, self.seed = process, seed

    def __getitems__(self, request: Request) -> tuple[list[dict], list[dict]]:
        examples, bad, spares = [], [], iter(request.spares)
        # made beforehand: between two crops, each would cost three times as much in cache misses
        generators = [np.random.default_rng([self.seed, SAMPLE, row["g"]]) for row in request.rows]
        for row, random in zip(request.rows, generators, strict=True):
            candidate = row
            while candidate is not None:
                try:
                    examples.append(self.process(candidate, random))
                    break
                except BadSample as error:
                    bad.append({"key": where(candidate), "reason": str(error)})
                    candidate = next(spares, None)
            else:
                examples.append(None)
        good = [example for example in examples if example is not None]
        if not good:
            raise ValueError(
                f"No sample of a batch of {len(request.rows)} could be used, as {bad[0]['key']}: {bad[0]['reason']}. "
                "Is this the right column of the right dataset?"
            )
        # more bad rows than spares: good ones of this batch serve twice, so that it keeps its size
        return [good[i % len(good)] if e is None else e for i, e in enumerate(examples)], bad


def where(row: dict) -> str:
    """A file's own path where the row is one, else the place in its source."""
    image = row.get("image")
    path = image.get("path") if isinstance(image, dict) and image.get("bytes") is None else None
    return path or row["key"]


def collate_with_report(result: tuple[list[dict], list[dict]]) -> tuple[dict[str, Tensor], list[dict]]:
    """The batch, and the bad samples that were replaced in it."""
    examples, bad = result
    return collate(examples), bad


class StreamLoader:
    """What Trainer iterates: one rank's batches in the global order, from any sample on, for ever.

    Trainer's epochs are `len(self)` batches; the stream flows through their edges, so that a batch may hold the last
    samples of one epoch and the first of the next.
    """

    def __init__(
        self,
        source: Source,
        process: Callable[[dict, np.random.Generator], dict],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        accumulation: int = 1,
        start: int = 0,
        **loader_options,
    ):
        """start: samples seen so far, by all ranks. accumulation: batches that make one step: an epoch is whole
        steps. loader_options: those of `torch.utils.data.DataLoader`, as `num_workers`."""
        self.dataset = source
        self.batch_size, self.bad = batch_size, []
        step = batch_size * ranks * accumulation
        self._length = -(-len(source) // step) * accumulation
        self._left_in_epoch = self._length - start // step * accumulation % self._length
        self._loader = DataLoader(
            Decoder(process, seed),
            batch_sampler=read(source, GlobalOrder(source.counts, seed), batch_size, rank, ranks, start),
            collate_fn=collate_with_report,
            generator=torch.Generator(),  # else making the iterator would eat a draw of the global generator
            **loader_options,
        )
        self._batches = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._length

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self._batches is None:
            self._batches = iter(self._loader)
        left, self._left_in_epoch = self._left_in_epoch, self._length
        for _ in range(left):
            batch, bad = next(self._batches)
            self.bad += bad
            yield batch
