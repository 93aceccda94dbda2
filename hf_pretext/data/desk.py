"""How undecoded rows come to the loader's workers: in memory that all processes see.

rows {"image": {"bytes": ...}} -> laid: bytes into shared memory -> a pipe, with their places alone -> taken: rows again

Through the pipe itself each byte would be copied four times, 64 KiB at once, which takes a tenth as long as decoding.
"""

import os
import shutil
from collections.abc import Callable

import torch

SHARED = "/dev/shm"  # where Linux keeps such memory; a container's may be small
MOST_BYTES = 2**26  # of a batch
SPARE = 1.25  # room for batches of larger rows than usual


class Desk:
    """Places for as many batches as are on their way to the workers at a time, used in turn.

    A place is free again when its batch has come back, and a loader hands out no more batches than there are places.
    What finds no room goes through the pipe.
    """

    def __init__(self, places: int, size: int):
        """size: of a place, in bytes."""
        self.memory = torch.empty((places, size), dtype=torch.uint8).share_memory_()
        self._laid = 0

    def laid(self, rows: list[dict]) -> list[dict]:
        """In the training process: a batch's rows, with the bytes in them in the next place."""
        place, end = self._laid % len(self.memory), 0
        self._laid += 1
        memory = memoryview(self.memory[place].numpy())

        def lay(content):
            nonlocal end
            if not isinstance(content, bytes) or end + len(content) > len(memory):
                return content
            begin, end = end, end + len(content)
            memory[begin:end] = content
            return place, begin, end

        return [with_content(row, lay) for row in rows]

    def taken(self, rows: list[dict]) -> list[dict]:
        """In a worker: the rows as they were."""

        def take(content):
            if not isinstance(content, tuple):
                return content
            place, begin, end = content
            return self.memory[place, begin:end].numpy().tobytes()

        return [with_content(row, take) for row in rows]


def with_content(row: dict, change: Callable) -> dict:
    """A row whose media, undecoded, have their `bytes` changed."""
    row = dict(row)
    for name, value in row.items():
        if isinstance(value, dict) and "bytes" in value:
            row[name] = {**value, "bytes": change(value["bytes"])}
    return row


def make_desk(batches: int, batch_bytes: float) -> Desk | None:
    """A desk for so many batches of about so many bytes; None where there are none, or no room."""
    size = int(min(SPARE * batch_bytes, MOST_BYTES))
    scarce = os.path.isdir(SHARED) and shutil.disk_usage(SHARED).free < 2 * batches * size
    return Desk(batches, size) if batches and size and not scarce else None
