"""--dataset by URL: globs, folders, lists of files, the Hub's file system; tokens in URLs stay private."""

import json
import logging
import math
import random
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem
from loopback_hub import online
from made_files import fresh_cache, write_tar
from made_images import all_rows
from range_server import serve

from hf_pretext.data import lines, ranges, remote
from hf_pretext.data.ranges import BadAnswer
from hf_pretext.data.sources import open_source, open_splits
from hf_pretext.stream.mixture import Mixture
from hf_pretext.utils.paths import relative

own_cache = pytest.fixture(autouse=True)(fresh_cache)
TOKEN = "token=hf_secret"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("train-0", "train-1", "test-0", "deep/other"):
        pq.write_table(pa.table({"text": [f"{name} {i}" for i in range(3)]}), tmp_path / "data" / f"{name}.parquet")
    (tmp_path / "data" / "readme.md").write_text("no data")
    return tmp_path / "data"


def texts(dataset, **options) -> list[str]:
    return [row["text"] for row in all_rows(open_source(dataset, needed=("text",), **options))]


def in_memory(folder, name: str) -> str:
    """Returns the URL of a copy of a folder."""
    for file in folder.rglob("*.*"):
        fsspec.filesystem("memory").pipe(f"/{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return f"memory://{name}"


@pytest.mark.parametrize("where", ["server", "memory"])
def test_folders_and_globs_of_urls_are_read_like_local_ones(folder, where):
    with serve(folder) as server:
        url = server.url + "/" if where == "server" else in_memory(folder, "like_local")
        for split in ("train", "test"):
            assert texts(url, split=split) == texts(str(folder), split=split)
        with pytest.raises(ValueError, match="has no split 'dev'.*test, train"):
            texts(url, split="dev")
        assert sorted(open_splits(url, needed=("text",))) == ["test", "train"]
        assert texts(f"{url.rstrip('/')}/train-*.parquet") == texts(str(folder / "train-*.parquet"))


def test_a_list_names_local_files_and_urls(folder, tmp_path):
    with serve(folder) as server:
        (folder / "list.txt").write_text(
            f"# the data\n\n{server.url}/test-0.parquet  # at a server\ntrain-*.parquet\n{folder}/deep/other.parquet\n"
        )
        expected = [f"{name} {i}" for name in ("test-0", "train-0", "train-1", "deep/other") for i in range(3)]
        assert texts(f"@{folder}/list.txt") == expected
        (folder / "list.txt").write_text("deep/other.parquet\ntest-0.parquet\n")
        assert texts(f"@{server.url}/list.txt") == expected[-3:] + expected[:3]
    with pytest.raises(ValueError, match=r"--dataset @.*none.txt can't be opened"):
        texts(f"@{tmp_path}/none.txt")


def test_tars_at_a_server(tmp_path):
    write_tar(tmp_path / "a.tar", 40)
    with serve(tmp_path) as server:
        source = open_source(f"{server.url}/a.tar", columns={"text": "txt"}, needed=("text",))
        assert [row["text"] for row in all_rows(source)] == [f"text {i}" for i in range(40)]


def test_what_can_not_be_opened_is_an_error_with_the_fix(folder, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", ())
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with serve(folder) as server:
        for url, message in {
            "s3://bucket/*.parquet": "pip install s3fs",
            f"{server.url}/none.parquet": "none.parquet does not exist: 127.0.0.1 answered 404",
            f"{server.url}/deep/*.tar": "has no files, or its server does not list them",
            f"{server.url}/readme.md": "no Parquet files, tars or tables",
            f"@{folder}/readme.md": "no such file",
            "nothing://host/a.parquet": "nothing",
        }.items():
            shown = url.replace("*", ".")
            with pytest.raises(ValueError, match=rf"--eval_dataset {shown} can't be opened: .*{message}"):
                texts(url, option="eval_")


def test_a_token_in_a_url_is_in_no_log_name_or_key(folder, monkeypatch, caplog):
    monkeypatch.setattr(remote, "PAUSES", (0,))
    monkeypatch.setattr(remote, "LONGEST", 0)
    monkeypatch.setattr(remote.log, "propagate", True)
    with serve(folder) as server, caplog.at_level(logging.INFO, "hf_pretext"):
        url = f"{server.url}/train-0.parquet?{TOKEN}"
        server.busy = 1
        source = open_source(url, needed=("text",))
        assert any(path.endswith(TOKEN) for path in server.paths)
        seen = [
            source.name,
            source.key(0, 1),
            json.dumps(Mixture(source).fingerprint()),
            json.dumps(source.rows.contents.record()),
        ]
        server.page = True
        for act in (lambda: source.read(0, 0, 1), lambda: open_source(f"{url}&more", needed=("text",))):
            with pytest.raises((ValueError, ConnectionError)) as caught:
                act()
            seen.append(str(caught.value))
    assert source.name == f"{server.url}/train-0.parquet" and source.key(0, 1) == "train-0.parquet:1"
    assert "trying again" in caplog.text and not [text for text in (*seen, caplog.text) if TOKEN in text]
    assert relative(f"https://me:pass@host/a?{TOKEN}") == "https://host/a" and relative(f"@{url}") == f"@{source.name}"


def test_files_on_the_hub_are_of_one_commit(folder, tmp_path, monkeypatch):
    HfFileSystem.clear_instance_cache()
    with online(tmp_path / "hub", monkeypatch) as hub:
        commit = hub.add("dataset", "someone/texts", folder)
        source = open_source("hf://datasets/someone/texts/train-*.parquet", needed=("text",))
        assert source.rows.url(0) == f"hf://datasets/someone/texts@{commit}/train-0.parquet"
        assert len(source) == 6
        hub.log.clear()
        assert [row["text"] for row in source.read(0, 0, 3)] == [f"train-0 {i}" for i in range(3)]
        hub_log = [method for method, _ in hub.log]
        with pytest.raises(ValueError, match="--dataset hf://datasets/someone/none can't be opened"):
            texts("hf://datasets/someone/none")
        assert hub_log == ["GET", "GET"]  # the Hub refers to its storage
    HfFileSystem.clear_instance_cache()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.txt"])
def test_a_server_that_fails_loses_no_row_of_a_table(name, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", ())
    monkeypatch.setattr(remote, "READ_AHEAD", 10_000)
    monkeypatch.setattr(lines, "BLOCK", 10_000)
    words = [random.Random(i).randbytes(20).hex() for i in range(3000)]
    content = {"a.csv": "text,n\n" + "".join(f"{word},1\n" for word in words), "a.txt": "\n".join(words)}
    default = "".join(f'{{"text": "{word}"}}\n' for word in words)
    with pa.output_stream(str(tmp_path / name)) as file:  # compressed as its suffix says
        file.write(content.get(name, default).encode())
    with serve(tmp_path) as server:
        for server.down_from in (0, 30_000):
            with pytest.raises(ValueError, match=f"{name}: 127.0.0.1 answered 503"):
                texts(f"{server.url}/{name}")
        server.down_from = math.inf
        assert texts(f"{server.url}/{name}?{TOKEN}") == words  # nothing of the failed reads was kept


@pytest.mark.slow
def test_one_of_many_tables_at_a_server_that_fails_is_not_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", ())
    for i in range(30):
        (tmp_path / f"{i}.jsonl").write_text(json.dumps({"text": "a" * (200 if i == 3 else 1)}) + "\n")
    with serve(tmp_path) as server:
        (tmp_path / "list.txt").write_text("".join(f"{server.url}/{i}.jsonl\n" for i in range(30)))
        fetch = ranges.fetch

        def failing(url, start, *more):
            if url.endswith("/3.jsonl") and start >= 0:
                raise BadAnswer(f"{url}: 503")
            return fetch(url, start, *more)

        with monkeypatch.context() as patch, pytest.raises(ValueError, match="3.jsonl: 503"):
            patch.setattr(ranges, "fetch", failing)
            texts(f"@{tmp_path / 'list.txt'}")
        assert len(texts(f"@{tmp_path / 'list.txt'}")) == 30


def test_a_list_with_a_byte_order_mark_at_a_url_with_a_query(folder):
    (folder / "list.txt").write_bytes(
        b"\xef\xbb\xbftrain-0.parquet\r\n\r\n# no file\r\ntrain-1.parquet # the second\r\n"
    )
    with serve(folder) as server:
        for place in (str(folder), server.url):
            query = "?token=a/b" if place == server.url else ""
            assert texts(f"@{place}/list.txt{query}") == [f"train-{i} {j}" for i in range(2) for j in range(3)]
    (folder / "list.txt").write_text("# nothing\n\n")
    with pytest.raises(ValueError, match="list.txt names no file"):
        texts(f"@{folder}/list.txt")
