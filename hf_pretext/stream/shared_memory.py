"""Shared memory between the training process and the loader's workers: undecoded rows one way, batches the other way.

rows {"image": {"bytes": ...}} -> put: bytes into shared memory -> pipe: only their places -> get: rows
examples -> stacked into the outbox of a worker -> pipe: only its name -> cloned by the training process

Without it, the pipe copies each byte of a row four times, in blocks of 64 KiB: a tenth of the time of decoding. New
memory for each batch costs another tenth, since the system zeroes its pages first. So memory is reused.
"""

import math
import os
import shutil
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHARED = "/dev/shm"  # shared memory of Linux, which may be small in a container
MOST_BYTES = 2**26  # of one batch
SPARE = 1.25  # factor on the usual size of a batch, for larger rows


class SharedMemoryFull(Exception):
    """`/dev/shm` has no room for the next batch of a worker. Writing to it would kill the worker."""


class SharedBatches:
    """Shared memory for batches of undecoded rows: one place for each batch on its way to the workers, used in turn.

    A place is free again when its batch has returned. A loader has at most as many batches on their way as places.
    Bytes that do not fit are sent through the pipe.
    """

    def __init__(self, places: int, size: int):
        """size: bytes of a place."""
        self.memory = torch.empty((places, size), dtype=torch.uint8).share_memory_()
        self._count = 0

    def put(self, rows: list[dict]) -> list[dict]:
        """Copies the bytes of a batch of rows into the next place, in the training process. Returns the rows with
        `(place, begin, end)` instead of the bytes."""
        place, end = self._count % len(self.memory), 0
        self._count += 1
        memory = memoryview(self.memory[place].numpy())

        def lay(content):
            nonlocal end
            if not isinstance(content, bytes) or end + len(content) > len(memory):
                return content
            begin, end = end, end + len(content)
            memory[begin:end] = content
            return place, begin, end

        return [with_content(row, lay) for row in rows]

    def get(self, rows: list[dict]) -> list[dict]:
        """Returns the rows with their bytes again, in a worker."""

        def take(content):
            if not isinstance(content, tuple):
                return content
            place, begin, end = content
            return self.memory[place, begin:end].numpy().tobytes()

        return [with_content(row, take) for row in rows]


class Outbox:
    """Shared memory for the batches that a worker sends: several places, used in turn.

    A loader gives a worker a new task when it takes the result of the task `prefetch_factor` earlier. It takes the next
    result only after the training process has cloned this one. So with `prefetch_factor + 1` places, no batch is
    overwritten while it is read. If the loader pins memory, pinning already makes a copy.
    """

    def __init__(self, places: int):
        self._places, self._sent = [{} for _ in range(places)], 0

    def room(self) -> Callable[[str, Sequence[int], torch.dtype], Tensor]:
        """Returns the allocator of the next batch: `(column, shape, dtype) -> shared tensor`, not initialised. It
        raises `SharedMemoryFull`."""
        place = self._places[self._sent % len(self._places)]
        self._sent += 1

        def take(column: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
            size = math.prod(shape) * dtype.itemsize
            if column not in place or len(place[column]) < size:
                if os.path.isdir(SHARED) and shutil.disk_usage(SHARED).free < size:
                    raise SharedMemoryFull
                place[column] = torch.empty(size, dtype=torch.uint8).share_memory_()
            return place[column][:size].view(dtype).view(*shape)

        return take


def with_content(row: dict, change: Callable) -> dict:
    """Returns a copy of a row with `change` applied to the `bytes` of each undecoded image, sound or video."""
    row = dict(row)
    for name, value in row.items():
        if isinstance(value, dict) and "bytes" in value:
            row[name] = {**value, "bytes": change(value["bytes"])}
    return row


def make_shared_batches(batches: int, batch_bytes: float) -> SharedBatches | None:
    """Makes shared memory for a number of batches of about `batch_bytes`. Returns None if either is 0, or if `/dev/shm`
    has less than twice the needed space."""
    size = int(min(SPARE * batch_bytes, MOST_BYTES))
    scarce = os.path.isdir(SHARED) and shutil.disk_usage(SHARED).free < 2 * batches * size
    return SharedBatches(batches, size) if batches and size and not scarce else None
