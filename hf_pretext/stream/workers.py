"""Worker processes of the loader: how they begin and end, and the errors of a worker that was killed.

signals, end of the training process -> end of a worker; end of a worker -> `ValueError` with the fix
"""

import gc
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader

from ..utils.machine import keep_freed_memory
from .shared_memory import SHARED, SharedMemoryFull


def begin_worker(number: int) -> None:
    """Runs at the start of each worker: keeps freed memory, leaves the objects of its parent process alone (see
    `leave_objects_of_parent`), and ends the worker if its parent process ends.

    It ignores signals that end the training process after its step (`Interruption`), which a terminal or a job
    scheduler sends to workers too: the step needs them."""
    leave_objects_of_parent()
    keep_freed_memory()  # returning memory to the system after each sample makes decoding a tenth slower
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()


def started(loader: DataLoader) -> Iterator:
    """Starts the workers of a loader, which call `leave_objects_of_parent`. Returns the iterator over its batches.

    Garbage collection pauses meanwhile: in a forked worker it would run before the worker's first line."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return iter(loader)
    finally:
        if enabled:
            gc.enable()


def leave_objects_of_parent(number: int = 0) -> None:
    """Excludes all objects that exist now from garbage collection, at the start of a worker.

    A forked worker has copies of its parent's objects, but not its threads. To free a codec with threads, as PyAV
    makes them, is to wait for these threads: the worker would wait forever. number: of the worker."""
    gc.freeze()
    gc.enable()


def end_with(parent: int) -> None:
    """Ends this process at most about a second after its parent ends, even if it is blocked writing into a pipe, and
    when its parent sends SIGTERM."""
    while os.getppid() == parent:
        if not hasattr(signal, "sigtimedwait"):
            time.sleep(1)
        elif (received := signal.sigtimedwait({signal.SIGTERM}, 1)) is not None and received.si_pid == parent:
            os._exit(0)  # the training process ends its workers
    os._exit(1)


@contextmanager
def explained_workers() -> Iterator[None]:
    """Turns the error of a worker that was killed into a `ValueError` with the usual cause and the fix.

    PyTorch raises the error between any two lines of the training process, so the context contains all of training."""
    try:
        yield
    except SharedMemoryFull:
        raise ValueError(full_memory()) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")  # the cause names the signal
        if "Bus error" in reason:
            raise ValueError(full_memory()) from error
        if "Killed" in reason:
            fix = (
                "The memory of this machine or job is probably full. Give fewer --dataloader_num_workers, a smaller "
                "--per_device_train_batch_size or a smaller --buffer_bytes"
            )
        else:
            fix = "Give --dataloader_num_workers 0 to decode in the training process, which shows the error"
        raise ValueError(f"{reason}. {fix}.") from error


def full_memory() -> str:
    """Returns the error for shared memory that is too small."""
    free = f" ({shutil.disk_usage(SHARED).free / 2**20:,.0f} MiB free)" if os.path.isdir(SHARED) else ""
    return (
        f"The shared memory {SHARED} is too small for the batches of the loader's workers{free}. Give the container "
        "more (docker run --shm-size=8g, or --ipc=host), or give fewer --dataloader_num_workers, 0 for none."
    )
