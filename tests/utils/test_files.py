"""Files and folders are written completely or not at all."""

import os
import signal
import subprocess
import sys

import pytest

from hf_pretext.utils import files
from hf_pretext.utils.files import atomic_path, made_once, write_json
from hf_pretext.utils.processes import temporary_name


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"x": 1})
    with pytest.raises(ValueError), atomic_path(tmp_path / "deep" / "a.json") as temporary:
        temporary.write_text("half")
        raise ValueError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "deep" / "a.json", {"x": float("nan")})
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.json"]
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n  "x": 1\n}\n'


def test_a_folder_is_made_once_and_the_first_of_two_makers_stays(tmp_path):
    def make(folder):
        if not (tmp_path / "kept").exists():  # another process creates it first
            made_once(tmp_path / "kept", lambda other: (other / "by").write_text("the other"))
        (folder / "by").write_text("this")

    assert (made_once(tmp_path / "kept", make) / "by").read_text() == "the other"
    made_once(tmp_path / "kept", lambda folder: 1 / 0)  # not called
    with pytest.raises(ZeroDivisionError):
        made_once(tmp_path / "new", lambda folder: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


KILLED = """
import os, signal, sys
from hf_pretext.utils.files import atomic_path
folder = sys.argv[1]
with atomic_path(f"{folder}/file.json") as file, atomic_path(f"{folder}/texts") as made:
    file.write_text("half")
    made.mkdir()
    (made / "tokens").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_run_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == -signal.SIGKILL
    left = sorted(tmp_path.iterdir())
    assert len(left) == 2
    mine = tmp_path / temporary_name("of a process that runs")
    elsewhere = tmp_path / f".1-00000000-{'0' * 8}.tmp.of a different machine"
    for path in (mine, elsewhere):
        path.mkdir()
        (path / "part").touch()
        os.utime(path, (0, 0))
    made_once(tmp_path / "texts", lambda folder: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["texts", mine.name, elsewhere.name])
    os.utime(elsewhere / "part", (0, 0))
    files.remove_leftovers.cache_clear()
    write_json(tmp_path / "a.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["texts", mine.name, "a.json"])
