"""Data loader of one rank: its batches in the global order, decoded in workers, starting at any sample.

    Reader -> undecoded rows -> workers: decode, augment, collate -> bad samples replaced -> endless batches

A reader in the training process passes rows to the loader's workers. The workers decode and augment each row with
random numbers drawn from (seed, sample number). So a sample depends neither on the number of workers nor on bad
samples.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.decoding import UNREADABLE, BadSample
from ..data.media_suffixes import NAMES
from ..data.sources import Source
from .collate import Room, collate
from .mixture import Mixture
from .order import ROW, SAMPLE, RowsOf
from .reader import Reader, make_order
from .sample_log import SampleLog
from .settings import StreamSettings
from .shared_memory import Outbox, SharedBatches, make_shared_batches
from .workers import begin_worker, started

Process = Callable[[dict, np.random.Generator], dict]


class Decoder(Dataset):
    """Decodes rows to examples, in the workers.

    process: `(row, generator) -> example`; raises `BadSample`. Each sample gets a generator of its number, whichever
    worker decodes it. shared: memory that stores the bytes of the rows; None if the rows contain them. keys: None, or
    what the number of the first row counts from: examples then have the column `keys`. draw: None, or a number: the
    generator then is of this number and of the row, whichever sample it is; needs keys.
    """

    def __init__(
        self,
        process: Process,
        seed: int,
        shared: SharedBatches | None = None,
        keys: int | None = None,
        draw: int | None = None,
    ):
        self.process, self.seed, self.shared, self.keys, self.draw = process, seed, shared, keys, draw

    def __getitems__(self, rows: list[dict]) -> list[dict]:
        if self.shared is not None:
            rows = self.shared.get(rows)
        # made before decoding: between two crops, a generator costs three times as much, in cache misses
        generators = [self._generator(row) for row in rows]
        return [self._try(row, random) for row, random in zip(rows, generators, strict=True)]

    def decode(self, row: dict) -> dict:
        """Decodes one row. Returns `{"key", "example"}`, or `{"key", "path", "reason"}` for a bad row."""
        return self._try(row, self._generator(row))

    def _generator(self, row: dict) -> np.random.Generator:
        if self.draw is None:
            return np.random.default_rng([self.seed, SAMPLE, row["g"]])
        return np.random.default_rng([self.seed, ROW, self.draw, self.keys + row["number"]])

    def _try(self, row: dict, random: np.random.Generator) -> dict:
        try:
            if UNREADABLE in row:
                raise BadSample(row[UNREADABLE])
            keys = {} if self.keys is None else {"keys": self.keys + row["number"]}
            return {"key": row["key"], "example": {**self.process(row, random), **keys}}
        except BadSample as error:
            return {"key": row["key"], "path": path_of(row), "reason": str(error)}


def path_of(row: Mapping) -> str | None:
    """Returns the path of the first image, sound or video of a row that is a file; None if the row has none."""
    values = (row.get(kind) for kind in NAMES)
    files = (value for value in values if isinstance(value, dict) and value.get("bytes") is None)
    return next((value["path"] for value in files if value.get("path")), None)


class Stacker:
    """Stacks examples into a batch, in the workers.

    outbox: shared memory for the batches of a worker; None in the training process. fills: see `collate`."""

    def __init__(self, outbox: Outbox | None = None, fills: Mapping[str, int] | None = None):
        self.outbox, self.fills = outbox, fills

    def __call__(self, samples: list[dict]) -> tuple[list[str], dict[str, Tensor] | list[dict]]:
        """Returns the keys and the batch. If a sample is bad, returns the keys and the list of samples instead: the
        training process then replaces the bad ones."""
        keys = [sample["key"] for sample in samples]
        if any("reason" in sample for sample in samples):
            return keys, samples
        return keys, self.stack(samples, self.outbox and self.outbox.room())

    def stack(self, samples: list[dict], room: Room | None = None) -> dict[str, Tensor]:
        """Collates good samples."""
        return collate([sample["example"] for sample in samples], room, self.fills)


class StreamLoader:
    """Data loader for Trainer. An epoch is `len(self)` batches. Batches continue over the end of an epoch: a batch
    may contain the last samples of one epoch and the first samples of the next."""

    def __init__(
        self,
        data: Mixture | Source,
        process: Process,
        batch_size: int,
        seed: int = 0,
        settings: StreamSettings | None = None,
        windows: Sequence[int] | None = None,
        folder: str | os.PathLike | None = None,
        rank: int = 0,
        ranks: int = 1,
        accumulation: int = 1,
        start: int = 0,
        watched: dict | None = None,
        keys: int | None = None,
        draw: int | None = None,
        **loader_options,
    ):
        """process: `(row, generator) -> example` (see `Decoder`). batch_size: samples of one rank in a batch. start:
        samples seen so far by all ranks. windows: rows of a window of each source, from the checkpoint of a resumed
        run. folder: for the lists of bad samples and of consumed samples. accumulation: batches of one step; an epoch
        is rounded up to whole steps. watched: counts of bad samples of a resumed run (see `SampleLog`). keys: None, or
        the number of the first row: batches then have `keys`, the number of each sample's row, `(B,)`, int64. draw:
        see `Decoder`. loader_options: of `torch.utils.data.DataLoader`, for example `num_workers`."""
        settings = settings or StreamSettings()
        self.dataset = data = Mixture(data) if isinstance(data, Source) else data
        rows = None if data.endless else len(data)
        together = batch_size * ranks * accumulation if data.one_source_a_step else 1
        order = make_order(data.sources, data.weights, settings, seed, windows, together, ranks)
        self.reader = Reader(data.sources, order, settings.buffer_bytes)
        self.sample_log = SampleLog(
            folder, rank, ranks, rows, settings.max_bad_fraction, settings.record_samples, start, watched
        )
        self.batch_size, self._rank, self._ranks, self._next = batch_size, rank, ranks, start
        self._start, self._step = start, batch_size * ranks * accumulation  # in samples
        self._accumulation = accumulation
        self._steps = None if rows is None else -(-rows // self._step)
        if rows is not None:
            self._left = (self._steps - start // self._step % self._steps) * accumulation
        self._loader = self._make_loader(process, seed, keys, draw, **loader_options)
        self._batches = None

    def _make_loader(self, process: Process, seed: int, keys: int | None, draw: int | None, **options) -> DataLoader:
        """Makes the DataLoader, its workers and the memory that they share with this process."""
        workers, ahead = options.get("num_workers", 0), options.get("prefetch_factor") or 2
        on_their_way = workers * ahead
        row_bytes = max(source.row_bytes() for source in self.dataset.sources) if on_their_way else 0
        self._shared = make_shared_batches(on_their_way, row_bytes * self.batch_size)
        self._decoder = Decoder(process, seed, self._shared, keys, draw)
        self._stacker = Stacker(Outbox(ahead + 1) if workers else None, getattr(process, "fills", None))
        return DataLoader(
            self._decoder,
            batch_sampler=self._read(self._start),
            collate_fn=self._stacker,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),  # the default draws a number from the global generator
            **options,
        )

    def __len__(self) -> int:
        """Batches of an epoch. Raises `TypeError` if the length of the data is unknown."""
        if self._steps is None:
            raise TypeError("The length of the data is unknown, so an epoch has no length. Give --max_steps.")
        return self._steps * self._accumulation

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self._batches is None:
            self._batches = started(self._loader)
        if self._steps is None:
            while True:
                yield self._batch()
        left, self._left = self._left, len(self)
        for _ in range(left):
            yield self._batch()

    def once(self) -> Iterator[dict[str, Tensor]]:
        """Iterates over the rows of an epoch of one source, for a new loader with `keys`: each row that can be used
        comes once. Substitutes of bad samples, and rows of the next epoch in the last batch, are left out."""
        rows, first = len(self.dataset), self._decoder.keys
        for batch in itertools.islice(self, len(self)):
            numbers = self._numbers(self._next - self.batch_size * self._ranks)
            expected = torch.tensor([first + self.reader.number(g) if g < rows else -1 for g in numbers])
            kept = batch["keys"] == expected
            if kept.any():
                yield batch if kept.all() else {name: value[kept] for name, value in batch.items()}

    def use(self, process: Process) -> None:
        """Replaces `process` before the first batch: workers, which get it then, are not started yet."""
        self._decoder.process = process

    def close(self) -> None:
        """Stops the workers and the reader."""
        self._batches = None
        self.reader.close()

    def _numbers(self, first: int) -> range:
        """Sample numbers of this rank, in the batches of all ranks that start at sample number `first`."""
        return range(first + self._rank, first + self.batch_size * self._ranks, self._ranks)

    def _read(self, first: int) -> Iterator[list[dict]]:
        while True:
            rows = [self.reader.row(g) for g in self._numbers(first)]
            yield rows if self._shared is None else self._shared.put(rows)
            first += self.batch_size * self._ranks

    def _batch(self) -> dict[str, Tensor]:
        self.reader.consumed = self._next
        keys, batch = next(self._batches)
        if isinstance(batch, dict):  # cloned, since the worker reuses its shared memory
            batch = {name: value.clone() if value.is_shared() else value for name, value in batch.items()}
        numbers, bad, replaced = self._numbers(self._next), [], {}
        if isinstance(batch, list):
            replaced = {g: sample for g, sample in zip(numbers, batch, strict=True) if "reason" in sample}
            samples, bad = self._fixed(batch, numbers)
            keys, batch = [sample["key"] for sample in samples], self._stacker.stack(samples)
        self._next += self.batch_size * self._ranks
        self.sample_log.note(numbers, keys, bad, replaced)
        return batch

    def _fixed(self, samples: list[dict], numbers: Sequence[int]) -> tuple[list[dict], list[dict]]:
        """Replaces bad samples. Returns the samples, and all bad samples met, bad substitutes included.

        A substitute is not in the global batch of the step, and replaces one bad sample of it only (see
        `Reader.substitutes`). Ranks need no communication for this. Raises `ValueError` if no sample of the batch is
        good and no substitute is either."""
        samples, bad = list(samples), []
        first = self._next - (self._next - self._start) % self._step
        used = RowsOf(self.reader.order, range(first, first + self._step))
        for at, sample in enumerate(samples):
            if "reason" not in sample:
                continue
            bad.append(sample)
            for row in self.reader.substitutes(numbers[at], self._step, used):
                substitute = self._decoder.decode(row)
                if "reason" not in substitute:
                    samples[at] = substitute
                    break
                bad.append(substitute)
        good = [sample for sample in samples if "reason" not in sample]
        if not good:
            raise ValueError(
                f"All samples of a batch of {len(samples)} are bad, and so are all substitutes that were tried. For "
                f"example {bad[0]['key']}: {bad[0]['reason']}. Check the dataset and the names of its columns."
            )
        # without a good substitute, good samples of the batch are repeated, so that the batch keeps its size
        return [good[i % len(good)] if "reason" in sample else sample for i, sample in enumerate(samples)], bad


def each_row(
    data: Mixture, process: Process, batch_size: int, rank: int = 0, ranks: int = 1, draw: int = 0, **options
) -> Iterator[dict[str, Tensor]]:
    """Iterates over all rows of data of known length, each once, source by source, whatever the weights of the sources
    are. Yields batches with `keys`, of at most `batch_size` rows. Rows that can't be used are left out.

    rank, ranks: the rows are divided among the ranks. Some ranks may get fewer batches than others. draw: the random
    numbers of a row depend on the seed, this number and the number of the row alone, not on the order. options: of
    `StreamLoader`."""
    first = 0
    for source in data.sources:
        loader = StreamLoader(source, process, batch_size, rank=rank, ranks=ranks, keys=first, draw=draw, **options)
        try:
            yield from loader.once()
        finally:
            loader.close()
        first += len(source)
