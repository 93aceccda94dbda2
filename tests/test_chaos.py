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

import pytest
from test_resume import data, outcome, same, start, unbroken  # noqa: F401

MINUTES = float(os.environ.get("CHAOS_MINUTES", "10"))
OURS = re.compile(r"ValueError: .*(checkpoint|resume)|OSError: .*(File too large|No space left)", re.DOTALL)
FAULTS = ("nothing", "kill", "full disk", "flip", "cut", "remove", "times", "clock")


def checkpoints(folder) -> list:
    return sorted((path for path in folder.glob("checkpoint-*") if path.is_dir()), key=lambda path: path.name)


def damage(fault: str, folder, draws: random.Random) -> None:
    """Changes the files of one checkpoint, or the times of all."""
    places = checkpoints(folder)
    if not places:
        return
    files = sorted(path for path in draws.choice(places).rglob("*") if path.is_file() and path.stat().st_size)
    if fault == "times":
        for path in folder.rglob("*"):
            os.utime(path, (draws.randint(1, 10**9),) * 2)
    elif files:
        path = draws.choice(files)
        content = bytearray(path.read_bytes())
        if fault == "remove":
            path.unlink()
        elif fault == "cut":
            path.write_bytes(content[: draws.randrange(len(content))])
        elif fault == "flip":
            content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
            path.write_bytes(content)


def one_life(data, folder, fault: str, draws: random.Random) -> None:  # noqa: F811
    """Starts the run once, with a fault while it runs or after it. Its end is a fault of ours, or an error of ours."""
    last = {"last": True} if checkpoints(folder) else {}
    options = {"clock": -draws.randint(1, 10**7)} if fault == "clock" else {}
    if fault == "full disk":
        options["full_at"] = draws.randint(1, 16)
    process = start(data, folder, step_seconds=0.03, **options, **last)
    if fault == "kill":
        time.sleep(5 + 4 * draws.random())
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    if process.returncode not in (0, -signal.SIGKILL):
        assert OURS.search(output), output
        if not re.search("File too large|No space left", output) and fault != "full disk":
            shutil.rmtree(folder)  # nothing intact is left, and the error says so: the user starts again


@pytest.mark.slow
def test_faults_never_lead_to_other_weights(data, unbroken, tmp_path):  # noqa: F811
    draws, until, ends = random.Random(0), time.time() + 60 * MINUTES, 0
    while time.time() < until or not ends:
        folder = tmp_path / f"run-{ends}"
        while not (folder / "found.json").exists():
            fault = draws.choice(FAULTS)
            one_life(data, folder, fault, draws)
            if not (folder / "found.json").exists():
                damage(fault, folder, draws)
        assert outcome(folder)["weights"] == outcome(unbroken)["weights"]
        same(folder, unbroken)
        ends += 1
