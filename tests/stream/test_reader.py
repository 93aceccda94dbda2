"""Rows are read once, ahead, and never more than there is room for."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamed import Counter, Number, Words, lenient, numbered

from hf_pretext.data.parquet import ParquetRows
from hf_pretext.data.sources import open_source
from hf_pretext.stream import reader as reader_module
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.order import RowsOf
from hf_pretext.stream.reader import SLACK, make_order, parts_notes, reading_notes
from hf_pretext.stream.settings import StreamSettings


def test_read_rows_are_not_read_once_more(monkeypatch):
    """Else each would cost a read from far away."""
    source = numbered(0)
    loader = StreamLoader(source, Number(), 8, settings=lenient())
    monkeypatch.setattr(source, "read", lambda *args: pytest.fail("read"))
    everything = RowsOf(loader.reader.order, range(len(source)))
    assert list(loader.reader.substitutes(3, 8, everything)) == []


def test_windows_are_smaller_where_rows_are_large(tmp_path):
    big = [{"text": "x" * 10_000} for _ in range(1000)]
    source = open_source(big, needed=("text",))
    assert make_order([source], None, StreamSettings(), 0).orders[0].window == 256
    order = make_order([source], None, StreamSettings(buffer_bytes=2**24), 0)
    window = order.orders[0].window
    assert 20 < window < 30
    assert make_order([source], None, StreamSettings(), 0, [window]).orders[0].window == window  # of a run resumed

    reader = reader_module.Reader([source], order, 2**24)
    most = 0
    for g in range(1000):
        assert len(reader.row(g)["text"]) == 10_000
        most = max(most, reader._held())
    assert most <= 2**24


def test_no_more_readers_stay_open_than_present_are_parts(tmp_path):
    table = pa.Table.from_pylist([{"text": str(i)} for i in range(4000)])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    source = open_source(str(tmp_path), needed=("text",))
    loader = StreamLoader(source, Words(), 64, settings=StreamSettings(parts=4, window=30))
    most = 0
    for _ in zip(range(200), loader, strict=False):
        most = max(most, len(source.rows._opened))
    assert 2 < most <= 4


def test_more_than_the_buffer_is_read_once_more_and_reported(caplog):
    rows = [{"text": "x" * (10 if i % 256 < 8 else 50_000)} for i in range(600)]  # the first of each piece are small
    source = open_source(rows, needed=("text",))
    reader = reader_module.Reader([source], make_order([source], None, StreamSettings(buffer_bytes=2**20), 0), 2**20)
    logging.getLogger("transformers").addHandler(caplog.handler)
    keys = [reader.row(g)["key"] for g in range(600)]
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert len(set(keys)) == 600
    assert "Raise it, or give a smaller --window (in a new run)" in caplog.text
    assert reader._held() < 2**20 + 65 * 50_100  # what it may hold, and the one window in use


def test_the_next_window_is_read_ahead():
    source = numbered(0, rows=200)
    order = make_order([source], None, StreamSettings(parts=2, window=10), 0)
    reader = reader_module.Reader([source], order, 2**30)
    missing = []
    for g in range(200):
        place = (0, order.orders[0].find(g)[0])
        if place not in reader._windows:
            missing.append(g)
        reader.row(g)
    assert missing == [0, 1]  # only the first of each part had to be waited for
    assert len(reader._windows) <= 6
    reader.close()


@pytest.mark.parametrize(
    ("rows", "group", "noted"), [(20_000, 20_000, True), (20_000, 1_000, False), (900, 900, False)]
)
def test_few_large_row_groups_are_reported(tmp_path, rows, group, noted):
    table = pa.Table.from_pylist([{"text": str(i)} for i in range(rows)])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    source = open_source(str(tmp_path), needed=("text",))
    notes = reading_notes([source], make_order([source], None, StreamSettings(), 0), 4)
    assert len(notes) == noted
    if noted:
        assert "has 1 row group, which" in notes[0] and "read from its start about 16 times an epoch" in notes[0]
        assert "Write smaller row groups" in notes[0]


def test_what_is_read_twice_is_reported():
    def notes(source, ranks, **settings):
        return reading_notes([source], make_order([source], None, StreamSettings(**settings), 0), ranks)

    assert notes(numbered(16), 4) == []
    assert notes(numbered(0), 8) == []
    (note,) = notes(numbered(16), 3)
    assert (
        "--parts 16 is not divisible by 3 processes: each row is read by 3 of them. In a new run with --parts 18"
        in note
    )
    (note,) = notes(numbered(2), 2)
    assert "2 shards" in note and "read from its start about 8 times an epoch" in note and "--parts 2" in note
    assert "a resumed run first reads all samples that were seen before" in notes(open_source(Counter()), 1)[0]


@pytest.fixture(scope="module")
def large_rows():
    return open_source([{"text": "x" * 100_000}] * 4096, needed=("text",))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8, 16])
def test_up_to_16_ranks_the_order_is_the_same(large_rows, ranks):
    first = make_order([large_rows], None, StreamSettings(), 0)
    order = make_order([large_rows], None, StreamSettings(), 0, ranks=ranks)
    assert (order.orders[0].parts, order.orders[0].window) == (16, 167) == (first.lanes, first.orders[0].window)
    assert [order.orders[0][g] for g in range(100)] == [first.orders[0][g] for g in range(100)]
    assert parts_notes(StreamSettings(), ranks) == []


@pytest.mark.parametrize(("ranks", "parts"), [(17, None), (64, None), (512, None), (512, 512), (512, 1024)])
def test_above_16_ranks_each_row_is_read_by_one_rank_and_the_window_stays_large(large_rows, ranks, parts):
    settings = StreamSettings(parts=parts)
    order = make_order([large_rows], None, settings, 0, ranks=ranks)
    assert order.lanes == (parts or ranks) and order.lanes % ranks == 0
    assert order.orders[0].window >= 128
    assert not any("each row is read by" in note for note in reading_notes([large_rows], order, ranks))
    held = order.lanes // ranks * SLACK * order.orders[0].window * large_rows.row_bytes()
    assert held <= settings.buffer_bytes  # of a rank
    notes = parts_notes(settings, ranks)
    assert notes == [] if parts else f"--parts is {ranks} for {ranks} processes" in notes[0]


def test_the_loader_of_a_rank_knows_how_many_there_are():
    assert StreamLoader(numbered(0), Number(), 8, ranks=64).reader.order.lanes == 64


def test_a_resume_on_fewer_ranks_keeps_parts_and_windows(large_rows):
    before = make_order([large_rows], None, StreamSettings(), 0, ranks=64)
    windows = [order.window for order in before.orders]
    after = make_order([large_rows], None, StreamSettings(parts=before.lanes), 0, windows, ranks=4)
    assert [after.orders[0][g] for g in range(0, 4096, 7)] == [before.orders[0][g] for g in range(0, 4096, 7)]


def test_an_explicit_number_of_parts_divides_the_buffer_up_to_16_ranks(large_rows):
    window = make_order([large_rows], None, StreamSettings(parts=512), 0, ranks=16).orders[0].window
    assert window == make_order([large_rows], None, StreamSettings(parts=512), 0).orders[0].window == 5


class Counted:
    """A file that counts the bytes that are read from it."""

    total = 0

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def read(self, *size):
        content = self.file.read(*size)
        Counted.total += len(content)
        return content


def test_four_ranks_together_read_a_parquet_file_once(tmp_path, monkeypatch):
    path, random = tmp_path / "a.parquet", np.random.default_rng(0)
    table = pa.table({"image": [random.bytes(4000) for _ in range(16_000)]})
    pq.write_table(table, path, row_group_size=32, write_statistics=False)
    opened = ParquetRows._opened_file
    monkeypatch.setattr(ParquetRows, "_opened_file", lambda *args: Counted(opened(*args)))
    keys, size = [], None
    for rank in range(4):
        source = open_source(str(path), columns={"image": "image"})
        size = source.row_bytes(size)  # one rank reads for all, as in `loader_of`
        order = make_order([source], None, StreamSettings(window=16), 0, ranks=4)
        reader = reader_module.Reader([source], order, 2**30)
        keys += [reader.row(g)["key"] for g in range(rank, 16_000, 4)]
        reader.close()
    assert len(set(keys)) == len(keys) == 16_000
    assert path.stat().st_size < Counted.total < 1.1 * path.stat().st_size


HANGING = """
import sys, time
sys.path.insert(0, sys.argv[1])
from streamed import Number, lenient, numbered
from hf_pretext.stream.loader import StreamLoader
source = numbered(0)
loader = StreamLoader(source, Number(), 8, settings=lenient(parts=1, window=32))
reads, read = [], loader.reader._read
def hangs_at_the_second(place):
    reads.append(place)
    if len(reads) > 1:
        time.sleep(600)
    return read(place)
loader.reader._read = hangs_at_the_second
next(iter(loader))
while len(reads) < 2:  # it reads the next window ahead
    time.sleep(0.01)
loader.close()
print("trained", flush=True)
"""


def test_a_process_ends_after_training_while_a_read_hangs():
    typed = [sys.executable, "-c", HANGING, str(Path(__file__).parent)]
    done = subprocess.run(typed, stdout=subprocess.PIPE, text=True, timeout=90)
    assert done.stdout == "trained\n" and done.returncode == 0
