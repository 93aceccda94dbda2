"""Data that changed and kept its size is noticed; a copy is not taken for other data."""

import itertools
import json
import os
from pathlib import Path

import datasets
import pytest
from made_files import jsonl, lines, parquet, tars

from hf_pretext.data import contents as contents_module
from hf_pretext.data.contents import BLOCK, BLOCKS, MOST, Contents, File, blocks
from hf_pretext.data.sources import open_source
from hf_pretext.stream.mixture import Mixture


def saved(folder):
    datasets.Dataset.from_list(lines()).save_to_disk(folder / "saved")
    return str(folder / "saved")


def text_files(folder):
    (folder / "a.txt").write_text("\n".join(line["text"] for line in lines()))
    return str(folder)


def gz(folder):
    datasets.Dataset.from_list(lines()).to_json(folder / "a.jsonl.gz", compression="gzip")
    return str(folder)


def streamed(folder):
    jsonl(folder)
    return datasets.load_dataset("json", data_files=str(folder / "a.jsonl"), split="train", streaming=True)


FORMATS = (parquet, tars, jsonl, saved, text_files, gz, streamed)
COLUMNS = {tars: {"text": "txt"}}


def contents_of(make, folder) -> Contents:
    data = make(folder) if callable(make) else make
    return open_source(data, columns=COLUMNS.get(make), needed=("text",)).rows.contents


def with_times(contents: Contents) -> Contents:
    """The same files with the times that they have now."""
    return Contents({n: file._replace(stamp=str(os.stat(file.path).st_mtime)) for n, file in contents.files.items()})


def alter(path, at=0.5, later=10) -> None:
    """Changes a byte of a file, and its time: the size stays."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, (times.st_atime, times.st_mtime + later))


@pytest.mark.parametrize("make", FORMATS)
def test_changed_content_of_the_same_size_is_noticed_and_a_copy_is_not(make, tmp_path):
    before = contents_of(make, tmp_path)
    record = json.loads(json.dumps(before.record()))
    files = {name: Path(file.path) for name, file in before.files.items()}
    assert len(record) == len(files) > 0 and all(content is not None for _, content in record.values())
    for path in files.values():
        os.utime(path, (1, 1))  # what a copy does
    copied = with_times(before)
    assert copied.changed(record) == []
    assert copied.record() == {name: ["1.0", content] for name, (_, content) in record.items()}
    name, path = next(iter(files.items()))
    alter(path, at=0)
    now = with_times(before)
    assert now.changed(record) == [name]
    assert now.record()[name] != record[name]  # hashed once more, for the next resume


def test_images_in_folders_are_compared(tmp_path, emoji):
    for i, row in enumerate(emoji(count=4)):
        row["image"].save(tmp_path / f"{i}.png")
    record = open_source(str(tmp_path)).rows.contents.record()
    alter(tmp_path / "2.png")
    os.utime(tmp_path / "1.png", (1, 1))
    assert open_source(str(tmp_path)).rows.contents.changed(record) == ["2.png"]


def test_files_with_the_same_time_are_not_read(tmp_path, monkeypatch):
    record = contents_of(parquet, tmp_path).record()
    monkeypatch.setattr(contents_module, "sampled_hash", lambda file: pytest.fail("read"))
    now = contents_of(str(tmp_path / "*.parquet"), tmp_path)
    assert now.changed(record) == [] and now.record() == record


def test_a_file_without_a_time_is_read(tmp_path):
    before = contents_of(parquet, tmp_path)
    record = {name: ["", content] for name, (_, content) in before.record().items()}
    timeless = Contents({name: file._replace(stamp="") for name, file in before.files.items()})
    assert timeless.changed(record) == []
    alter(tmp_path / "b.parquet")
    assert timeless.changed(record) == ["b.parquet"]


@pytest.mark.parametrize(("stamp", "changed"), [("x", []), ("y", ["a"]), ("", [])])
def test_remote_files_are_known_by_their_stamps_and_never_read(stamp, changed, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: pytest.fail("read"))
    record = Contents({"a": File("https://host/a", 5, "x")}).record()
    assert record == {"a": ["x", None]}
    assert Contents({"a": File("https://host/a", 5, stamp)}).changed(record) == changed


def test_data_that_moves_to_a_server_can_not_be_compared(tmp_path):
    local = contents_of(parquet, tmp_path)
    remote = Contents({name: File(f"https://host/{name}", file.size, "x") for name, file in local.files.items()})
    assert remote.changed(local.record()) == [] == local.changed(remote.record())


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK * BLOCKS, BLOCK * BLOCKS + 1, 10**12])
def test_small_files_are_hashed_whole_and_large_ones_in_blocks(size):
    sample = blocks(size)
    assert sum(length for _, length in sample) == min(size, BLOCK * BLOCKS)
    assert sample[0][0] == 0 and sum(sample[-1]) == size
    assert all(start + length <= following for (start, length), (following, _) in itertools.pairwise(sample))


def test_of_many_files_a_bounded_number_is_read(monkeypatch):
    read = []
    monkeypatch.setattr(contents_module, "sampled_hash", lambda file: read.append(file.path) or "0")
    many = {f"{i:05}": File(f"/data/{i}", 5, "x") for i in range(10_000)}
    first, second = Contents(many).record(), Contents(dict(reversed(many.items()))).record()
    assert len(first) == MOST == len(read) / 2 and first == second
    assert list(first)[:2] == ["00000", "00010"] and list(first)[-1] == "09990"


def test_unreadable_files_and_data_without_files_have_no_hashes(tmp_path):
    assert Contents({"a": File(str(tmp_path / "a"), 5, "x")}).record() == {"a": ["x", None]}
    assert Mixture(open_source(lines(), needed=("text",))).contents() == [{}]
