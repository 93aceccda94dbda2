"""Rows come to the workers as they were, whether they find room in shared memory or not; and batches come back."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamed import Number, batches, numbered, numbers

from hf_pretext.stream import loader as stream_module
from hf_pretext.stream.shared_memory import Outbox, SharedBatches, make_shared_batches

ROWS = [
    {"image": {"bytes": b"abc", "path": "a.png"}, "key": "a:0", "g": 0},
    {"image": {"bytes": b"", "path": None}, "audio": {"bytes": b"defgh"}, "key": "a:1", "g": 1},
    {"image": {"bytes": None, "path": "missing.png"}, "text": "words", "key": "a:2", "g": 2},
    {"image": Image.new("RGB", (2, 2)), "key": "a:3", "g": 3},
    {"image": {"bytes": b"0123456789", "path": None}, "key": "a:4", "g": 4},
]


@pytest.mark.parametrize("size", [1, 4, 8, 17, 18, 100])
def test_rows_are_read_as_they_were_placed(size):
    shared = SharedBatches(2, size)
    put = [shared.put(rows) for rows in (ROWS, ROWS[::-1])]
    assert shared.get(pickle.loads(pickle.dumps(put[0]))) == ROWS  # as the loader's pipe does it
    assert shared.get(put[1]) == ROWS[::-1]
    in_place = sum(isinstance(row["image"]["bytes"], tuple) for row in put[0] if isinstance(row["image"], dict))
    assert in_place == {1: 1, 4: 2, 8: 2, 17: 2, 18: 3, 100: 3}[size]  # the empty one always fits
    assert ROWS[0]["image"]["bytes"] == b"abc"  # the reader's own rows stay as they are


def test_a_place_is_used_once_more_after_all_others():
    shared = SharedBatches(3, 10)
    places = [shared.put(ROWS[:1])[0]["image"]["bytes"][0] for _ in range(7)]
    assert places == [0, 1, 2, 0, 1, 2, 0]


def test_no_shared_memory_without_workers_or_room(monkeypatch):
    assert make_shared_batches(0, 1000) is None
    assert make_shared_batches(4, 0.5) is None
    assert make_shared_batches(4, 1000).memory.shape == (4, 1250)
    monkeypatch.setattr("hf_pretext.stream.shared_memory.SHARED", ".")
    usage = type("usage", (), {"free": 9_999})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert make_shared_batches(4, 1000) is None  # twice as much as it takes must be free
    usage.free = 10_000
    assert make_shared_batches(4, 1000) is not None


@pytest.mark.parametrize("size", [0, 300, 10_000])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_stream_is_the_same_with_any_room(workers, size, monkeypatch):
    """None, some of a batch's rows, all of them; and each place is used several times."""
    source = numbered(rows=101)
    alone, first = batches(40, source)
    monkeypatch.setattr(
        stream_module, "make_shared_batches", lambda count, _: SharedBatches(count, size) if size else None
    )
    helped, second = batches(40, source, num_workers=workers, prefetch_factor=3)
    assert numbers(alone) == numbers(helped)
    assert first.sample_log.digest == second.sample_log.digest


def test_slow_consumers_and_workers_that_overtake_each_other_read_no_others_rows():
    outcome, _ = batches(60, process=Slow(), num_workers=3, prefetch_factor=2)
    alone, _ = batches(60)
    assert numbers(outcome) == numbers(alone)


class Slow(Number):
    """Takes its time over some rows, so that others come back before."""

    def __call__(self, row, random):
        example = super().__call__(row, random)
        if int(example["number"]) % 7 == 0:
            torch.ones(400, 400) @ torch.ones(400, 400)
            np.sort(np.random.default_rng(0).random(200_000))
        return example


def test_an_outbox_uses_its_places_in_turn():
    outbox = Outbox(3)
    sent = [outbox.room()("x", (2, 2), torch.int64).fill_(i) for i in range(7)]
    assert [int(value[0, 0]) for value in sent] == [6, 4, 5, 6, 4, 5, 6]
    assert all(value.is_shared() for value in sent)


def test_an_outbox_has_room_for_columns_of_any_size_and_type():
    outbox = Outbox(1)
    for shape, dtype in (((3, 5), torch.uint8), ((2, 4), torch.float32), ((1,), torch.float64), ((9, 9), torch.uint8)):
        room = outbox.room()
        value, other = room("x", shape, dtype).fill_(1), room("y", shape, dtype).fill_(0)
        assert (tuple(value.shape), value.dtype) == (shape, dtype)
        assert value.is_contiguous() and bool((value == 1).all()) and bool((other == 0).all())


def test_batches_that_are_kept_stay_as_they_are_and_are_the_trainers_users():
    kept, _ = batches(40, num_workers=2, prefetch_factor=1)
    assert not any(value.is_shared() for batch in kept for value in batch.values())
    assert numbers(kept) == numbers(batches(40)[0])


WAITING = """
import sys
from hf_pretext.stream.loader import StreamLoader
from streamed import Number, numbered

if __name__ == "__main__":
    # keys of one batch are more than a pipe holds
    loader = StreamLoader(numbered(), Number(), 3_500, num_workers=2, prefetch_factor=1)
    batches = iter(loader)
    next(batches)
    print(*(worker.pid for worker in loader._batches._workers), flush=True)
    sys.stdin.read()  # takes no other batch
"""


def test_workers_of_a_killed_run_end_though_they_wait_to_send(tmp_path):
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    run = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    workers = [int(number) for number in run.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(4)  # they decode, and fill the pipe
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdin.close()
    run.stdout.close()
    deadline = time.monotonic() + 30
    while (alive := [worker for worker in workers if is_alive(worker)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    for worker in alive:
        os.kill(worker, signal.SIGKILL)
    assert not alive, "they wait for ever"


def is_alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # ended, but nobody has asked for its result
    except OSError:
        return False
