"""Makes files of numbered rows in several formats."""

import io
import json
import logging
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_pretext.data.decoding import UNREADABLE

ROWS = 700


def fresh_cache(tmp_path_factory, monkeypatch):
    """Sets `HF_HOME` to a new folder and returns the folder of cached row counts."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder))
    return folder / "hf_pretext" / "rows"


def logged(caplog):
    """Yields a function that returns the messages that were logged so far."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)


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


def keep_even(row):
    return row["number"] % 2 == 0


def damaged_group(path, at=0.6):
    """Writes a Parquet file of 2,000 rows in 4 row groups of many pages, with zeros inside the second group."""
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
