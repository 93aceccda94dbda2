"""Tars: columns from an index of the members, samples that lack one, fields of JSON members, tars at URLs."""

import gzip
import io
import json
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pytest
from loopback_hub import serve
from made_files import fresh_cache, tars, write_tar
from made_images import all_rows, png
from range_server import serve as serve_files

from hf_pretext.data import remote
from hf_pretext.data import tars as tars_module
from hf_pretext.data.decoding import UNREADABLE
from hf_pretext.data.ranges import Changed
from hf_pretext.data.rows import StreamRows
from hf_pretext.data.sources import open_source
from hf_pretext.data.tars import MOST_COLUMNS, TarRows, tar_index

own_cache = pytest.fixture(autouse=True)(fresh_cache)


def write(path, members):
    """members: (name, content) in the order of the tar."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            content = json.dumps(content).encode() if isinstance(content, dict) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def texts(source):
    return [row.get("text") for row in all_rows(source)]


def test_a_clean_tar_has_the_columns_of_datasets(tmp_path):
    for i in range(6):
        write(
            tmp_path / f"{i}.tar",
            [(f"{i}.png", png(i)), (f"{i}.seg.png", png()), (f"{i}.txt", b"a"), (f"{i}.cls", b"3")],
        )
    theirs = datasets.load_dataset("webdataset", data_files=str(tmp_path / "*.tar"), split="train", streaming=True)
    ours = tars_module.Tars(sorted(map(str, tmp_path.glob("*.tar"))))
    assert dict(ours.features) == {name: f for name, f in theirs.features.items() if not name.startswith("__")}
    for data in (str(tmp_path), theirs):
        source = open_source(data, needed=("image", "label"))
        assert type(source.rows) is TarRows and source.columns == {"image": "png", "label": "cls"}
        assert all_rows(source)[5] == {"image": {"bytes": png(5), "path": "0.png"}, "label": 3}


def test_rows_keys_and_fingerprint_are_those_of_earlier_versions(tmp_path):
    source = open_source(tars(tmp_path), columns={"text": "txt"}, needed=("text",))
    files = {"a.tar": 829440, "b.tar": 624640}
    assert source.rows.fingerprint() == {"files": files, "rows": 700, "pieces": "1d8ff8a7a02e817b"}
    assert source.key(1, 3) == "a.tar:259" and source.columns == {"text": "txt"}


def test_suffixes_of_images_are_one_column_in_any_case(tmp_path):
    names = ["jpg", "PNG", "webp", "JPEG", "png"]
    write(tmp_path / "a.tar", [(f"{i}.{name}", png(i)) for i, name in enumerate(names)])
    source = open_source(str(tmp_path))
    assert source.columns == {"image": "jpg"} and not source.rows.lost
    assert [row["image"]["bytes"] for row in all_rows(source)] == [png(i) for i in range(5)]
    for asked in ("png", "jpg", "webp"):
        assert open_source(str(tmp_path), columns={"image": asked}).columns == {"image": "jpg"}


def test_two_images_in_one_sample_are_two_columns(tmp_path):
    write(tmp_path / "a.tar", [(f"{i}.{name}", png(i)) for i in range(3) for name in ("jpg", "png", "seg.png")])
    with pytest.raises(ValueError, match="several columns of images: jpg, png, seg.png. Choose one with --image"):
        open_source(str(tmp_path))
    for asked in ("jpg", "png", "seg.png"):
        assert open_source(str(tmp_path), columns={"image": asked}).columns == {"image": asked}


def test_first_samples_without_a_member_are_bad_samples(tmp_path, caplog):
    """`datasets` refuses such a tar."""
    members = [(f"{i}.{name}", b"x") for i in range(20) for name in ("jpg", "txt") if i not in (0, 7) or name == "jpg"]
    write(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match="don't share the same prefix or the same types"):
        datasets.load_dataset("webdataset", data_files=str(tmp_path / "a.tar"), split="train", streaming=True)
    source = open_source(str(tmp_path), needed=("image", "text"))
    assert [i for i, row in enumerate(all_rows(source)) if UNREADABLE in row] == [0, 7]
    assert all_rows(source)[7] == {UNREADABLE: "the sample has no member .txt"}
    assert "a.tar:0 is the first of 2 samples (of 20) without .txt: they are bad samples" in caplog.text
    assert not any(UNREADABLE in row for row in all_rows(open_source(str(tmp_path))))  # nobody asked for texts


def test_samples_of_one_key_are_not_merged(tmp_path):
    members = [(f"x.{suffix}", content) for i in range(3) for suffix, content in (("jpg", png()), ("txt", b"%d" % i))]
    source = open_source(str(write(tmp_path / "a.tar", members)), needed=("image", "text"))
    assert texts(source) == ["0", "1", "2"]


def test_a_sparse_member_is_missing_and_ends_no_tar(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(f"{i}")
    with open(tmp_path / "1.txt", "wb") as file:  # a hole, which `tar --sparse` does not store
        file.truncate(10_000_000)
    subprocess.run(["tar", "-Scf", "a.tar", "0.txt", "1.txt", "2.txt"], cwd=tmp_path, check=True)
    assert texts(open_source(str(tmp_path / "a.tar"), needed=("text",))) == ["0", "2"]


def test_a_missing_label_is_a_row_without_a_label(tmp_path):
    write(tmp_path / "a.tar", [("0.txt", b"a"), ("1.txt", b"b"), ("1.cls", b"1")])
    rows = all_rows(open_source(str(tmp_path), needed=("text", "label")))
    assert rows == [{"text": "a", "label": None}, {"text": "b", "label": 1}]


def test_members_of_a_sample_that_are_apart_are_an_error(tmp_path):
    write(tmp_path / "a.tar", [(f"{i}.{name}", b"x") for name in ("jpg", "txt") for i in range(3)])
    with pytest.raises(ValueError, match="none of the 6 samples has .jpg and .txt. Members of a sample must follow"):
        open_source(str(tmp_path), needed=("image", "text"))


@pytest.mark.parametrize("content", [b"", b"no tar at all", bytes(10240)])
def test_a_tar_without_members_is_an_error(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar: no member with a suffix"):
        open_source(str(tmp_path))


def test_only_members_that_are_asked_for_are_read(tmp_path, monkeypatch):
    broken = b"{" * 1000
    write(tmp_path / "a.tar", [pair for i in range(3) for pair in ((f"{i}.jpg", png(i)), (f"{i}.json", broken))])
    source = open_source(str(tmp_path))
    read = []
    monkeypatch.setattr(tars_module, "read_bytes", lambda *a, own=remote.read_bytes: read.append(own(*a)) or read[-1])
    assert [row["image"]["bytes"] for row in all_rows(source)] == [png(i) for i in range(3)]
    source.read(0, 1, 2)
    assert len(read) == 2 and read[1] == png(1)


def captioned(path, **others):
    rows = [{"caption": f"text {i}", "a": {"b": f"deep {i}", "n": i}, "tags": ["x", "y"]} for i in range(20)]
    rows[4] = {"a": {}}
    return write(
        path, [pair for i, row in enumerate(rows) for pair in ((f"{i}.jpg", b"x"), (f"{i}.json", row | others))]
    )


def test_a_field_of_json_is_a_column(tmp_path):
    captioned(tmp_path / "a.tar")
    source = open_source(str(tmp_path), needed=("image", "text"))
    assert source.columns == {"image": "jpg", "text": "json.caption"}
    assert texts(source) == [None if i == 4 else f"text {i}" for i in range(20)]
    columns = {"text": "json.a.b", "n": "json.a.n", "tags": "json.tags", "meta": "json"}
    source = open_source(str(tmp_path), columns=columns, needed=tuple(columns))
    row = source.read(0, 7, 8)[0]
    assert (row["text"], row["n"], row["tags"], row["meta"]["caption"]) == ("deep 7", 7, ["x", "y"], "text 7")
    assert source.features["tags"] == datasets.List(datasets.Value("string"))
    with pytest.raises(ValueError, match=r"no column 'json.captoin' .*json.caption \(string\)"):
        open_source(str(tmp_path), columns={"text": "json.captoin"}, needed=("text",))
    with pytest.raises(ValueError, match="'json.a.n' .* contains no texts"):
        open_source(str(tmp_path), columns={"text": "json.a.n"}, needed=("text",))


def test_texts_come_before_fields_of_json_and_two_fields_must_be_chosen_from(tmp_path):
    captioned(tmp_path / "a.tar", text="other")
    with pytest.raises(ValueError, match=r"several columns of texts: json.caption, json.text. Choose"):
        open_source(str(tmp_path), needed=("text",))
    write_tar(tmp_path / "a.tar", 3)
    assert open_source(str(tmp_path), needed=("text",)).columns == {"text": "txt"}


def test_damaged_json_is_a_bad_sample_and_hides_no_column(tmp_path):
    members = [(f"{i}.json", b"{" if i in (0, 9) else {"caption": f"text {i}"}) for i in range(20)]
    write(tmp_path / "a.tar", members)
    rows = all_rows(open_source(str(tmp_path), needed=("text",)))
    assert [i for i, row in enumerate(rows) if UNREADABLE in row] == [0, 9]
    assert "damaged json" in rows[9][UNREADABLE]


def test_headers_are_read_in_one_pass_for_all_columns(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", 30)
    passes = []
    monkeypatch.setattr(tars_module, "tar_index", lambda url, own=tar_index: passes.append(url) or own(url))
    for column in ("txt", "json.a", "txt"):
        open_source(str(tmp_path), columns={"value": column}, needed=("value",))
    assert len(passes) == 1


def test_names_full_of_dots_give_no_endless_columns(tmp_path):
    members = [(f"{i}.jpg", b"x") for i in range(5)] + [(f"v.{i}.jpg", b"x") for i in range(500)]
    index = tar_index(str(write(tmp_path / "a.tar", members)))
    assert len(index.dtype.names) == MOST_COLUMNS + 1 and "jpg" in index.dtype.names and len(index) == 7


def test_a_compressed_tar_is_read_as_a_stream(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(write_tar(tmp_path / "b", 30).read_bytes()))
    source = open_source(str(tmp_path / "a.tar.gz"), columns={"text": "txt"}, needed=("text",))
    assert type(source.rows) is StreamRows and texts(source) == [f"text {i}" for i in range(30)]


def test_a_tar_at_a_url_is_read_like_a_local_one(tmp_path, monkeypatch):
    (tmp_path / "repository").mkdir()
    captioned(tmp_path / "repository" / "a.tar")
    here = open_source(str(tmp_path / "repository"), needed=("image", "text"))
    with serve(tmp_path / "hub") as hub:
        hub.add("dataset", "someone/images", tmp_path / "repository")
        url = f"{hub.url}/datasets/someone/images/resolve/main/a.tar"
        there = open_source(url, needed=("image", "text"))
        assert there.rows.remote and there.columns == here.columns
        assert all_rows(there) == all_rows(here) and there.rows.fingerprint() == here.rows.fingerprint()
        monkeypatch.setattr(remote, "PAUSES", ())
        monkeypatch.setattr(tars_module, "tar_index", None)  # the index is cached
        assert texts(open_source(url, needed=("text",))) == texts(here)
        with pytest.raises(ValueError, match=r"b\.tar can't be read as .tar files"):
            open_source(url.replace("a.tar", "b.tar"))


OPEN = """
from hf_pretext.data.sources import open_source
source = open_source("someone/images", needed=("image", "text"))
print(type(source.rows).__name__, source.columns, [len(row) for row in source.read(0, 0, 3)])
"""


def test_tars_on_the_hub_are_not_judged_by_their_first_samples(tmp_path):
    (tmp_path / "repository").mkdir()
    members = [("0.jpg", b"x"), ("1.png", b"x"), ("1.txt", b"a"), ("2.jpg", b"x"), ("2.txt", b"b")]
    write(tmp_path / "repository" / "a.tar", members)
    with serve(tmp_path / "hub") as hub:
        hub.add("dataset", "someone/images", tmp_path / "repository")
        environment = hub.environment(tmp_path / "cache")
        typed = [sys.executable, "-c", OPEN]
        done = subprocess.run(typed, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "TarRows {'image': 'jpg', 'text': 'txt'} [1, 2, 2]\n", done.stderr


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "last",
    [
        header("1.txt", -512),
        header("1.txt", 2**70),
        header("1.txt", 2**70, tarfile.GNUTYPE_LONGNAME),
        header("1.txt", 0, tarfile.GNUTYPE_LONGNAME) * 5000,
        header("1.__end__", 0),
    ],
)
def test_headers_that_lead_nowhere_end_the_tar(tmp_path, last):
    content = write_tar(tmp_path / "a.tar", 1).read_bytes()[:2048] + last
    (tmp_path / "a.tar").write_bytes(content + bytes(1024))
    source = open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))
    assert texts(source) == ["text 0"]


@pytest.mark.slow
def test_2000_damaged_tars_raise_nothing_and_lose_only_what_is_damaged(tmp_path):
    content = write_tar(tmp_path / "a.tar", 20).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(content[: int(random.integers(512, len(content)))] if random.random() < 0.3 else content)
        for at in random.integers(len(damaged), size=int(random.integers(1, 20))):
            damaged[at] = random.integers(256)
        (tmp_path / "a.tar").write_bytes(damaged)
        try:
            source = open_source(str(tmp_path / "a.tar"), columns={"text": "txt"}, needed=("text",))
        except ValueError as error:
            assert "a.tar" in str(error)
            continue
        rows = all_rows(source)
        assert len(rows) == len(source) and (len(rows) >= 20 or source.rows.lost)


def test_a_tar_on_a_server_that_changes_is_an_error_that_names_it(tmp_path):
    path = write(tmp_path / "a.tar", [(f"{i}.txt", b"one") for i in range(3)])
    with serve_files(tmp_path) as server:
        source = open_source(f"{server.url}/a.tar", needed=("text",))
        assert texts(source) == ["one"] * 3
        path.write_bytes(path.read_bytes().replace(b"one", b"two"))
        with pytest.raises(Changed, match="a.tar has changed since it was opened"):
            source.read(0, 0, 3)
