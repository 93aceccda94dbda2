"""What the C library is told."""

import subprocess
import sys

import pytest

HEAPS = """
import ctypes, sys, threading
from hf_pretext.machine import keep_freed_memory

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = ctypes.c_void_p
if sys.argv[1] == "few":
    assert keep_freed_memory()
together = threading.Barrier(12)

def work():
    together.wait()
    libc.malloc(100_000)
    together.wait()

threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
@pytest.mark.parametrize("heaps", ["few", "many"])
def test_threads_share_few_heaps(heaps):
    done = subprocess.run([sys.executable, "-c", HEAPS, heaps], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("<heap nr=") <= 2) == (heaps == "few")
