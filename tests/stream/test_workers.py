"""What it means that a loader's worker was killed is one line with the fix."""

import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from streamed import Number, lenient, numbered

from hf_pretext.stream import shared_memory
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.workers import explained_workers


class Signalled(Number):
    """Sends its worker a signal."""

    def __init__(self, number):
        super().__init__()
        self.signal = number

    def __call__(self, row, random):
        if self.signal is not None:
            os.kill(os.getpid(), self.signal)
        return {**super().__call__(row, random), "image": torch.zeros(64, 64)}


def first_batch(number=None) -> None:
    loader = StreamLoader(numbered(0), Signalled(number), 8, settings=lenient(), num_workers=1)
    try:
        with explained_workers():
            assert len(next(iter(loader))["image"]) == 8
    finally:
        loader.close()


@pytest.mark.parametrize(
    "number, words",
    [
        (signal.SIGKILL, "killed by signal: Killed.*memory of this machine.*fewer --dataloader_num_workers"),
        (signal.SIGBUS, "/dev/shm is too small.*--shm-size"),
        (signal.SIGALRM, "Give --dataloader_num_workers 0"),
    ],
)
def test_a_worker_that_is_killed(number, words):
    with pytest.raises(ValueError) as refused:
        first_batch(number)
    assert re.search(words, str(refused.value)) and "\n" not in str(refused.value)


def test_shared_memory_that_is_full(monkeypatch):
    usage = shared_memory.shutil.disk_usage(shared_memory.SHARED)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: usage._replace(free=2**10))
    with pytest.raises(ValueError, match=r"/dev/shm is too small .* \(0 MiB free\).*--shm-size"):
        first_batch()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_signals_that_stop_training_leave_its_workers_alone(number):
    first_batch(number)


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="^shapes$"), explained_workers():
        raise RuntimeError("shapes")


FAILS = """
import sys
sys.path.insert(0, sys.argv[1])
from streamed import Number, lenient, numbered
from hf_pretext.stream.loader import StreamLoader
loader = StreamLoader(numbered(0), Number(), 8, settings=lenient(), num_workers=2)
next(iter(loader))
1 / 0
"""


def test_an_error_ends_the_process_and_its_workers():
    typed = [sys.executable, "-c", FAILS, os.path.dirname(__file__)]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


COLLECTS = """
import gc, os, sys
from fractions import Fraction
import av
import numpy as np
sys.path.insert(0, sys.argv[1])
from streamed import Number, lenient, numbered
from hf_pretext.stream.loader import StreamLoader

class Collects(Number):
    def __call__(self, row, random):
        gc.collect()
        return super().__call__(row, random)

class Cycle:
    pass

held = []

def make_cycle():
    codec = av.CodecContext.create("mpeg4", "w")
    codec.width, codec.height, codec.pix_fmt = 640, 480, "yuv420p"
    codec.time_base, codec.thread_count = Fraction(1, 25), 4
    codec.encode(av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24"))
    held.append(Cycle())
    held[0].itself, held[0].codec = held[0], codec

def lose_cycle():
    held.clear()
    gc.set_threshold(1, 1)  # collects what is new after each few objects

gc.set_threshold(10**6)
os.register_at_fork(before=make_cycle, after_in_child=lose_cycle)
loader = StreamLoader(numbered(0), Collects(), 8, settings=lenient(), num_workers=1, timeout=30)
print(len(next(iter(loader))["number"]), flush=True)
loader.close()
"""


def test_a_worker_frees_no_codec_of_its_parent():
    """Its threads do not exist in the worker, which would wait for them forever, also before its first line."""
    typed = [sys.executable, "-c", COLLECTS, os.path.dirname(__file__)]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "8\n", done.stderr
