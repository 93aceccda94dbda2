"""How undecoded rows come to the loader's workers, and batches back: in memory that all processes see, used again.

rows {"image": {"bytes": ...}} -> put: bytes into shared memory -> a pipe, with their places alone -> get: the rows
examples -> stacked into a worker's outbox -> a pipe, with its name alone -> cloned by the training process

Through the pipe itself each byte of a row would be copied four times, 64 KiB at once, which takes a tenth as long as
decoding; and the pages of a batch, if new for each, are zeroed by the system first, which takes another tenth.
"""

import math
import os
import shutil
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHARED = "/dev/shm"  # where Linux keeps such memory; a container's may be small
MOST_BYTES = 2**26  # of a batch
SPARE = 1.25  # room for batches of larger rows than usual


class SharedBatches:
    """Places for as many batches as are on their way to the workers at a time, used in turn.

    A place is free again when its batch has come back, and a loader hands out no more batches than there are places.
    What finds no room goes through the pipe.
    """

    def __init__(self, places: int, size: int):
        """size: of a place, in bytes."""
        self.memory = torch.empty((places, size), dtype=torch.uint8).share_memory_()
        self._count = 0

    def put(self, rows: list[dict]) -> list[dict]:
        """In the training process: a batch's rows, with the bytes in them in the next place."""
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
        """In a worker: the rows as they were."""

        def take(content):
            if not isinstance(content, tuple):
                return content
            place, begin, end = content
            return self.memory[place, begin:end].numpy().tobytes()

        return [with_content(row, take) for row in rows]


class Outbox:
    """In a worker: places for the batches that it sends, used in turn.

    A loader gives a worker its next task when it takes the result of one `prefetch_factor` tasks before, and takes
    another result only when the training process has cloned that one. So with one place more, none is overwritten
    while it is read. Where the loader pins memory, that is a copy already.
    """

    def __init__(self, places: int):
        self._places, self._sent = [{} for _ in range(places)], 0

    def room(self) -> Callable[[str, Sequence[int], torch.dtype], Tensor]:
        """For the next batch: `(column, shape, dtype) -> tensor` in shared memory, with whatever was there before."""
        place = self._places[self._sent % len(self._places)]
        self._sent += 1

        def take(column: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
            size = math.prod(shape) * dtype.itemsize
            if column not in place or len(place[column]) < size:
                place[column] = torch.empty(size, dtype=torch.uint8).share_memory_()
            return place[column][:size].view(dtype).view(*shape)

        return take


def with_content(row: dict, change: Callable) -> dict:
    """A row whose media, undecoded, have their `bytes` changed."""
    row = dict(row)
    for name, value in row.items():
        if isinstance(value, dict) and "bytes" in value:
            row[name] = {**value, "bytes": change(value["bytes"])}
    return row


def make_shared_batches(batches: int, batch_bytes: float) -> SharedBatches | None:
    """Places for so many batches of about so many bytes; None where there are none, or no room."""
    size = int(min(SPARE * batch_bytes, MOST_BYTES))
    scarce = os.path.isdir(SHARED) and shutil.disk_usage(SHARED).free < 2 * batches * size
    return SharedBatches(batches, size) if batches and size and not scarce else None
