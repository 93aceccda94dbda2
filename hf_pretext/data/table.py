"""Opens JSON lines, CSV, plain text and Arrow files as one table on disk, whatever is damaged in them.

files -> one Arrow file each, below HF_HOME, with a hidden column of faults -> rows; a row with a fault is unreadable

A bad line stays a row, so that the keys of all other rows do not change. A file that can't be read at all is left out.
"""

import errno
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from filelock import FileLock
from transformers.utils import logging

from ..utils.files import atomic_path
from ..utils.progress import progress
from .column_types import FAULTS, Fault, Types, fault_array, with_faults
from .contents import File, files_of
from .decoding import UNREADABLE
from .formats import FORMATS
from .lines import CutOff, Reading, has_blank_line
from .ranges import is_remote
from .remote import digest, file_facts, short_names
from .rows import MapRows, undecoded

VERSION = 1  # of the conversion; caches of other versions are not used
SHOWN = 5  # bad rows in an error
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
FIXES = {  # by the kind of a reason
    "not UTF-8": "Give the encoding with --encoding, for example cp1252. ",
    "bad CSV": "If fields are separated by another character, give it with --separator. ",
}
Lost = list[tuple[str, str]]
log = logging.get_logger(__name__)


class CacheError(ValueError):
    """The cache can't be written."""


class Table(NamedTuple):
    """Rows of files, on disk. data: with the hidden column of faults. ends: number of rows up to the end of each file.
    folders: of the files. stamp: changes with the files."""

    data: Dataset
    ends: list[int]
    folders: list[str]
    stamp: str

    @property
    def features(self) -> datasets.Features:
        """The features of the columns of the files."""
        return datasets.Features({name: kind for name, kind in self.data.features.items() if name != FAULTS})


class TableRows(MapRows):
    """Rows of a `Table`. A row with a fault, of the line or of the value of a column in use, is unreadable."""

    def __init__(self, table: Table, columns: Mapping[str, str], name: str, files: Mapping[str, File]):
        super().__init__(undecoded(table.data, {**columns, FAULTS: FAULTS}), columns, name, files)
        self.table, self.stamp = table, table.stamp

    def folder(self, piece: int, index: int) -> str | None:
        """Returns the folder of the file of a row."""
        row = self.places[piece][1] + index
        return self.table.folders[bisect_right(self.table.ends, row)]

    def _renamed(self, row: Mapping) -> dict:
        for fault in row[FAULTS] or ():
            if fault["column"] is None or fault["column"] in self.columns.values():
                return {UNREADABLE: fault["reason"]}
        return super()._renamed(row)


class Conversion:
    """Converts the files of one table, once each. lost: `{file: reason}` of files of which nothing can be read."""

    def __init__(self, urls: Sequence[str], format: str, name: str, reading: Reading):
        if format == "text" and reading.sample_by is None:
            blank = any(has_blank_line(url, reading.encoding) for url in urls)
            reading = replace(reading, sample_by="paragraph" if blank else "line")
        self.urls, self.name, self.reading, self.format = urls, name, reading, FORMATS[format]
        self.facts, self.names = file_facts(urls), short_names(urls)
        self.how = [format, reading.sample_by, reading.encoding, reading.separator, VERSION]
        self.lost: dict[str, str] = {}

    def types(self) -> Types:
        """Returns the types of the columns of all files. Raises `ValueError` if too many files are lost."""
        paths = self._each(lambda url, name, path: path.write_bytes(self.format.summary(url, self.reading)), self.how)
        check_lost(self.lost, self.names, self.name, self.reading.max_bad_fraction)
        return self.format.types([path.read_bytes() for path in paths.values()])

    def table(self, types: Types) -> Table:
        """Returns the rows of all files with these types. Raises `ValueError` if too many files are lost."""

        def convert(url: str, name: str, path: Path) -> None:
            write(self.format.tables(url, self.reading, types, name), types, path, name)

        how = [*self.how, types.schema.serialize().to_pybytes().hex(), sorted(types.mixed)]
        paths = self._each(convert, how)
        check_lost(self.lost, self.names, self.name, self.reading.max_bad_fraction)
        parts = [Dataset.from_file(str(path)) for path in paths.values()]
        folders = [os.path.dirname(url) for url, name in zip(self.urls, self.names, strict=True) if name in paths]
        data = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
        return Table(data, list(accumulate(map(len, parts))), folders, digest([self.urls, self.facts, how]))

    def _each(self, make: Callable[[str, str, Path], object], how: list) -> dict[str, Path]:
        """Returns the cached results of all files that are not lost, by name. make: writes one: `(url, name, path)`."""
        paths = {}
        files = list(zip(self.urls, self.names, self.facts, strict=True))
        for url, name, fact in progress(files, f"reading {self.name}", unit="files"):
            if name not in self.lost:
                try:
                    paths[name] = stored([url, fact, how], lambda path, url=url, name=name: make(url, name, path))
                except CutOff as error:
                    self.lost[name] = str(error)
                except CacheError:
                    raise
                except OSError as error:
                    if is_remote(url):  # a server that fails is no damage: other ranks may have read the file
                        raise
                    self.lost[name] = f"unreadable: {error.strerror or error}"
                except (ValueError, pa.ArrowException) as error:  # damage that no reader has recognised
                    self.lost[name] = f"{type(error).__name__}: {error}"
        return paths


def open_table(urls: Sequence[str], format: str, name: str, reading: Reading) -> tuple[Table, dict[str, File], Lost]:
    """Returns the rows of files, the files by name, and those of which nothing can be read, with the reasons.

    format: a key of `FORMATS`. name: of the dataset. Raises `ValueError` if more files or rows are unreadable than
    `reading.max_bad_fraction`."""
    conversion = Conversion(urls, format, name, reading)
    table = conversion.table(conversion.types())
    check_faults(table.data, name, reading.max_bad_fraction)
    return table, files_of(conversion.names, urls, conversion.facts), list(conversion.lost.items())


def stored(key: list, make: Callable[[Path], object]) -> Path:
    """Returns a file below `HF_HOME`, and makes it if it does not exist. Of several processes, one makes it.

    make: writes the file. Raises its errors, and `CacheError` if the cache can't be written."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HOME) / "hf_pretext" / "tables"
    path = folder / f"{digest(key)}.arrow"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                with atomic_path(path) as temporary:
                    make(temporary)
    except OSError as error:
        if error.errno in FULL or str(error.filename or "").startswith(str(folder)):
            raise CacheError(
                f"The cache {folder} can't be written ({error.strerror}). Free some space, or set HF_HOME to a folder "
                "on another disk."
            ) from error
        raise
    return path


def write(tables: Iterator[pa.Table], types: Types, path: Path, name: str) -> None:
    """Writes the tables of a file as one Arrow file. A damage ends it with one row more, which has the reason.

    Raises `CutOff` for damage before the first row."""
    schema, rows = with_faults(types.schema), 0
    with open(path, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        try:
            for table in tables:
                writer.write_table(table.cast(schema).combine_chunks())
                rows += len(table)
        except CutOff as error:
            if not rows:
                raise
            nulls = [pa.nulls(1, field.type) for field in types.schema]
            fault = Fault(None, f"cut or damaged file: {name} after {rows:,} rows ({error})")
            writer.write_table(pa.table([*nulls, fault_array([[fault]])], [*types.schema.names, FAULTS]).cast(schema))


def check_lost(lost: Mapping[str, str], names: Sequence[str], dataset: str, most: float) -> None:
    """Raises `ValueError` if the share of lost files is above `most`, or if all are lost. names: of all files."""
    if lost and (len(lost) == len(names) or len(lost) > most * len(names)):
        raise ValueError(
            f"{dataset}: {len(lost):,} of {len(names):,} files can't be read: more than --max_bad_fraction {most}. "
            "Replace or remove them, or raise the option.\n"
            + "\n".join(f"  {name}: {reason}" for name, reason in list(lost.items())[:SHOWN])
        )


def check_faults(data: Dataset, name: str, most: float) -> None:
    """Checks the rows of a table that can't be read, as `check_reasons` does."""
    faults = pc.list_flatten(data.data.column(FAULTS))
    reasons = pc.struct_field(faults, "reason").filter(pc.is_null(pc.struct_field(faults, "column")))
    check_reasons(reasons.to_pylist(), len(data), name, most)


def check_reasons(reasons: Sequence[str], rows: int, name: str, most: float) -> None:
    """Warns of rows that can't be read. Raises `ValueError` if their share is above `most`.

    reasons: of the bad rows. rows: number of all rows."""
    if not reasons:
        return
    bad, shown = f"{name}: {len(reasons):,} of {rows:,} rows can't be read", reasons[:SHOWN]
    if len(reasons) <= most * rows:
        log.warning_once(f"{bad} and count as bad samples. The first: {shown[0]}.")
        return
    kinds = {reason.partition(":")[0] for reason in shown}
    fixes = "".join(fix for kind, fix in FIXES.items() if kind in kinds)
    raise ValueError(
        f"{bad}: more than --max_bad_fraction {most}. {fixes}Fix the files, or raise the option. The first are:\n"
        + "\n".join(f"  {reason}" for reason in shown)
    )
