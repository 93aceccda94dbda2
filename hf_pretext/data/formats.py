"""Converts JSON, CSV, plain text and Arrow files to Arrow tables, in two passes: first the types, then the rows.

file -> summary of its types -> types of all files -> tables, with a hidden column of the faults of each row
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from datasets import Features
from datasets.table import table_cast

from . import csv_rows, json_rows
from .column_types import FAULTS, Fault, Types, Votes, add_votes, at_line, dumped, fault_array, loaded_votes, settled
from .csv_records import Csv
from .lines import LONGEST, CutOff, Reading, texts_of


@dataclass(frozen=True)
class Format:
    """How the files of a format are converted.

    summary: `(url, reading)` -> the types of a file, serialised. types: summaries of all files -> types of the columns.
    tables: `(url, reading, types, name)` -> Arrow tables with these types and the hidden column of faults. All but
    `types` raise as `lines_of` does.
    """

    summary: Callable[[str, Reading], bytes]
    types: Callable[[Sequence[bytes]], Types]
    tables: Callable[[str, Reading, Types, str], Iterator[pa.Table]]


def tally(parts: Iterator[Votes]) -> bytes:
    """Returns the sum of votes, serialised. Raises `CutOff` only if nothing can be read."""
    votes: Votes = {}
    try:
        for part in parts:
            add_votes(votes, part)
    except CutOff:
        if not votes:
            raise
    return dumped(votes)


def total(summaries: Sequence[bytes]) -> Votes:
    """Returns the sum of the votes of all files."""
    votes: Votes = {}
    for summary in summaries:
        add_votes(votes, loaded_votes(summary))
    return votes


# JSON


def json_summary(url: str, reading: Reading) -> bytes:
    """Returns the types of a JSON file."""
    return tally(map(json_rows.votes_of, json_rows.json_lines(url, reading)))


def json_tables(url: str, reading: Reading, types: Types, name: str) -> Iterator[pa.Table]:
    """Yields the tables of a JSON file."""
    for lines in json_rows.json_lines(url, reading):
        yield pa.concat_tables(json_rows.tables(lines, types, name))


# CSV


def csv_summary(url: str, reading: Reading) -> bytes:
    """Returns the types of a CSV file."""
    file = Csv(url, reading)
    return tally(csv_rows.votes_of(part, file.columns) for part in csv_rows.parts_of(file))


def csv_tables(url: str, reading: Reading, types: Types, name: str) -> Iterator[pa.Table]:
    """Yields the tables of a CSV file."""
    file = Csv(url, reading)
    for part in csv_rows.parts_of(file):
        if file.columns:
            yield csv_rows.table_of(part, file.columns, types, name)


# plain text


def text_summary(url: str, reading: Reading) -> bytes:
    """Returns the type of plain text."""
    return dumped({"text": Counter({pa.string(): 1})})


def text_tables(url: str, reading: Reading, types: Types, name: str) -> Iterator[pa.Table]:
    """Yields the tables of a plain text file."""
    for lines in texts_of(url, reading.sample_by, reading.encoding):
        texts, faults = [], []
        for number, line in lines:
            text, reason = decoded(line, LONGEST if reading.sample_by != "document" else len(line))
            texts.append(text)
            faults.append([] if reason is None else [at_line(reason, number, name)])
        yield pa.table([pa.array(texts, pa.string()), fault_array(faults)], ["text", FAULTS])


def decoded(line: bytes, longest: int) -> tuple[str | None, str | None]:
    """Returns the text of a line and None; or None and the reason why it can't be used."""
    if len(line) > longest:
        return None, f"more than {longest:,} bytes"
    try:
        return line.decode(), None
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: (byte 0x{line[error.start]:02x})"


# Arrow


def arrow_summary(url: str, reading: Reading) -> bytes:
    """Returns the schema of an Arrow file."""
    with pa.memory_map(url) as file:
        return opened(file).schema.serialize().to_pybytes()


def first_schema(summaries: Sequence[bytes]) -> Types:
    """Returns the types of the first file, with the features of `datasets` if it has them."""
    schema = pa.ipc.read_schema(pa.py_buffer(summaries[0]))
    return Types(Features.from_arrow_schema(schema).arrow_schema, frozenset())


def arrow_tables(url: str, reading: Reading, types: Types, name: str) -> Iterator[pa.Table]:
    """Yields the batches of an Arrow file. The rows of a damaged batch are bad."""
    with pa.memory_map(url) as file:
        for number, batch in enumerate(batches_of(file), 1):
            try:
                batch.validate(full=True)
                table = table_cast(pa.Table.from_batches([batch]), types.schema)
                faults: list[Fault] = []
            except (ValueError, TypeError, KeyError, NotImplementedError) as error:  # of pyarrow and datasets
                table = pa.table([pa.nulls(len(batch), field.type) for field in types.schema], types.schema)
                faults = [Fault(None, f"damaged Arrow: batch {number:,} of {name} ({str(error)[:200]})")]
            yield pa.table([*table.columns, fault_array([faults] * len(batch))], [*types.schema.names, FAULTS])


def opened(file: pa.MemoryMappedFile) -> pa.RecordBatchReader:
    """Opens an Arrow file in the stream format or the file format. Raises `CutOff` if it is neither."""
    try:
        return pa.ipc.open_stream(file)
    except (OSError, pa.ArrowInvalid):
        file.seek(0)
    try:
        return pa.ipc.open_file(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise CutOff(f"not an Arrow file: {error}") from error


def batches_of(file: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    """Yields the batches of an Arrow file. Raises `CutOff` at the first that can't be read."""
    reader = opened(file)
    try:
        if isinstance(reader, pa.RecordBatchStreamReader):
            yield from reader
        else:
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    except (OSError, pa.ArrowInvalid) as error:
        raise CutOff(f"cut or damaged: {error}") from error


FORMATS = {
    "json": Format(json_summary, lambda summaries: settled(total(summaries)), json_tables),
    "csv": Format(csv_summary, lambda summaries: csv_rows.settled(total(summaries)), csv_tables),
    "text": Format(text_summary, lambda summaries: settled(total(summaries)), text_tables),
    "arrow": Format(arrow_summary, first_schema, arrow_tables),
}
