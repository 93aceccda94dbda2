"""Writes 200 rows, with one of twelve faults, as files for the libraries that `data_faults.py` compares."""

import csv
import gzip
import importlib.util
import io
import json
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS, FILE_ROWS, BAD = 200, 5, 137  # BAD: the row with the fault, which is in file 27
WORDS = {12: "None", 57: "NA", 99: "null", BAD: "nan", 163: "NULL"}  # texts that also mean a missing value
LACKING = (0, 1, 2, 3, BAD)  # samples without an image
SCANS, SCAN_SIDE = 2000, 3200  # of the JPEG with many scans
TEXTS = [f"text {i:05d} {random.Random(i).randbytes(100).hex()}" for i in range(ROWS)]  # all of the same length
NAMED = rf"part-27|shard\.00027|(?<!\d)0*({BAD}|{BAD + 1})(?!\d)"  # the file, the row, or its line
Make = Callable[[Path, Path, Path], None]


def gray(i: int, height: int = 16, width: int = 32) -> np.ndarray:
    """Returns the pixels of a row's image, `(height, width)` uint8. Its halves encode the row's number."""
    halves = np.array([i % 16, i // 16], np.uint8) * 16 + 8
    return np.repeat(halves, width // 2)[None].repeat(height, 0)


def encoded(pixels: np.ndarray, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def many_scans(i: int) -> bytes:
    """Returns a progressive JPEG whose last scan, which changes nothing, is repeated."""
    content = encoded(gray(i, SCAN_SIDE, SCAN_SIDE), "JPEG", quality=95, progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * SCANS + content[-2:]


def few_rows(i: int) -> bytes:
    """Returns a PNG of 2,000 rows with an intact stream of ten."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 32, 2000, 8, 0, 0, 0, 0)
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in gray(i, 10)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def twelve_bits(i: int) -> bytes:
    """Returns a PNG of 16 bits with pixels of 12 bits."""
    return encoded(gray(i).astype(np.uint16) << 4, "PNG")


def parts(rows: list) -> Iterator[tuple[str, dict]]:
    """Yields the name of each file and its rows by number."""
    for first in range(0, len(rows), FILE_ROWS):
        yield f"part-{first // FILE_ROWS:02d}", {i: rows[i] for i in range(first, first + FILE_ROWS)}


def write_parquet(folder: Path, kind: str, rows: list) -> None:
    feature = datasets.Image() if kind == "image" else datasets.Value("string")
    schema = datasets.Features({kind: feature}).arrow_schema
    for name, part in parts(rows):
        pq.write_table(pa.Table.from_pydict({kind: list(part.values())}, schema=schema), folder / f"{name}.parquet")


def write_tars(folder: Path, samples: list[dict[str, bytes]], suffix: str = "tar") -> None:
    """samples: content by suffix of the member."""
    for name, part in parts(samples):
        with tarfile.open(folder / f"{name}.{suffix}", "w:gz" if suffix == "tar.gz" else "w") as tar:
            for i, sample in part.items():
                for member, content in sample.items():
                    info = tarfile.TarInfo(f"{i:05d}.{member}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_mds(folder: Path, kind: str, rows: list, encoding: str, compression: str | None = None) -> None:
    """Writes MDS shards; of texts, five rows each. Images keep their bytes: the index says later what they are."""
    if not importlib.util.find_spec("streaming"):
        return
    from streaming import MDSWriter

    stored, most = ("bytes", 2**20) if kind == "image" else (encoding, 1300)
    options = {"columns": {kind: stored}, "size_limit": most, "compression": compression, "hashes": ["sha1"]}
    with MDSWriter(out=str(folder), **options) as out:
        for row in rows:
            out.write({kind: row})
    index = folder / "index.json"
    index.write_text(index.read_text().replace(f'["{stored}"]', f'["{encoding}"]'))


def write_tables(folder: Path, suffix: str, texts: list[str]) -> None:
    """Writes JSON lines, CSV or compressed plain text."""
    for name, part in parts(texts):
        path = folder / f"{name}.{suffix}"
        if suffix == "jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part.values()))
        elif suffix == "csv":
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows([("number", "text"), *part.items()])
        else:
            path.write_bytes(gzip.compress("".join(f"{text}\n" for text in part.values()).encode()))


def patch(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def cut(*folders: Path) -> None:
    """Cuts file 27 of each folder to a third of its bytes."""
    for folder in folders:
        for path in (*folder.glob("part-27*"), *folder.glob("shard.00027*")):
            patch(path, lambda content: content[: len(content) // 3])


def image_fault(bad: Callable[[int], bytes], format: str) -> Make:
    def make(data: Path, tars: Path, mds: Path) -> None:
        rows = [bad(i) if i == BAD else encoded(gray(i), format) for i in range(ROWS)]
        write_parquet(data, "image", [{"bytes": row, "path": None} for row in rows])
        write_tars(tars, [{format.lower(): row} for row in rows])
        write_mds(mds, "image", rows, format.lower())

    return make


def make_pipe(data: Path, tars: Path, mds: Path) -> None:
    os.mkfifo(data / "pipe.png")
    rows = [{"bytes": encoded(gray(i), "PNG"), "path": None} for i in range(ROWS)]
    rows[BAD] = {"bytes": None, "path": str(data / "pipe.png")}
    write_parquet(data, "image", rows)


def make_bad_json(data: Path, tars: Path, mds: Path) -> None:
    write_tables(data, "jsonl", TEXTS)
    patch(data / "part-27.jsonl", lambda content: content.replace(TEXTS[BAD].encode() + b'"', b"text"))
    members = [json.dumps({"text": text}).encode() for text in TEXTS]
    members[BAD] = members[BAD][:20]
    write_tars(tars, [{"json": member} for member in members])


def make_bad_byte(data: Path, tars: Path, mds: Path) -> None:
    bad = b"caf\xe9 " + TEXTS[BAD].encode()
    write_tables(data, "csv", TEXTS)
    patch(data / "part-27.csv", lambda content: content.replace(TEXTS[BAD].encode(), bad))
    write_tars(tars, [{"txt": bad if i == BAD else text.encode()} for i, text in enumerate(TEXTS)])


def make_words(data: Path, tars: Path, mds: Path) -> None:
    write_tables(data, "csv", [WORDS.get(i, text) for i, text in enumerate(TEXTS)])


def make_cut_gz(data: Path, tars: Path, mds: Path) -> None:
    write_tables(data, "txt.gz", TEXTS)
    write_tars(tars, [{"txt": text.encode()} for text in TEXTS], "tar.gz")
    write_mds(mds, "text", TEXTS, "str", "zstd")
    cut(data, tars, mds)


def make_cut_shard(data: Path, tars: Path, mds: Path) -> None:
    write_parquet(data, "text", TEXTS)
    write_tars(tars, [{"txt": text.encode()} for text in TEXTS])
    write_mds(mds, "text", TEXTS, "str")
    cut(data, tars, mds)


def make_lacking(data: Path, tars: Path, mds: Path) -> None:
    """The first samples have only a text; images are PNG and JPEG in turn."""
    samples = []
    for i in range(ROWS):
        format = ("PNG", "JPEG")[i % 2]
        image = {} if i in LACKING else {{"PNG": "png", "JPEG": "jpg"}[format]: encoded(gray(i), format)}
        samples.append({**image, "txt": TEXTS[i].encode()})
    write_tars(data, samples)
    write_tars(tars, samples)


def make_heic(data: Path, tars: Path, mds: Path) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    kinds = [("jpeg", "JPEG") if i % 4 == 3 else ("heic", "HEIF") for i in range(ROWS)]
    samples = [{suffix: encoded(gray(i), format)} for i, (suffix, format) in enumerate(kinds)]
    for i, sample in enumerate(samples):
        for suffix, content in sample.items():
            (data / f"{i:05d}.{suffix}").write_bytes(content)
    write_tars(tars, samples)


def make_web_page(data: Path, tars: Path, mds: Path) -> None:
    write_parquet(data, "text", TEXTS)
    write_tars(tars, [{"txt": text.encode()} for text in TEXTS])


@dataclass
class Fault:
    """make: writes files of rows with the fault into three folders: for us and `datasets`, for WebDataset, for MosaicML
    Streaming; a folder stays empty if the library has no such data. format: as `datasets` names it. member: of the
    tars. named: pattern of what a useful message has. served: the files are at a server."""

    title: str
    make: Make
    kind: str = "text"
    format: str = "parquet"
    member: str = "txt"
    named: str = NAMED
    served: bool = False


FAULTS = {
    "pipe": Fault("the path in a row is a pipe", make_pipe, "image"),
    "scans": Fault("a JPEG of 10 megapixels has 2,000 scans", image_fault(many_scans, "JPEG"), "image", member="jpeg"),
    "rows": Fault("a PNG has only 10 of its 2,000 rows", image_fault(few_rows, "PNG"), "image", member="png"),
    "bits": Fault("a PNG has 12-bit pixels in 16 bits", image_fault(twelve_bits, "PNG"), "image", member="png"),
    "json": Fault("a line of JSON, or JSON member, is cut", make_bad_json, format="json", member="json"),
    "byte": Fault("a text in CSV, or text member, is not UTF-8", make_bad_byte, format="csv"),
    "words": Fault('five texts in CSV are "None", "NA", "null", ...', make_words, format="csv"),
    "gz": Fault("one of 40 compressed files is cut", make_cut_gz, format="text"),
    "shard": Fault("one of 40 Parquet files, or shards, is cut", make_cut_shard),
    "lacking": Fault("5 samples of tars lack an image, 4 of them the first; PNG mixed with JPEG", make_lacking, "image",
                     "webdataset", "jpg;png"),
    "heic": Fault("150 images are HEIC, without a package that reads it", make_heic, "image", "imagefolder", "jpeg",
                  r"\.?heic"),
    "page": Fault("a server sends web pages with status 200 for 8 s", make_web_page, served=True),
}  # fmt: skip
