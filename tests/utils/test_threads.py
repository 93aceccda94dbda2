"""Calls in threads that do not keep a process alive."""

import subprocess
import sys
import threading
import time

import pytest

from hf_pretext.utils.threads import DaemonThreads

HANGS = """
import time
from hf_pretext.utils.threads import DaemonThreads
threads = DaemonThreads(2, "reader")
hanging = threads.submit(time.sleep, 600)
assert threads.submit(max, 1, 2).result() == 2
threads.close()
"""


def test_a_process_ends_while_a_call_hangs():
    began = time.time()
    assert subprocess.run([sys.executable, "-c", HANGS], timeout=120).returncode == 0
    assert time.time() - began < 100


def test_results_errors_and_calls_that_are_cancelled():
    threads, free = DaemonThreads(1, "reader"), threading.Event()
    assert threads.submit(divmod, 7, 2).result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result()
    running, waiting = threads.submit(free.wait), threads.submit(print)
    while not running.running():
        time.sleep(0.001)
    threading.Timer(0.1, free.set).start()
    threads.close()
    assert running.result() is True and waiting.cancelled()
