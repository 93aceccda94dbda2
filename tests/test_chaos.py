"""Runs under random faults: they end with the weights of a calm run or with an error of ours, never with other weights.

A run is started again and again. Each time it is killed, its disk refuses writes, a byte of a checkpoint is flipped, a
file of it is cut or removed, or the times of its files and its clock are set back. `CHAOS_MINUTES` sets how long
(default: 10).
"""

import os
import random
import re
import shutil
import signal
import time
from collections import Counter

import pytest
from test_resume import data, outcome, same, start, unbroken  # noqa: F401

from hf_pretext.stream.branch import STAGING
from hf_pretext.stream.manifest import damage

MINUTES = float(os.environ.get("CHAOS_MINUTES", "10"))
FULL = re.compile(r"^\S*ValueError: .* can't be written to .*(File too large|No space left)", re.MULTILINE)
NO_CHECKPOINT = re.compile(r"^\S*ValueError: .* has no checkpoint to resume from: ", re.MULTILINE)
ENDS = ("kill", "kill", "full disk")  # of a life
CHANGES = ("flip", "cut", "remove", "times", "none")  # between two lives


def checkpoints(folder) -> list:
    return sorted((path for path in folder.glob("checkpoint-*") if path.is_dir()), key=lambda path: path.name)


def spoil(fault: str, folder, draws: random.Random) -> bool:
    """Changes the files of one checkpoint, or the times of all. Returns True if it changed something."""
    places = checkpoints(folder)
    if not places or fault == "none":
        return False
    files = sorted(path for path in draws.choice(places).rglob("*") if path.is_file() and path.stat().st_size)
    if fault == "times":
        for path in folder.rglob("*"):
            os.utime(path, (draws.randint(1, 10**9),) * 2)
        return True
    path = draws.choice(files)
    content = bytearray(path.read_bytes())
    if fault == "remove":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(content[: draws.randrange(len(content))])
    elif fault == "flip":
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path.write_bytes(content)
    return True


def one_life(data, folder, fault: str, clock: int, draws: random.Random) -> bool:  # noqa: F811
    """Starts the run once, with a fault while it runs. It ends well, by the fault, or with an error of ours that is
    true. Returns True if the fault had an effect. clock: seconds that the clock is wrong by."""
    options = {"last": True} if checkpoints(folder) else {}
    if fault == "full disk":
        options["full_at"] = draws.randint(1, 16)
    process = start(data, folder, step_seconds=0.03, clock=clock, **options)
    killed = False
    if fault == "kill":
        time.sleep(5 + 4 * draws.random())
        if killed := process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    if process.returncode == 0 or killed:
        return killed
    if fault == "full disk" and FULL.search(output):
        assert not (folder / STAGING).exists()
        return True
    assert NO_CHECKPOINT.search(output), output
    assert all(damage(checkpoint) for checkpoint in checkpoints(folder)), output
    shutil.rmtree(folder)  # nothing intact is left, and the error says so: the user starts again
    return False


@pytest.mark.slow
def test_faults_never_lead_to_other_weights(data, unbroken, tmp_path):  # noqa: F811
    draws, until, ends, effects = random.Random(0), time.time() + 60 * MINUTES, 0, Counter()
    while time.time() < until or not ends:
        folder = tmp_path / f"run-{ends}"
        while not (folder / "found.json").exists():
            fault, clock = draws.choice(ENDS), -draws.choice((0, 0, 1)) * draws.randint(1, 10**7)
            effects[fault] += one_life(data, folder, fault, clock, draws)
            effects["clock"] += clock != 0
            if not (folder / "found.json").exists():
                change = draws.choice(CHANGES)
                effects[change] += spoil(change, folder, draws)
        assert outcome(folder)["weights"] == outcome(unbroken)["weights"]
        same(folder, unbroken)
        ends += 1
    print(f"{ends} runs ended with the same weights, after {dict(effects)}")
    if MINUTES >= 5:
        assert all(effects[fault] for fault in {*ENDS, *CHANGES, "clock"} - {"none"}), effects
