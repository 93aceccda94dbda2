"""A Hub that fails, cuts connections and is slow gives the same samples; Parquet files are read in ranges."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import serve
from made_files import ROWS, parquet, tars

from hf_pretext.data import remote

EPOCH = """
import json, sys, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.2))  # the pauses of hf_pretext, huggingface_hub and datasets
from hf_pretext.data.decoding import to_text
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.data.sources import open_source
from hf_pretext.stream.loader import StreamLoader

class Text:
    def __call__(self, row, random):
        return {"number": int(to_text(row["text"]).split()[1])}

column, start, batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
source = open_source("someone/images", columns={"text": column}, needed=("text",))
loader = StreamLoader(source, Text(), 10, start=start, settings=StreamSettings(window=200, parts=2), num_workers=1)
found = []
for _ in range(batches // len(loader) + 2):
    for batch in loader:
        found += batch["number"].tolist()
        if len(found) == 10 * batches:
            print(json.dumps({"numbers": found, "bad": dict(loader.sample_log.reasons), "rows": len(source)}))
            loader.close()
            sys.exit()
"""


def epoch(hub, cache, column, start=0, batches=ROWS // 10) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", EPOCH, column, str(start), str(batches)], capture_output=True, text=True, timeout=60,
        env={**hub.environment(cache), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


KINDS = {"parquet": (parquet, "text"), "tars": (tars, "txt")}


@pytest.mark.parametrize("kind", ["parquet", pytest.param("tars", marks=pytest.mark.slow)])
def test_all_samples_arrive_once_whatever_the_server_does(tmp_path, kind):
    make, column = KINDS[kind]
    (tmp_path / "repository").mkdir()
    make(tmp_path / "repository")
    calm, rough = serve(tmp_path / "good"), serve(tmp_path / "bad", fail_every=3, cut_every=5, delay=0.02)
    with calm as good, rough as bad, ThreadPoolExecutor() as pool:  # both at once: they mostly wait
        for hub in (good, bad):
            hub.add("dataset", "someone/images", tmp_path / "repository")
        epochs = [pool.submit(epoch, hub, tmp_path / str(i), column) for i, hub in enumerate((good, bad))]
        expected, found = (one.result() for one in epochs)
        assert bad.failed > 5 and bad.cut > 0
    assert found == expected
    assert expected["rows"] == ROWS and sorted(expected["numbers"]) == list(range(ROWS)) and not expected["bad"]


def test_parquet_is_read_in_ranges_not_whole(tmp_path):
    """Only the columns in use, and only the row groups of the windows in use."""
    folder = tmp_path / "repository"
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = [{"text": f"text {i}", "image": random.bytes(4000)} for i in range(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=100)
    size = (folder / "a.parquet").stat().st_size
    with serve(tmp_path / "hub") as hub:
        hub.add("dataset", "someone/images", folder)
        found = epoch(hub, tmp_path / "cache", "text")
        assert sorted(found["numbers"]) == list(range(ROWS))
        assert 0 < hub.sent < size / 10


def test_remote_failures_are_retried(monkeypatch):
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
        remote.patiently(act, remote=False)  # a local read is not retried


def test_names_stay_different():
    assert remote.short_names(["/x/a.tar", "/x/b.tar"]) == ["a.tar", "b.tar"]
    assert remote.short_names(["/x/1/a.tar", "/x/2/a.tar"]) == ["1/a.tar", "2/a.tar"]
    assert remote.short_names(["/x/a.tar", "/x/y/a.tar"]) == ["a.tar", "y/a.tar"]
    with pytest.raises(ValueError, match="/x/a.tar is given twice"):
        remote.short_names(["/x/a.tar", "/x/b.tar", "/x/a.tar"])
