"""A checkpoint knows its files: what is missing, cut or changed is named."""

import json
import os
import shutil

import pytest

from hf_pretext.stream import manifest
from hf_pretext.stream.manifest import (
    MANIFEST,
    damage,
    hash_of_file,
    read_manifest,
    write_manifest,
    write_manifest_of_copy,
)

FILES = ("model.safetensors", "pretext.safetensors", "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth", "a/b.bin")
FACTS = dict(step=8, parent="checkpoint-4", global_batch=24, resumable=True)


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "a").mkdir()
    for name in FILES:
        (tmp_path / name).write_bytes(os.urandom(50))
    write_manifest(tmp_path, **FACTS)
    return tmp_path


def flip(path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_intact_checkpoint_has_no_damage_and_may_have_more_files(checkpoint):
    assert damage(checkpoint) == []
    (checkpoint / "notes.txt").write_text("mine")
    assert damage(checkpoint) == [] and set(read_manifest(checkpoint)["files"]) == set(FILES)
    assert {name: read_manifest(checkpoint)[name] for name in FACTS} == FACTS


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_is_missing_cut_or_changed_is_named(checkpoint, name):
    flip(checkpoint / name)
    assert damage(checkpoint) == [f"the content of {name} has changed"]
    assert damage(checkpoint, contents=False) == []  # of the same size
    (checkpoint / name).write_bytes(b"cut")
    assert damage(checkpoint) == damage(checkpoint, contents=False) == [f"{name} has 3 bytes, not 50"]
    (checkpoint / name).unlink()
    assert damage(checkpoint) == damage(checkpoint, contents=False) == [f"{name} is missing"]


def test_all_damage_is_named(checkpoint):
    (checkpoint / "optimizer.pt").unlink()
    flip(checkpoint / "a" / "b.bin")
    assert damage(checkpoint) == ["the content of a/b.bin has changed", "optimizer.pt is missing"]


def test_a_manifest_that_is_cut_changed_or_missing_is_damage_itself(checkpoint):
    path = checkpoint / MANIFEST
    whole = path.read_text()
    for content in (whole[:100], whole.replace('"step": 8', '"step": 9'), "[]", "", '{"files": {}}'):
        path.write_text(content)
        assert damage(checkpoint) == ["the content of manifest.json has changed"]
    path.unlink()
    assert damage(checkpoint) == [
        "manifest.json is missing (an earlier version wrote the checkpoint, or it is incomplete)"
    ]


def test_a_large_file_is_read_in_pieces(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    at_once = hash_of_file(tmp_path / "file")
    monkeypatch.setattr(manifest, "CHUNK", 7)
    assert hash_of_file(tmp_path / "file") == at_once


def test_everything_is_flushed_to_disk_after_the_manifest_is_written(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.bin").write_text("b")
    flushed = []
    monkeypatch.setattr(manifest, "sync", lambda path: flushed.append((path, (tmp_path / MANIFEST).exists())))
    write_manifest(tmp_path, **FACTS)
    assert set(flushed) == {(path, True) for path in (tmp_path, *tmp_path.rglob("*"))}
    assert json.loads((tmp_path / MANIFEST).read_text())["files"]["a/b.bin"]["size"] == 1


def test_a_copy_with_changed_files_is_intact_and_damage_of_the_checkpoint_stays_damage(checkpoint, tmp_path):
    changed, damaged = FILES[:2]
    for broken in (False, True):
        copy = tmp_path.parent / f"{tmp_path.name}-{broken}"
        if broken:
            flip(checkpoint / damaged)
        shutil.copytree(checkpoint, copy)
        for name in (changed, damaged):
            (copy / name).write_bytes(b"shorter")
        write_manifest_of_copy(checkpoint, copy, [changed, damaged, "none.json"])
        assert damage(copy) == ([f"{damaged} has 7 bytes, not 50"] if broken else [])
        assert read_manifest(copy)["step"] == FACTS["step"]
