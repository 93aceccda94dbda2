"""Reads the captions and labels of an image folder: `metadata.csv`, `metadata.jsonl`, or a text file next to an image.

images and metadata files -> one value per image and column
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import logging

from .column_types import Fault, at_line, settled
from .csv_records import Csv
from .csv_rows import undecodable
from .json_rows import fitted, json_lines, loaded, slow_votes_of
from .lines import CutOff, Reading
from .table import check_reasons

METADATA = ("metadata.csv", "metadata.jsonl")  # as in `datasets`
Row = dict[str, Any]
log = logging.get_logger(__name__)


class Notes(NamedTuple):
    """Columns about images, a value for each image, and the files that they were read from."""

    columns: dict[str, list]
    files: list[Path]


def notes_on(paths: Sequence[Path], folder: Path, reading: Reading) -> Notes:
    """Returns the metadata of images.

    The `file_name` in a metadata file is relative to the folder of the file. Without metadata files, the `.txt` file
    with the name of an image becomes its column `text`. Raises `ValueError` for a metadata file without the column
    `file_name`, or one with too many unreadable rows."""
    files = sorted(file for name in METADATA for file in folder.rglob(name))
    if not files:
        return texts_next_to(paths, folder, reading)
    metadata: dict[Path, Row] = {}
    repeated = []
    for file in files:
        rows = metadata_rows(file, reading)
        if rows and not any("file_name" in row for row in rows):
            raise ValueError(f"{file} has no column file_name. Add it, with the path of each row's image.")
        for row in rows:
            name = row.pop("file_name", None)
            if isinstance(name, str):
                repeated += [file.parent / name] if file.parent / name in metadata else []
                metadata[file.parent / name] = row
    report(folder, paths, metadata, repeated)
    names = dict.fromkeys(name for row in metadata.values() for name in row if name != "image")
    return Notes({name: [metadata.get(path, {}).get(name) for path in paths] for name in names}, files)


def report(folder: Path, paths: Sequence[Path], metadata: Mapping[Path, dict], repeated: Sequence[Path]) -> None:
    """Logs the number and three examples of metadata rows whose image does not exist, of images without a row, and of
    rows of an image that already has one."""
    images = set(paths)
    missing = [path for path in metadata if path not in images and not path.is_file()]
    for what, some in (
        (f"of {len(metadata):,} metadata rows have no image (column file_name)", missing),
        (f"of {len(paths):,} images have no metadata row", [path for path in paths if path not in metadata]),
        ("metadata rows name an image of an earlier row, which they replace (several captions: use a list)", repeated),
    ):
        if some:
            examples = ", ".join(str(path.relative_to(folder)) for path in some[:3])
            log.warning_once(f"{folder}: {len(some):,} {what}: {examples}{', ...' if len(some) > 3 else ''}")


def texts_next_to(paths: Sequence[Path], folder: Path, reading: Reading) -> Notes:
    """Returns the texts of the `.txt` files next to images; no column if there is no such file.

    A text with invalid bytes is None. Raises `ValueError` if there are more of them than `reading.max_bad_fraction`."""
    texts = {path: path.with_suffix(".txt") for path in paths}
    files = sorted({text for text in texts.values() if text.is_file()})
    read: dict[Path, str] = {}
    reasons = []
    for file in files:
        try:
            read[file] = file.read_text(encoding=reading.encoding or "utf-8-sig").strip()
        except UnicodeDecodeError as error:
            reasons.append(f"not UTF-8: {file.relative_to(folder)} (byte 0x{error.object[error.start]:02x})")
        except OSError as error:
            reasons.append(f"unreadable: {file.relative_to(folder)} ({error.strerror})")
    check_reasons(reasons, len(files), f"{folder}: captions in .txt files", reading.max_bad_fraction)
    return Notes({"text": [read.get(texts[path]) for path in paths]} if read else {}, files)


def metadata_rows(file: Path, reading: Reading) -> list[Row]:
    """Returns the readable rows of a metadata file, and warns of the others.

    The values of a CSV file are texts. A value whose type is not that of its column is left out. Raises `ValueError` if
    more rows are unreadable than `reading.max_bad_fraction`."""
    rows, faults = [], []
    try:
        for row, fault in (csv_rows if file.suffix == ".csv" else json_rows)(file, reading):
            rows.append(row)
            faults += [] if fault is None else [fault]
    except CutOff as error:
        faults.append(Fault(None, f"cut or damaged file: {file.name} ({error})"))
    except OSError as error:
        raise ValueError(f"{file} can't be read: {error.strerror}.") from error
    check_reasons([fault.reason for fault in faults], len(rows), str(file), reading.max_bad_fraction)
    return [row for row in rows if row is not None]


def csv_rows(file: Path, reading: Reading) -> Iterator[tuple[Row | None, Fault | None]]:
    """Yields the rows of a CSV file, or None and a fault."""
    table = Csv(str(file), reading)
    for records in table.records():
        for number, fields in records:
            reason = fields if isinstance(fields, str) else undecodable(fields)
            if reason is None:
                yield dict(zip(table.columns, fields, strict=True)), None
            else:
                yield None, at_line(reason, number, file.name)


def json_rows(file: Path, reading: Reading) -> Iterator[tuple[Row | None, Fault | None]]:
    """Yields the rows of a file of JSON lines, or None and a fault; with a fault, too, where values are left out."""
    lines = [line for block in json_lines(str(file), reading) for line in block]
    types = settled(slow_votes_of(lines)).schema
    for number, line in lines:
        row, reason = loaded(line)
        for name, value in (row or {}).items():
            row[name], wrong = fitted(value, types.field(name).type)
            reason = reason or (wrong and f"{wrong}: (column {name!r})")
        yield row, None if reason is None else at_line(reason, number, file.name)
