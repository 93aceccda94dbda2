"""Feeds twelve faults to our reader, `datasets`, WebDataset and MosaicML Streaming, and prints what each of them does.

    pip install -e '.[bench]'
    pip install --no-deps --target peers mosaicml-streaming zstd Brotli python-snappy cramjam catalogue
    PYTHONPATH=peers python benchmarks/data_faults.py       # about 4 minutes on 2 cores

MosaicML Streaming gets its own folder, because its requirements would downgrade numpy and transformers. Without it, its
column is left out.

Each case has 200 rows in files of a format that the library reads, with one fault (`faulty_files.py`). It runs in its
own process with a time limit, and reads each row once with the usual loop: `StreamLoader` for ours, `load_dataset` for
`datasets`. Options that tolerate faults are on: `on_bad_files="warn"` of `datasets`, handlers of WebDataset that report
an error and continue, and hashes of MosaicML Streaming. Images are converted to RGB by Pillow, except ours. A row is
good if its text or all its pixels are those that were written. A fault is named if the output or the error contains the
file, the row or the line (or the suffix of the HEIC images).
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import torch
from faulty_files import FAULTS, FILE_ROWS, ROWS, TEXTS, WORDS, Fault, gray
from PIL import Image

NUMBERS = {text: i for i, text in enumerate(TEXTS)} | {word: i for i, word in WORDS.items()}
REPOSITORY = Path(__file__).parent.parent
LIES = 8  # seconds for which the server sends web pages
SLOW = 5  # seconds; the time of a slower case is in the table


def number_of(value) -> int:
    """Returns the number of the row that a value is of, or -1 if no row has this text or these pixels."""
    if isinstance(value, str):
        return NUMBERS.get(value, -1)
    if not isinstance(value, (Image.Image, np.ndarray)):  # None, for example
        return -1
    pixels = np.asarray(value.convert("RGB") if isinstance(value, Image.Image) else value)[..., 0]
    i = int(pixels[0, 0]) // 16 + int(pixels[0, -1]) // 16 * 16
    difference = np.abs(pixels - gray(i, *pixels.shape).astype(int))
    return i if i < ROWS and difference.max() < 8 else -1


def read_ours(fault: Fault, place: str, scratch: Path) -> Iterator[int]:
    from hf_pretext.data.decoding import to_image, to_text
    from hf_pretext.data.sources import open_source
    from hf_pretext.stream.loader import StreamLoader

    def process(row: dict, generator: np.random.Generator) -> dict:
        value = to_text(row["text"]) if fault.kind == "text" else to_image(row["image"]).permute(1, 2, 0).numpy()
        return {"number": torch.tensor(number_of(value))}

    loader = StreamLoader(open_source(place, needed=(fault.kind,)), process, 10, folder=scratch)
    try:
        for batch in loader:
            yield from batch["number"].tolist()
    finally:
        loader.close()
        if (scratch / "bad_samples.jsonl").exists():
            print((scratch / "bad_samples.jsonl").read_text(), file=sys.stderr)


def read_datasets(fault: Fault, place: str, scratch: Path) -> Iterator[int]:
    options = {"on_bad_files": "warn"} if fault.format == "parquet" else {}
    if fault.format == "imagefolder":
        options["data_dir"] = place
    elif fault.served:
        options["data_files"] = [f"{place}/part-{i:02d}.parquet" for i in range(ROWS // FILE_ROWS)]
    else:
        options["data_files"] = f"{place}/part*"
    rows = datasets.load_dataset(fault.format, split="train", **options)
    for row in rows:
        yield number_of(row[fault.kind] if fault.kind in row else row.get("png") or row.get("jpg"))


def read_webdataset(fault: Fault, place: str, scratch: Path) -> Iterator[int]:
    import webdataset

    def report(error: Exception) -> bool:  # webdataset.warn_and_continue without its pause of half a second
        print(repr(error), file=sys.stderr)
        return True

    suffix = "tar.gz" if fault.format == "text" else "tar"
    rows = webdataset.WebDataset(f"{place}/part-{{00..39}}.{suffix}", shardshuffle=False, handler=report)
    for (value,) in rows.decode("pil", handler=report).to_tuple(fault.member, handler=report):
        yield number_of(value["text"] if fault.member == "json" else value)


def read_mosaic(fault: Fault, place: str, scratch: Path) -> Iterator[int]:
    from streaming import StreamingDataset

    rows = StreamingDataset(remote=place, local=str(scratch / "local"), batch_size=1, validate_hash="sha1")
    for row in rows:
        yield number_of(row[fault.kind])


READERS = {
    "hf_pretext": (read_ours, "data", "hf_pretext"),
    "datasets": (read_datasets, "data", "datasets"),
    "WebDataset": (read_webdataset, "tars", "webdataset"),
    "MosaicML Streaming": (read_mosaic, "mds", "mosaicml-streaming"),
}


def root_of(error: BaseException) -> BaseException:
    """Returns the error that caused an error."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return error


def read_case(name: str, reader: str, place: str, scratch: str) -> None:
    """Reads a case. Prints a number for each row, then a line of JSON with the seconds and the error."""
    sys.modules["pillow_heif"] = None  # as if it were not installed
    begun, error = time.monotonic(), None
    try:
        for number in READERS[reader][0](FAULTS[name], place, Path(scratch)):
            print(number, flush=True)
    except Exception as raised:  # each library raises other types
        root = root_of(raised)
        error = f"{type(root).__name__}: {str(root).strip().partition(chr(10))[0]}"
        print(raised, root, file=sys.stderr)
    print(json.dumps({"seconds": time.monotonic() - begun, "error": error}), flush=True)
    sys.stderr.flush()
    os._exit(0)  # a library's thread that hangs would keep the process


def relent(server) -> None:
    """Lets a server send files after it has sent web pages for some seconds."""
    server.page = True
    while not server.paths:
        time.sleep(0.1)
    time.sleep(LIES)
    server.page = False


def run_case(name: str, reader: str, folder: Path, limit: float) -> str:
    """Runs a case in a process. Returns its cell of the table."""
    from range_server import serve

    fault, place, scratch = FAULTS[name], folder / READERS[reader][1], folder / reader
    if not any(place.iterdir()):
        return "-"
    scratch.mkdir()
    online = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(scratch / "home")}
    with (
        serve(place) if fault.served else nullcontext() as server,
        open(scratch / "out", "w") as out,
        open(scratch / "err", "w") as err,
    ):
        if server:
            threading.Thread(target=relent, args=(server,), daemon=True).start()
        command = [sys.executable, __file__, "--case", name, reader, server.url if server else place, scratch]
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **online})
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return cell(fault, (scratch / "out").read_text(), (scratch / "err").read_text(), process.returncode, limit)


def cell(fault: Fault, out: str, err: str, status: int, limit: float) -> str:
    """Describes a case by its output and the exit status of its process (-9: ended after `limit` seconds)."""
    lines = out.splitlines()
    end = json.loads(lines.pop()) if lines and lines[-1].startswith("{") else {}
    numbers = [int(line) for line in lines if re.fullmatch(r"-?\d+", line)]  # libraries may print other lines
    good, wrong, error = len(set(numbers) - {-1}), numbers.count(-1), end.get("error")
    notes = [f"**{good}**" + f", {wrong} wrong" * bool(wrong)]
    if not end:
        notes.append(f"no end after {limit:.0f} s" if status == -signal.SIGKILL else f"exit status {status}")
    elif error:
        error = re.sub(r"\S*/(?=\S)", "", error).replace("|", "/").replace("`", "'")
        notes.append(f"`{textwrap.shorten(error, 50, placeholder='...')}`")
    elif ROWS - 1 not in numbers:
        notes.append("ends early without an error")
    if end.get("seconds", 0) > SLOW:
        notes.append(f"{end['seconds']:.0f} s")
    if good < ROWS:
        notes.append("named" if re.search(fault.named, err) else "not named")
    return "; ".join(notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of a case")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=FAULTS)
    parser.add_argument("--folder", type=Path, help="keeps the files and the output of all cases here")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return read_case(*options.case)
    sys.path.insert(1, str(REPOSITORY / "tests" / "data"))  # of the server
    readers = [name for name in READERS if name != "MosaicML Streaming" or importlib.util.find_spec("streaming")]
    print(f"| fault | {' | '.join(f'{name} {version(READERS[name][2])}' for name in readers)} |")
    print("|---" * (len(readers) + 1) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.faults:
            folder = (options.folder or Path(temporary)) / name
            places = [folder / part for part in ("data", "tars", "mds")]
            for place in places:
                place.mkdir(parents=True)
            FAULTS[name].make(*places)
            cells = [run_case(name, reader, folder, options.limit) for reader in readers]
            print(f"| {FAULTS[name].title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
