"""Settings of the C library; facts of the machine and the code for results.json."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from hf_pretext.utils import machine
from hf_pretext.utils.machine import code_revision, energy

HEAPS = """
import ctypes, sys, threading
from hf_pretext.utils.machine import keep_freed_memory

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


def test_energy_is_measured_where_something_measures_it(monkeypatch):
    tracker = SimpleNamespace(start=lambda: None, stop=lambda: None, final_emissions_data=None)
    tracker.final_emissions_data = SimpleNamespace(energy_consumed=0.25)
    monkeypatch.setitem(sys.modules, "codecarbon", SimpleNamespace(OfflineEmissionsTracker=lambda **options: tracker))
    with energy() as drawn:
        assert drawn == {}
    assert drawn == {"kwh": 0.25}
    tracker.start = lambda: 1 / 0  # a failed measurement does not end the run
    with energy() as drawn:
        pass
    assert drawn == {}
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(KeyError, match="own"), energy():
        raise KeyError("own")


def test_the_code_is_known_by_its_commit(monkeypatch, tmp_path):
    found = code_revision()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}\+?", found)
    monkeypatch.setattr("hf_pretext.utils.machine.__file__", str(tmp_path / "machine.py"))
    assert code_revision() is None  # not a checkout


@pytest.mark.parametrize(("threads", "processes", "cores"), [(1, 1, 1), (1, 3, 3), (8, 1, 4)])
def test_cores_are_no_more_than_the_threads_that_compute(monkeypatch, threads, processes, cores):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert machine.describe(torch.device("cpu"))["cores"] == cores
