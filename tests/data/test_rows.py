"""Any range of any source, its counts, and what is left of damaged files."""

import gzip
import io
import itertools
import json
import tarfile
from functools import partial

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_pretext.data import remote, shards, sources
from hf_pretext.data.decoding import UNREADABLE
from hf_pretext.data.rows import MapRows, ReplayRows, StreamRows
from hf_pretext.data.shards import ParquetRows, TarRows
from hf_pretext.data.sources import Source, open_source
from hf_pretext.stream.state import difference

ROWS = 700


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder))
    return folder / "hf_pretext" / "rows"


def lines(count=ROWS):
    return [{"text": f"text {i}", "number": i} for i in range(count)]


def write_tar(path, count, first=0, extra=()):
    with tarfile.open(path, "w") as tar:
        for i in range(first, first + count):
            for name, content in ((f"{i:05d}.txt", f"text {i}".encode()), (f"{i:05d}.json", b'{"a": 1}'), *extra):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def parquet(folder):
    pq.write_table(pa.Table.from_pylist(lines()[:400]), folder / "a.parquet", row_group_size=300)
    pq.write_table(pa.Table.from_pylist(lines()[400:]), folder / "b.parquet", row_group_size=300)
    return str(folder / "*.parquet")


def tars(folder):
    write_tar(folder / "a.tar", 400)
    write_tar(folder / "b.tar", 300, 400)
    return str(folder)


def jsonl(folder):
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    return str(folder)


def jsonl_gz(folder):
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines())
    return str(folder / "a.jsonl.gz")


def csv(folder):
    (folder / "a.csv").write_text("text,number\n" + "".join(f"text {i},{i}\n" for i in range(ROWS)))
    return str(folder / "a.csv")


def text(folder):
    (folder / "a.txt").write_text("".join(f"text {i}\n" for i in range(ROWS)))
    return str(folder / "a.txt")


def arrow(folder):
    datasets.Dataset.from_list(lines()).save_to_disk(folder / "saved", num_shards=2)
    return str(next((folder / "saved").glob("*-00000-*.arrow").__iter__()).parent / "*.arrow")


def saved(folder):
    datasets.Dataset.from_list(lines()).save_to_disk(folder / "saved")
    return str(folder / "saved")


def streamed_json(folder):
    jsonl(folder)
    return datasets.load_dataset("json", data_files=str(folder / "a.jsonl"), split="train", streaming=True)


def compressed_tar(folder):
    (folder / "a.tar.gz").write_bytes(gzip.compress(write_tar(folder / "a.tar", ROWS).read_bytes()))
    return datasets.load_dataset("webdataset", data_files=str(folder / "a.tar.gz"), split="train", streaming=True)


def filtered(folder):
    data = datasets.Dataset.from_list(lines(2 * ROWS)).to_iterable_dataset(num_shards=7)
    return data.filter(keep_even).map(halve)


def keep_even(row):
    return row["number"] % 2 == 0


def halve(row):
    return {"text": f"text {row['number'] // 2}"}


KINDS = {
    parquet: ParquetRows,
    tars: TarRows,
    jsonl: MapRows,
    jsonl_gz: MapRows,
    csv: MapRows,
    text: MapRows,
    arrow: MapRows,
    saved: MapRows,
    lambda folder: lines(): MapRows,
    lambda folder: datasets.Dataset.from_list(lines()): MapRows,
    streamed_json: StreamRows,
    compressed_tar: StreamRows,
    filtered: StreamRows,
}


@pytest.mark.parametrize(("make", "kind"), KINDS.items())
def test_every_kind_gives_every_range(make, kind, tmp_path):
    columns = {"text": "txt"} if make in (tars, compressed_tar) else {"text": "text"}
    source = open_source(make(tmp_path), columns=columns, needed=("text",))
    assert type(source.rows) is kind and len(source) == ROWS
    found = [row["text"] for piece, count in enumerate(source.counts) for row in source.read(piece, 0, count)]
    assert found == [f"text {i}" for i in range(ROWS)]
    places = [(piece, i) for piece, count in enumerate(source.counts) for i in range(count)]
    random = np.random.default_rng(0)
    for _ in range(40):  # anywhere, forwards and backwards
        first = int(random.integers(len(places)))
        piece, start = places[first]
        stop = int(random.integers(start, source.counts[piece])) + 1
        got = [row["text"] for row in source.read(piece, start, stop)]
        assert got == found[first : first + stop - start]
    keys = [source.key(*place) for place in places]
    assert len(set(keys)) == ROWS
    picked = sorted(random.choice(ROWS, 50, replace=False).tolist())
    assert [row["text"] for row in source.take([places[i] for i in picked])] == [f"text {i}" for i in picked]
    json.dumps(source.rows.fingerprint())
    (tmp_path / "again").mkdir()
    again = open_source(make(tmp_path / "again"), columns=columns, needed=("text",))
    assert difference([{"name": "a", **source.rows.fingerprint()}], [{"name": "b", **again.rows.fingerprint()}]) == ""


def test_parquet_reads_no_more_than_it_must(tmp_path, monkeypatch):
    pq.write_table(pa.Table.from_pylist(lines(3000)), tmp_path / "a.parquet", row_group_size=3000)
    source = open_source(str(tmp_path), needed=("text",))
    opened = []
    monkeypatch.setattr(ParquetRows, "open", lambda *args, own=ParquetRows.open: opened.append(args[1:]) or own(*args))
    for start in range(0, 3000, 100):
        source.read(0, start, start + 100)
    assert opened == [(0, 0)]  # went on where it was, each time


def test_a_plain_iterable_is_gone_through_again_and_again():
    class Numbers:
        def __iter__(self):
            return ({"text": f"text {i}"} for i in range(5))

    source = open_source(Numbers(), needed=("text",))
    assert type(source.rows) is ReplayRows and source.endless
    assert [row["text"] for row in source.read(0, 3, 12)] == [f"text {i % 5}" for i in range(3, 12)]
    with pytest.raises(TypeError, match="without a length"):
        len(source)
    with pytest.raises(ValueError, match="gone through only once"):
        open_source(({"text": "a"} for _ in range(3)), columns={"text": "text"}, needed=("text",))


@pytest.mark.parametrize("share", [0.31, 0.5, 0.77])
def test_a_cut_tar_loses_only_its_rest(tmp_path, share):
    write_tar(tmp_path / "whole.tar", 60)
    content = write_tar(tmp_path / "cut.tar", 60, 100).read_bytes()
    there = int(len(content) * share)
    (tmp_path / "cut.tar").write_bytes(content[:there])
    source = open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))
    cut = len(source) - 60
    assert cut in (there // 2048, there // 2048 + 1)  # a sample is two headers and two blocks; the text comes first
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


def damaged_group(path, at=0.6):
    """A Parquet file of 2,000 rows in 4 groups of many pages each, with garbage in the middle of the second."""
    rows = [{"text": f"{i} " + np.random.default_rng(i).bytes(300).hex()} for i in range(2000)]
    pq.write_table(
        pa.Table.from_pylist(rows), path, row_group_size=500, data_page_size=4096, write_batch_size=16,
        use_dictionary=False, compression="zstd",
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(1).column(0)
    start = column.data_page_offset + int(column.total_compressed_size * at)
    content[start : start + 3000] = bytes(3000)
    path.write_bytes(content)
    return path


def unreadable(rows) -> list[int]:
    return [i for i, row in enumerate(rows) if UNREADABLE in row]


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
    """The address of a copy that is read as remote files are."""
    system = fsspec.filesystem("memory")
    system.pipe(f"/{path.parent.name}/{path.name}", path.read_bytes())
    return f"memory://{path.parent.name}/{path.name}"


def remote_source(url) -> Source:
    source = Source([{"text": ""}], {"text": "text"}, features={"text": None})
    source.rows = ParquetRows([url], {"text": "text"})
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
    assert len(waits) <= 4  # where the break was looked for from behind it, and where it is


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
    monkeypatch.setattr(source.rows, "open", partial(cut, OSError("Unexpected end of stream")))
    monkeypatch.setattr(sources, "can_be_reached", lambda url: False)
    with pytest.raises(OSError, match="Unexpected end"):  # also where a later row is known to be damaged
        source.read(1, 0, bad[0])


def test_a_file_that_shrinks_meanwhile_is_bad_rows(tmp_path):
    class Shrinking(list):
        pass

    data = Shrinking(lines(10))
    source = open_source(data, needed=("text",))
    del data[6:]
    assert [UNREADABLE in row for row in source.read(0, 0, 10)] == [False] * 6 + [True] * 4


def test_counts_that_cost_a_pass_are_kept_until_the_file_changes(tmp_path, own_cache, monkeypatch):
    write_tar(tmp_path / "a.tar", 30)
    passes = []
    monkeypatch.setattr(shards, "tar_index", lambda *args, own=shards.tar_index: passes.append(args[0]) or own(*args))
    for _ in range(3):
        assert len(open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))) == 30
    assert len(passes) == 1 and len(list(own_cache.iterdir())) == 1
    write_tar(tmp_path / "a.tar", 40)
    assert len(open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))) == 40
    next(own_cache.iterdir()).write_bytes(b"damaged")
    for file in own_cache.iterdir():
        file.write_bytes(b"damaged")
    assert len(open_source(str(tmp_path), columns={"text": "txt"}, needed=("text",))) == 40


def fail_at_seven(row):
    if row["text"].endswith("7"):
        raise ValueError("a mistake of the user's own")
    return row


def test_an_error_in_the_users_own_code_is_no_damage(tmp_path):
    made = datasets.Dataset.from_list(lines(100)).to_iterable_dataset()
    for data in (made, streamed_json(tmp_path)):
        with pytest.raises(ValueError, match="the user's own"):
            open_source(data.map(fail_at_seven), columns={"text": "text"}, needed=("text",))
    content = gzip.compress(write_tar(tmp_path / "a.tar", 600).read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    cut = datasets.load_dataset("webdataset", data_files=str(tmp_path / "a.tar.gz"), split="train", streaming=True)
    for data in (cut, cut.map(lambda row: row)):  # a file that is cut still is
        source = open_source(data, columns={"text": "txt"}, needed=("text",))
        assert 0 < len(source) < 600 and len(source.rows.lost) == 1


def test_counts_depend_on_how_a_file_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("a\nb\n\nc\nd\n\n")
    for sample_by, expected in (("line", 6), ("paragraph", 2), ("document", 1)):
        data = datasets.load_dataset(
            "text", data_files=str(tmp_path / "a.txt"), split="train", streaming=True, sample_by=sample_by
        )
        for _ in range(2):
            assert len(open_source(data, needed=("text",))) == expected == len(list(data))


def test_a_filtered_stream_is_counted_anew(tmp_path):
    jsonl(tmp_path)
    stream = datasets.load_dataset("json", data_files=str(tmp_path / "a.jsonl"), split="train", streaming=True)
    assert len(open_source(stream, needed=("text",))) == ROWS
    assert len(open_source(stream.filter(keep_even), needed=("text",))) == ROWS // 2


def test_empty_shards_and_empty_row_groups_are_no_hindrance(tmp_path):
    schema = pa.schema({"text": pa.string()})
    for name, count in (("a", 0), ("b", 3), ("c", 0), ("d", 2)):
        pq.write_table(pa.table({"text": [f"{name}{i}" for i in range(count)]}, schema), tmp_path / f"{name}.parquet")
    source = open_source(str(tmp_path), needed=("text",))
    assert len(source) == 5
    found = [row["text"] for piece, n in enumerate(source.counts) for row in source.read(piece, 0, n)]
    assert found == ["b0", "b1", "b2", "d0", "d1"]


def test_what_fails_far_away_is_tried_again(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0, 0, 0))
    answers = iter([ConnectionError("503"), TimeoutError(), "content"])

    def act():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert remote.patiently(act, remote=True) == "content"
    answers = iter([ConnectionError("503")])
    with pytest.raises(ConnectionError):
        remote.patiently(act, remote=False)  # a disk is not asked twice


def test_names_stay_different():
    assert remote.short_names(["/x/a.tar", "/x/b.tar"]) == ["a.tar", "b.tar"]
    assert remote.short_names(["/x/1/a.tar", "/x/2/a.tar"]) == ["1/a.tar", "2/a.tar"]
    assert remote.short_names(["/x/a.tar", "/x/y/a.tar"]) == ["a.tar", "y/a.tar"]
    with pytest.raises(ValueError, match="/x/a.tar is given twice"):
        remote.short_names(["/x/a.tar", "/x/b.tar", "/x/a.tar"])


def test_what_changed_is_said():
    old = [{"name": "d", "files": {"a": 1, "b": 2}, "rows": 5, "pieces": "x"}]
    assert difference(old, old) == ""
    new = [{"name": "d", "files": {"a": 3, "c": 2}, "rows": 6, "pieces": "y"}]
    assert difference(old, new) == "b is gone; c is new; a had 1 bytes and has 3; d had 5 rows and has 6"
    assert difference(old, [{**old[0], "pieces": "y"}]) == "the rows of d are cut into other pieces"
    assert difference(old, old * 2) == "1 datasets then, 2 now"
