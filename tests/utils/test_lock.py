"""One process at a time holds the lock of a folder; that of a process that has ended is taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hf_pretext.utils import lock as lock_module
from hf_pretext.utils.lock import LOCK, SILENT, STARTING, FolderLock, has_ended
from hf_pretext.utils.processes import host

HOLDER = """
import sys, time
from hf_pretext.utils.lock import FolderLock
FolderLock(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(600)
"""
STARTERS = """
import os, sys, time
from pathlib import Path
from hf_pretext.utils.lock import FolderLock
rounds, (folder, starters) = 12, sys.argv[1:]
folder, me = Path(folder), str(os.getpid())
def wait(name):
    (folder / f"{name}-{me}").touch()
    while len(list(folder.glob(f"{name}-*"))) < int(starters):
        pass
for i in range(rounds):
    wait(f"round{i}")
    try:
        FolderLock(folder / f"run{i}").acquire()
        print(i, flush=True)
    except ValueError as error:
        assert "is in use: process" in str(error), error
wait("end")
"""


def holder(folder) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def owner(folder, **changes) -> dict:
    content = {**json.loads((folder / LOCK).read_text()), **changes}
    (folder / LOCK).write_text(json.dumps(content))
    return content


def test_a_running_process_keeps_others_out_and_a_killed_one_does_not(tmp_path, caplog):
    process = holder(tmp_path / "run")
    with pytest.raises(ValueError) as refused:
        FolderLock(tmp_path / "run").acquire()
    for words in (f"process {process.pid} on {host().split()[0]}", str(tmp_path / "run"), "give another folder", LOCK):
        assert words in str(refused.value)
    process.send_signal(signal.SIGKILL)
    while lock_module.runs_here(process.pid):  # until it is a zombie: nobody has waited for it
        time.sleep(0.01)
    lock = FolderLock(tmp_path / "run")
    lock.acquire()
    assert caplog.text.count(f"process {process.pid} on") == 1 and "takes it over" in caplog.text
    lock.release()
    assert list((tmp_path / "run").iterdir()) == []
    process.wait()


def test_of_several_starters_one_gets_the_lock_also_that_of_an_ended_process(tmp_path):
    ended = {"host": host(), "pid": 2**22 + 1, "time": 0.0}  # above the largest process id
    for i in range(0, 12, 2):
        (tmp_path / f"run{i}").mkdir()
        (tmp_path / f"run{i}" / LOCK).write_text(json.dumps(ended))
    typed = [sys.executable, "-c", STARTERS, str(tmp_path), "3"]
    starters = [subprocess.Popen(typed, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=240)[0] for process in starters]
    assert [process.returncode for process in starters] == [0, 0, 0]
    assert sorted(int(i) for output in outputs for i in output.split()) == list(range(12))
    assert not list(tmp_path.glob(f"run*/{STARTING}"))


def test_a_folder_that_did_not_exist_is_removed_with_the_lock(tmp_path):
    lock = FolderLock(tmp_path / "deep" / "run")
    lock.acquire()
    assert json.loads((tmp_path / "deep" / "run" / LOCK).read_text())["pid"] == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    lock = FolderLock(tmp_path / "kept")
    lock.acquire()
    (tmp_path / "kept" / "file").touch()
    lock.release()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["file"]


def test_a_process_of_a_different_machine_lives_as_long_as_it_gives_signs(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock_module, "BEAT", 0.02)
    lock = FolderLock(tmp_path)
    lock.acquire()
    os.utime(lock.path, (0, 0))
    deadline = time.monotonic() + 20
    while time.time() - lock.path.stat().st_mtime > SILENT and time.monotonic() < deadline:
        time.sleep(0.01)
    content = owner(tmp_path, host="elsewhere", token="theirs")
    while "taken over while this run writes" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "taken over while this run writes" in caplog.text
    with pytest.raises(ValueError, match="on elsewhere"):
        FolderLock(tmp_path).acquire()
    lock.release()
    assert json.loads(lock.path.read_text()) == content  # it is not ours any more
    os.utime(lock.path, (time.time() - SILENT - 60,) * 2)
    FolderLock(tmp_path).acquire()


def test_an_owner_has_ended_when_its_process_or_its_machine_is_silent():
    me = os.getpid()
    assert has_ended({"host": host(), "pid": me, "time": 0.0}, age=0)  # an id that is used by this one now
    assert not has_ended({"host": host(), "pid": os.getppid(), "time": time.time()}, age=10 * SILENT)
    assert has_ended({"host": host(), "pid": os.getppid(), "time": 0.0}, age=10 * SILENT)
    assert not has_ended({"host": host(), "pid": os.getppid(), "time": 0.0}, age=1)
    assert not has_ended({"host": "elsewhere", "pid": me, "time": 0.0}, age=SILENT / 2)
    assert has_ended({"host": "elsewhere", "pid": me, "time": 0.0}, age=SILENT + 1)


def test_starters_wait_for_each_other_and_not_forever(tmp_path, monkeypatch):
    (tmp_path / STARTING).touch()
    threading.Timer(0.2, (tmp_path / STARTING).unlink).start()
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()
    (tmp_path / STARTING).touch()
    monkeypatch.setattr(lock_module, "PATIENCE", 0.1)
    with pytest.raises(ValueError, match="Delete the file"):
        FolderLock(tmp_path).acquire()
