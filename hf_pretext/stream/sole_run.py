"""One run at a time writes to an output folder: a lock on the main process, for all ranks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..utils.lock import FolderLock
from ..utils.ranks import on_main_process, rank_and_ranks

_locked: set[Path] = set()  # folders that this process has locked: a recipe locks the folder of its trainer


@contextmanager
def sole_run(folder: str | os.PathLike) -> Iterator[None]:
    """Locks the output folder of a run while the context lasts. Call it on every rank.

    Does nothing in a folder that this process has locked before. Raises `ValueError`, on all ranks, if a different run
    holds the lock, and if the folder can't be written to."""
    path = Path(folder).absolute()
    if path in _locked:
        yield
        return
    lock, main_process = FolderLock(folder), rank_and_ranks()[0] == 0
    on_main_process(lock.acquire)
    _locked.add(path)
    try:
        yield
    finally:
        _locked.discard(path)
        if main_process:
            lock.release()
