"""Threads that read ahead and never keep a process alive.

Python waits at its exit for the threads of a `ThreadPoolExecutor`, also for one that waits for a server.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

PATIENCE = 2.0  # seconds that `close` waits for running calls: libraries may abort if Python ends during a call


class DaemonThreads:
    """Runs calls in daemon threads, in the order of `submit`."""

    def __init__(self, count: int, name: str):
        """count: number of threads. name: of the threads, for debuggers."""
        self._calls: queue.SimpleQueue[tuple | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable, *args) -> Future:
        """Calls a function in one of the threads. Returns the future of its result."""
        future = Future()
        self._calls.put((future, function, args))
        return future

    def close(self) -> None:
        """Cancels calls that have not begun, and waits at most `PATIENCE` seconds for those that run."""
        while not self._calls.empty():
            try:
                self._calls.get_nowait()[0].cancel()
            except queue.Empty:  # a thread was faster
                break
        for _ in self._threads:
            self._calls.put(None)
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)
            del call, future, function, args  # keeps no rows while it waits
