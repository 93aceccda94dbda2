"""Reads any range of any source, counts rows, and reads damaged files."""

import gzip
import json

import datasets
import numpy as np
import pytest
from made_files import ROWS, fresh_cache, jsonl, keep_even, lines, parquet, tars, write_tar

from hf_pretext.data.decoding import UNREADABLE
from hf_pretext.data.parquet import ParquetRows
from hf_pretext.data.rows import MapRows, ReplayRows, StreamRows
from hf_pretext.data.sources import open_source
from hf_pretext.data.table import TableRows
from hf_pretext.data.tars import TarRows
from hf_pretext.stream.state import difference

own_cache = pytest.fixture(autouse=True)(fresh_cache)


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


def halve(row):
    return {"text": f"text {row['number'] // 2}"}


KINDS = {
    parquet: ParquetRows,
    tars: TarRows,
    jsonl: TableRows,
    jsonl_gz: TableRows,
    csv: TableRows,
    text: TableRows,
    arrow: TableRows,
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


def test_a_plain_iterable_is_iterated_repeatedly():
    class Numbers:
        def __iter__(self):
            return ({"text": f"text {i}"} for i in range(5))

    source = open_source(Numbers(), needed=("text",))
    assert type(source.rows) is ReplayRows and source.endless
    assert [row["text"] for row in source.read(0, 3, 12)] == [f"text {i % 5}" for i in range(3, 12)]
    with pytest.raises(TypeError, match="without a length"):
        len(source)
    with pytest.raises(ValueError, match="iterated only once"):
        open_source(({"text": "a"} for _ in range(3)), columns={"text": "text"}, needed=("text",))


def test_a_file_that_shrinks_meanwhile_is_bad_rows(tmp_path):
    class Shrinking(list):
        pass

    data = Shrinking(lines(10))
    source = open_source(data, needed=("text",))
    del data[6:]
    assert [UNREADABLE in row for row in source.read(0, 0, 10)] == [False] * 6 + [True] * 4


def fail_at_seven(row):
    if row["text"].endswith("7"):
        raise ValueError("a mistake in the user's code")
    return row


def test_an_error_in_the_users_code_is_no_damage(tmp_path):
    made = datasets.Dataset.from_list(lines(100)).to_iterable_dataset()
    for data in (made, streamed_json(tmp_path)):
        with pytest.raises(ValueError, match="the user's code"):
            open_source(data.map(fail_at_seven), columns={"text": "text"}, needed=("text",))
    content = gzip.compress(write_tar(tmp_path / "a.tar", 600).read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    cut = datasets.load_dataset("webdataset", data_files=str(tmp_path / "a.tar.gz"), split="train", streaming=True)
    for data in (cut, cut.map(lambda row: row)):  # a cut file stays cut after map
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


def test_a_filtered_stream_is_counted_again(tmp_path):
    jsonl(tmp_path)
    stream = datasets.load_dataset("json", data_files=str(tmp_path / "a.jsonl"), split="train", streaming=True)
    assert len(open_source(stream, needed=("text",))) == ROWS
    assert len(open_source(stream.filter(keep_even), needed=("text",))) == ROWS // 2
