"""Files that others made are read only if they are regular, of limited size and depth, and of this folder."""

import json
import os
import signal
import struct

import pytest
import torch
from safetensors.torch import save_file

from hf_pretext.utils.foreign import (
    MOST_LEVELS,
    check_folder,
    check_weights,
    read_config,
    read_index,
    read_json,
    refuse_custom_code,
)


@pytest.fixture(autouse=True)
def no_hang():
    """Ends a test that waits for a pipe."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(2 * 10**9)


def deep(path):
    path.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")


def binary(path):
    path.write_bytes(b"\xff\xfe{}")


def long_number(path):
    path.write_text('{"a": ' + "1" * 10_000 + "}")


WRONG = {
    pipe: "is a pipe, device",
    device: "is a pipe, device",
    sparse: "has 2,000,000,000 bytes, more than",
    deep: "is nested in more than 100 levels",
    binary: "is no valid JSON",
    long_number: "is no valid JSON",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "x.index.json"])
def test_a_file_that_blocks_or_fills_the_memory_is_refused_by_its_name(make, name, tmp_path):
    make(tmp_path / name)
    for read in (lambda: check_folder(tmp_path), lambda: read_json(tmp_path / name)):
        with pytest.raises(ValueError, match=WRONG[make]) as error:
            read()
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_any_pipe_in_a_folder_is_refused_and_a_broken_link_is_as_if_absent(tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "vocab.txt").symlink_to(tmp_path / "nothing")
    check_folder(tmp_path, ["image", "text"])
    check_folder("user/name")
    pipe(tmp_path / "image" / "vocab.txt")
    with pytest.raises(ValueError, match="image/vocab.txt is a pipe"):
        check_folder(tmp_path, ["image", "text"])


def test_a_depth_that_recursion_stands_is_read(tmp_path):
    for levels in (MOST_LEVELS - 1, MOST_LEVELS + 1):
        (tmp_path / "a.json").write_text("[" * levels + "]" * levels)
        if levels < MOST_LEVELS:
            assert read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="nested in more than"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"hidden_size": 10**12}, "hidden_size 1e\\+12, but"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers 1000000000, but"),
        ({"depths": [2, 10**6]}, "depths 1000000, but"),
        ({"num_labels": 10**9}, "num_labels 1000000000, but"),
        ({"image_size": [10**6, 32]}, "image_size 1000000, but"),
        ([1], "must be a JSON object"),
        ({}, "must be a JSON object"),
    ],
)
def test_a_config_that_no_machine_can_build_is_refused(content, why, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"config.json .*{why}"):
        read_config(tmp_path / "config.json")
    with pytest.raises(ValueError, match="config.json"):
        check_folder(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", 3])
def test_an_index_lists_files_of_its_folder_only(name, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert read_index(path) == {"model-1.safetensors"}
    path.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}))
    with pytest.raises(ValueError, match="which is not a file of its folder|is no valid index"):
        read_index(path)


def test_weights_with_a_wrong_header_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    check_weights(path)
    for content in (struct.pack("<Q", 2**60) + b"{}", b"", bytes(100), path.read_bytes()[:-4]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors can't be read.*damaged or truncated"):
            check_weights(path)
    path.unlink()
    pipe(path)
    with pytest.raises(ValueError, match="is a pipe"):
        check_weights(path)


def test_code_of_a_folder_is_refused_and_other_errors_are_not_touched():
    refuse_custom_code("a", OSError("no file"))
    with pytest.raises(ValueError, match="a needs its own Python code"):
        refuse_custom_code("a", ValueError("Please pass the argument `trust_remote_code=True`"))
