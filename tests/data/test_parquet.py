"""Parquet files at a server: how many requests they cost, and what is believed of a server that fails."""

import subprocess
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_files import damaged_group, fresh_cache, unreadable
from range_server import serve

from hf_pretext.data import parquet, remote
from hf_pretext.data.lines import Reading
from hf_pretext.data.ranges import BadAnswer, Changed
from hf_pretext.data.sources import open_source
from hf_pretext.stream.loader import StreamLoader

own_cache = pytest.fixture(autouse=True)(fresh_cache)
DELAY = 0.02  # seconds before each answer


def opened(url, **options):
    return open_source(url, needed=("text",), **options)


def texts(source) -> list[str]:
    return [row["text"] for piece, count in enumerate(source.counts) for row in source.read(piece, 0, count)]


@pytest.fixture
def folder(tmp_path):
    """Two files with 2 row groups each, of 2 columns."""
    for name, first in (("a", 0), ("b", 20)):
        rows = [{"text": f"text {i}", "number": i} for i in range(first, first + 20)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet", row_group_size=10)
    return tmp_path


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were waited, without waiting."""
    waited = []
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize(("kind", "files"), [("glob", 1000), ("folder", 30), ("list", 30)])
def test_each_file_costs_one_request_once(tmp_path, kind, files):
    (tmp_path / "many").mkdir()
    for i in range(files):
        pq.write_table(pa.table({"text": [f"{i} {row}" for row in range(4)]}), tmp_path / "many" / f"{i:04d}.parquet")
    with serve(tmp_path / "many", DELAY) as server:
        (tmp_path / "list.txt").write_text("".join(f"{server.url}/{i:04d}.parquet\n" for i in range(files)))
        url = {"glob": f"{server.url}/*.parquet", "folder": f"{server.url}/", "list": f"@{tmp_path}/list.txt"}[kind]
        source = opened(url)
        assert len(source) == 4 * files and files <= server.requests.total() <= files + 5
        server.requests.clear()
        again = opened(url)
        assert again.counts == source.counts and again.rows.fingerprint() == source.rows.fingerprint()
        assert server.requests.total() <= 5
        server.requests.clear()
        assert [row["text"] for row in again.read(17, 0, 4)] == [f"17 {row}" for row in range(4)]
        assert server.requests == {"GET": 1}  # and no HEAD


RANK = r"""
import sys
from pathlib import Path

import torch.distributed as dist
from hf_pretext.data.sources import open_source
from hf_pretext.utils.ranks import on_main_process

dist.init_process_group("gloo")
source = open_source(sys.argv[1], needed=("text",), share=on_main_process)
lines = [f"{len(source)} rows", source.read(dist.get_rank(), 0, 1)[0]["text"]]
try:
    open_source(sys.argv[1].replace("*", "none"), needed=("text",), share=on_main_process)
except ValueError as error:
    lines.append(str(error))
# A file for each rank: the ranks share one standard output, in which the lines of two of them can mix.
Path(sys.argv[2], f"{dist.get_rank()}.txt").write_text("\n".join(lines))
dist.destroy_process_group()
"""


def test_ranks_share_one_index(folder, tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(RANK)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launch += ["--rdzv_endpoint", "localhost:0", str(tmp_path / "script.py")]
    with serve(folder) as server:
        opened(f"{server.url}/*.parquet")
        alone = server.requests.total()
        server.requests.clear()
        done = subprocess.run([*launch, f"{server.url}/*.parquet", str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for rank, text in enumerate(("text 0", "text 10")):
            *lines, error = (tmp_path / f"{rank}.txt").read_text().splitlines()
            assert lines == ["40 rows", text] and error.endswith("answered 404.")
        assert server.requests.total() == alone + 2 + 1  # each rank read one row group; one asked for a missing file


def test_rows_and_keys_are_those_of_local_files(folder):
    local = opened(str(folder / "*.parquet"))
    with serve(folder) as server:
        source = opened(f"{server.url}/*.parquet")
        assert texts(source) == texts(local) == [f"text {i}" for i in range(40)]
        keys = [[each.key(piece, 3) for piece in range(4)] for each in (source, local)]
        assert keys[0] == keys[1] and source.features == local.features


def test_long_footers_and_large_row_groups_are_read_in_parts(folder, monkeypatch):
    with serve(folder) as server:
        monkeypatch.setattr(parquet, "TAIL", 100)
        source = opened(f"{server.url}/a.parquet")
        assert server.requests == {"GET": 2}
        monkeypatch.setattr(parquet, "AT_A_TIME", 10)
        assert texts(source) == [f"text {i}" for i in range(20)]


def test_columns_far_apart_are_two_requests(tmp_path, monkeypatch):
    rows = [{"a": f"text {i}", "b": str(i) * 50, "c": f"{i}"} for i in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", compression=None)
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(0)
    assert len(parquet.spans_of(group, ["a", "c"])) == 1
    monkeypatch.setattr(parquet, "GAP", 100)
    assert len(parquet.spans_of(group, ["a", "c"])) == 2 and len(parquet.spans_of(group, ["a", "b"])) == 1


def test_a_web_page_in_place_of_a_file_is_no_bad_row(folder, pauses):
    with serve(folder) as server:
        source = opened(f"{server.url}/a.parquet")
        loader = StreamLoader(source, str, 2, num_workers=0)
        server.page = True
        with pytest.raises(BadAnswer, match=r"a.parquet: 127.0.0.1 answered 200 with a web page \(text/html\)"):
            source.read(1, 0, 10)
        assert pauses == list(remote.PAUSES)  # it was patient
        with pytest.raises(BadAnswer, match="a.parquet: 127.0.0.1 answered 200 with a web page"):
            next(iter(loader))
        assert not loader.sample_log.reasons
        server.page = False
        assert unreadable(source.read(1, 0, 10)) == []
        server.page = True
        with pytest.raises(ValueError, match="--dataset http.*b.parquet can't be opened: .*web page"):
            opened(f"{server.url}/b.parquet")


def test_damage_is_believed_when_two_reads_agree(tmp_path, pauses):
    path = damaged_group(tmp_path / "a.parquet")
    local = opened(str(path))
    with serve(tmp_path) as server:
        source = opened(f"{server.url}/a.parquet")
        server.requests.clear()
        bad = unreadable(source.read(1, 0, 500))
        assert bad == unreadable(local.read(1, 0, 500)) and 0 < len(bad) < 500
        assert server.requests == {"GET": 2} and pauses == []
        server.scramble = True
        with pytest.raises(BadAnswer, match=r"a.parquet: two reads of bytes .* differ"):
            source.read(2, 0, 500)
        server.scramble = False
        assert unreadable(source.read(2, 0, 500)) == []


def test_a_busy_server_gets_the_pause_that_it_asks_for(folder, pauses, caplog, monkeypatch):
    monkeypatch.setattr(remote.log, "propagate", True)
    with serve(folder) as server:
        source = opened(f"{server.url}/a.parquet")
        server.busy = 2
        assert len(source.read(0, 0, 10)) == 10
        assert pauses == [7, 7]
    assert "trying again in 7 s, as the server asks" in caplog.text
    assert remote.retry_after(BadAnswer("", wait=1e9)) == 1e9
    remote.rest(1, 1e9, "")
    assert pauses[-1] == remote.LONGEST


def test_a_file_that_changed_is_an_error_that_names_it(folder, pauses):
    with serve(folder) as server:
        source = opened(f"{server.url}/*.parquet")
        content = (folder / "b.parquet").read_bytes()
        (folder / "b.parquet").write_bytes(content.replace(b"text 2", b"TEXT 2"))
        with pytest.raises(Changed, match=r"b.parquet has changed since it was opened"):
            source.read(2, 0, 10)
        assert pauses == []
        fresh = opened(f"{server.url}/*.parquet")  # the index was forgotten
        assert fresh.rows.fingerprint() == source.rows.fingerprint() and fresh.rows.stamp != source.rows.stamp
        assert "TEXT 2" in fresh.read(2, 0, 1)[0]["text"]


def test_a_file_that_became_shorter_has_changed(folder, pauses):
    with serve(folder) as server:
        source = opened(f"{server.url}/a.parquet")
        (folder / "a.parquet").write_bytes(b"PAR1")
        with pytest.raises(Changed, match=r"a.parquet has changed since it was opened"):
            source.read(0, 0, 10)
        assert pauses == []


def test_a_server_without_ranges_is_an_error_with_the_fix(folder, pauses, monkeypatch):
    with serve(folder) as server:
        server.ranges = False
        assert texts(opened(f"{server.url}/a.parquet")) == [f"text {i}" for i in range(20)]  # small: it is sliced
        monkeypatch.setattr("hf_pretext.data.ranges.SLICED", 100)
        with pytest.raises(ValueError, match="without the range that was asked for.*copy them"):
            opened(f"{server.url}/b.parquet")


@pytest.mark.parametrize("where", ["local", "server", "memory"])
def test_files_with_a_damaged_footer_are_left_out_and_named(folder, where):
    content = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(content[: len(content) // 2])
    (folder / "c.parquet").write_bytes(b"")
    with serve(folder) as server:
        for file in folder.glob("*.parquet"):
            fsspec.filesystem("memory").pipe(f"/cut/{file.name}", file.read_bytes())
        url = {"local": str(folder / "*.parquet"), "server": f"{server.url}/*.parquet", "memory": "memory://cut"}[where]
        with pytest.raises(ValueError, match="2 of 3 files can't be read: more than --max_bad_fraction 0.05"):
            opened(url)
        source = opened(url, reading=Reading(max_bad_fraction=0.7))
        assert len(texts(source)) == 20
        assert [name for name, _ in source.rows.lost] == ["b.parquet", "c.parquet"]
        with pytest.raises(ValueError, match="b.parquet is no Parquet file, or is damaged or cut"):
            opened(url.replace("*", "b") if "*" in url else f"{url}/b.parquet")


def test_one_listing_gives_sizes_and_stamps(folder, monkeypatch):
    system, calls = fsspec.filesystem("memory"), []

    def counted(act):
        def run(*args, **options):
            calls.append(act.__name__)
            return act(*args, **options)

        return run

    for i in range(30):
        system.pipe(f"/one/{i}.parquet", (folder / "a.parquet").read_bytes())
    for name in ("info", "ls"):
        monkeypatch.setattr(type(system), name, counted(getattr(type(system), name)))
    urls = [f"memory://one/{i}.parquet" for i in range(30)]
    facts = remote.listed_facts(urls)
    assert calls == ["ls"] and {size for size, _ in facts} == {(folder / "a.parquet").stat().st_size}
