"""Reads the captions and labels of images, sounds or videos from `metadata.csv` and `metadata.jsonl`.

media and metadata files -> one value per medium and column
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers.utils import logging

from .column_types import Fault, at_line, settled
from .csv_records import Csv
from .csv_rows import undecodable
from .folders import Folder
from .json_rows import fitted, json_lines, loaded, slow_votes_of
from .lines import CutOff, Reading
from .media_suffixes import NAMES, ONE
from .notes import Notes
from .table import check_reasons

Row = dict[str, Any]
log = logging.get_logger(__name__)


def metadata_columns(media: Sequence[str], kind: str, files: Sequence[str], folder: Folder) -> Notes:
    """Returns the columns of metadata files, with a value for each medium.

    The `file_name` in a metadata file is relative to the folder of the file. Raises `ValueError` for a metadata file
    without the column `file_name`, or one with too many unreadable rows, and for a column of different types in two
    files."""
    metadata: dict[str, Row] = {}  # by path below the folder
    read_from: dict[str, str] = {}
    repeated = []
    for file in files:
        rows = metadata_rows(Path(file), folder.reading)
        if rows and not any("file_name" in row for row in rows):
            raise ValueError(f"{file} has no column file_name. Add it, with the path of each row's {one(kind)}.")
        for row in rows:
            name = row.pop("file_name", None)
            if isinstance(name, str):
                path = os.path.normpath(os.path.join(os.path.dirname(folder.files[file]), name))
                path = folder.files.get(path, path) if os.path.isabs(path) else path
                repeated += [path] if path in metadata else []
                metadata[path], read_from[path] = row, file
    paths = [folder.files[medium] for medium in media]
    report(folder.name, paths, kind, metadata, repeated)
    names = dict.fromkeys(name for row in metadata.values() for name in row)
    columns = {name: [metadata.get(path, {}).get(name) for path in paths] for name in names}
    if len(files) > 1:
        check_types(columns, [read_from.get(path) for path in paths])
    return Notes(columns, list(files))


def check_types(columns: Mapping[str, Sequence], files: Sequence[str | None]) -> None:
    """Raises `ValueError` for a column whose values in two metadata files have no common type. files: of each row."""
    for name, values in columns.items():
        if is_array(values):
            continue
        by_file: dict[str, list] = {}
        for file, value in zip(files, values, strict=True):
            if value is not None:
                by_file.setdefault(file, []).append(value)
        for (file, some), (other, more) in combinations(by_file.items(), 2):
            if is_array(some) and is_array(more) and not is_array(some + more):
                raise ValueError(
                    f"The column {name!r} is {pa.array(some).type} in {file}, but {pa.array(more).type} in {other}. "
                    "Give it one type in all metadata files (values in .csv are texts)."
                )


def is_array(values: Sequence) -> bool:
    """Returns True if values have a common type."""
    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError):
        return False
    return True


def one(kind: str) -> str:
    """Returns the name of one medium: "image"."""
    return ONE[kind].split()[1]


def report(folder: str, paths: Sequence[str], kind: str, metadata: Mapping[str, dict], repeated: Sequence[str]) -> None:
    """Logs the number and three examples of metadata rows whose medium does not exist, of media without a row, and of
    rows of a medium that already has one."""
    media = set(paths)
    missing = [path for path in metadata if path not in media and not os.path.isfile(os.path.join(folder, path))]
    replaced = f"metadata rows name {ONE[kind]} of an earlier row, which they replace (several captions: use a list)"
    for what, some in (
        (f"of {len(metadata):,} metadata rows have no {one(kind)} (column file_name)", missing),
        (f"of {len(paths):,} {NAMES[kind]} have no metadata row", [path for path in paths if path not in metadata]),
        (replaced, repeated),
    ):
        if some:
            log.warning_once(f"{folder}: {len(some):,} {what}: {', '.join(some[:3])}{', ...' if len(some) > 3 else ''}")


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
