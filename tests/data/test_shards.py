"""Parquet files and tars: reads of ranges, and the readable rows of damaged files."""

import io
import itertools
import tarfile
from functools import partial

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_files import damaged_group, fresh_cache, lines, unreadable, write_tar

from hf_pretext.data import ranges, remote, tars
from hf_pretext.data.decoding import UNREADABLE
from hf_pretext.data.parquet import ParquetFiles, ParquetRows
from hf_pretext.data.sources import Source, open_source

own_cache = pytest.fixture(autouse=True)(fresh_cache)


def test_parquet_opens_a_row_group_once_for_consecutive_ranges(tmp_path, monkeypatch):
    pq.write_table(pa.Table.from_pylist(lines(3000)), tmp_path / "a.parquet", row_group_size=3000)
    source = open_source(str(tmp_path), needed=("text",))
    opened = []
    monkeypatch.setattr(ParquetRows, "open", lambda *args, own=ParquetRows.open: opened.append(args[1:]) or own(*args))
    for start in range(0, 3000, 100):
        source.read(0, start, start + 100)
    assert opened == [(0, 0)]  # each read continued the open reader


@pytest.mark.parametrize("share", [0.31, 0.5, 0.77])
def test_a_cut_tar_loses_only_its_rest(tmp_path, share):
    write_tar(tmp_path / "whole.tar", 60)
    content = write_tar(tmp_path / "cut.tar", 60, 100).read_bytes()
    there = int(len(content) * share)
    (tmp_path / "cut.tar").write_bytes(content[:there])
    source = open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))
    cut = len(source) - 60
    assert cut in (there // 2048, there // 2048 + 1)  # a sample has two headers and two blocks; its text is first
    texts = [row["text"] for piece, n in enumerate(source.counts) for row in source.read(piece, 0, n)]
    assert texts == [*(f"text {i}" for i in range(100, 100 + cut)), *(f"text {i}" for i in range(60))]
    assert source.rows.lost == [("cut.tar", f"damaged or cut after {cut} samples: the rest is left out")]


def test_garbage_in_a_tars_middle_loses_what_comes_after(tmp_path):
    content = bytearray(write_tar(tmp_path / "a.tar", 60).read_bytes())
    content[2048 * 20 + 100 :] = b"x" * (len(content) - 2048 * 20 - 100)
    (tmp_path / "a.tar").write_bytes(content)
    source = open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))
    assert len(source) == 20 and len(source.rows.lost) == 1


def test_a_damaged_side_file_is_one_bad_row(tmp_path):
    def write(path, broken):
        with tarfile.open(path, "w") as tar:
            for i in range(10):
                for name, content in ((f"{i}.txt", b"hello"), (f"{i}.json", b"{" if i == broken else b'{"a": 1}')):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))

    write(tmp_path / "a.tar", broken=7)
    source = open_source(str(tmp_path), columns={"label": "json"}, needed=("label",))
    found = source.read(0, 0, 10)
    assert [UNREADABLE in row for row in found] == [i == 7 for i in range(10)]
    assert "damaged json" in found[7][UNREADABLE]


def test_damage_inside_a_parquet_file_is_bad_rows_not_an_error(tmp_path):
    pq.write_table(pa.Table.from_pylist(lines(1000)), tmp_path / "a.parquet", row_group_size=250, compression="zstd")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(2).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + 8 : start + 400] = bytes(392)
    (tmp_path / "a.parquet").write_bytes(content)
    source = open_source(str(tmp_path), needed=("text",))
    found = [row for piece, n in enumerate(source.counts) for row in source.read(piece, 0, n)]
    assert len(found) == 1000
    bad = [i for i, row in enumerate(found) if UNREADABLE in row]
    assert bad == list(range(500, 750))
    assert "can't be read" in found[500][UNREADABLE]


def test_which_rows_of_a_damaged_group_are_bad_does_not_depend_on_the_range(tmp_path):
    source = open_source(str(damaged_group(tmp_path / "a.parquet")), needed=("text",))
    bad = unreadable(source.read(1, 0, 500))
    first = bad[0]
    assert bad == list(range(first, 500)) and 250 < first < 350
    assert "can't be read" in source.read(1, first, first + 1)[0][UNREADABLE]
    random = np.random.default_rng(0)
    for _ in range(30):
        start = int(random.integers(500))
        stop = int(random.integers(start, 500)) + 1
        got = source.read(1, start, stop)
        assert unreadable(got) == [i - start for i in bad if start <= i < stop]
        assert all(row["text"].startswith(f"{500 + start + i} ") for i, row in enumerate(got) if UNREADABLE not in row)


def in_memory(path) -> str:
    """Returns the URL of a copy that is read like a remote file."""
    system = fsspec.filesystem("memory")
    system.pipe(f"/{path.parent.name}/{path.name}", path.read_bytes())
    return f"memory://{path.parent.name}/{path.name}"


def remote_source(url) -> Source:
    source = Source([{"text": ""}], {"text": "text"}, features={"text": None})
    source.rows = ParquetRows(ParquetFiles([url]), {"text": "text"})
    return source


@pytest.mark.parametrize("at", [0.0, 0.6])
def test_damage_in_a_remote_file_is_bad_rows_and_waited_for_only_once(tmp_path, monkeypatch, at):
    waits = []
    monkeypatch.setattr(remote, "PAUSES", (0.25, 0.5))
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    path = damaged_group(tmp_path / "a.parquet", at)
    here, there = open_source(str(path), needed=("text",)), remote_source(in_memory(path))
    assert there.rows.remote
    for start, stop in ((400, 500), (0, 100), (0, 500), (490, 500), (100, 400)):
        expected = here.read(1, start, stop)
        assert unreadable(there.read(1, start, stop)) == unreadable(expected)
    assert unreadable(there.read(2, 0, 500)) == []
    assert len(waits) <= 4  # for a read that starts behind the damage, and one at the damage


def test_a_remote_file_out_of_reach_is_an_error_not_bad_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0, 0))
    path = damaged_group(tmp_path / "a.parquet")
    source = remote_source(in_memory(path))
    bad = unreadable(source.read(1, 0, 500))
    own = source.rows.open

    def cut(error, piece, start):
        yield from itertools.islice(own(piece, start), 100)
        raise error

    monkeypatch.setattr(source.rows, "open", partial(cut, ConnectionError("503")))
    with pytest.raises(ConnectionError, match="503"):
        source.read(2, 0, 500)
    monkeypatch.setattr(source.rows, "open", own)
    reads = itertools.count()

    def unsteady(*args, fetch=ranges.fetch):
        answer = fetch(*args)
        return answer._replace(content=answer.content[:-1] + bytes([next(reads) % 256]))

    monkeypatch.setattr(ranges, "fetch", unsteady)
    with pytest.raises(ranges.BadAnswer, match="a.parquet: two reads of bytes .* differ"):  # no damage of the file
        source.read(1, bad[0], 500)


def test_counts_that_cost_a_pass_are_kept_until_the_file_changes(tmp_path, own_cache, monkeypatch):
    write_tar(tmp_path / "a.tar", 30)
    passes = []
    monkeypatch.setattr(tars, "tar_index", lambda *args, own=tars.tar_index: passes.append(args[0]) or own(*args))
    for _ in range(3):
        assert len(open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))) == 30
    assert len(passes) == 1 and len(list(own_cache.iterdir())) == 1
    write_tar(tmp_path / "a.tar", 40)
    assert len(open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))) == 40
    next(own_cache.iterdir()).write_bytes(b"damaged")
    for file in own_cache.iterdir():
        file.write_bytes(b"damaged")
    assert len(open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))) == 40


def test_empty_shards_and_empty_row_groups_are_skipped(tmp_path):
    schema = pa.schema({"text": pa.string()})
    for name, count in (("a", 0), ("b", 3), ("c", 0), ("d", 2)):
        pq.write_table(pa.table({"text": [f"{name}{i}" for i in range(count)]}, schema), tmp_path / f"{name}.parquet")
    source = open_source(str(tmp_path), needed=("text",))
    assert len(source) == 5
    found = [row["text"] for piece, n in enumerate(source.counts) for row in source.read(piece, 0, n)]
    assert found == ["b0", "b1", "b2", "d0", "d1"]
