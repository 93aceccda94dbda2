"""Runs jobs in several processes, for the scripts that build data."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm.auto import tqdm

RESULT = TypeVar("RESULT")


def run_jobs(
    function: Callable[..., RESULT], jobs: Sequence[tuple], workers: int, title: str, program: str, instead: str
) -> Iterator[RESULT]:
    """Yields the results of all jobs in order, with a progress bar. Processes end with the one that started them.

    function: of a module, so that a process can import it. jobs: its arguments. workers: number of processes. title: of
    the progress bar. program: runs in the processes, for the error. instead: advice at the end of the error.

    Raises `ValueError` if the program ends a process."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        yield from tqdm(pool.map(function, *zip(*jobs, strict=True)), title, len(jobs), leave=False)
    except BrokenProcessPool as error:
        raise ValueError(f"A process of {program} was ended: {error} {instead}") from error
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Ends this process when the process that started it has ended, also if that was killed."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
