"""Converts the records of CSV files to Arrow tables: numbers where all values are numbers, else texts.

records (lists of texts) -> votes on the types of columns, in a first pass -> Arrow tables, in a second pass
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from .column_types import FAULTS, Fault, Types, Votes, at_line, fault_array
from .csv_records import Csv, Record
from .lines import LONGEST, Line

TEXT = pa.large_string()
BOOLS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
MISSING = (  # words for a missing number, as in pandas; in a column of texts they are texts
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
SPACES = " \t"


class Part(NamedTuple):
    """Records of a CSV file. columns: texts, null for empty ones. faults: reasons of bad records by their index, and
    the lines where they begin; the texts of a bad record are null."""

    columns: list[pa.Array]
    faults: dict[int, tuple[int, str]]


def parts_of(file: Csv) -> Iterator[Part]:
    """Yields the records of a CSV file. Raises as `lines_of` does."""
    yield Part([pa.nulls(0, TEXT)] * len(file.columns), {})  # a file may have no records
    for part in file.records(partial(quick_part, file)):
        yield part if isinstance(part, Part) else part_of(part, len(file.columns))


def quick_part(file: Csv, block: Sequence[Line]) -> Part | None:
    """Returns the records of lines, parsed by pyarrow; None if it refuses some, or if records have several lines."""
    content = b"\n".join(line for _, line in block)
    names = list(map(str, range(file.fields)))
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=names),
            pyarrow.csv.ParseOptions(delimiter=file.separator, newlines_in_values=False),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, TEXT), null_values=[""], strings_can_be_null=True
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    filled = sum(bool(line.strip()) for _, line in block)
    if len(table) != filled or max(map(len, (line for _, line in block))) > LONGEST:
        return None
    return Part([column.combine_chunks() for column in table.columns[file.row_names :]], {})


def part_of(records: Sequence[Record], count: int) -> Part:
    """Returns records as a part. count: number of columns."""
    faults = {i: (line, fields) for i, (line, fields) in enumerate(records) if isinstance(fields, str)}
    rows = [[None] * count if isinstance(fields, str) else fields for _, fields in records]
    try:
        columns = arrays(rows)
    except UnicodeEncodeError:
        for i, fields in enumerate(rows):
            if i not in faults and (reason := undecodable(fields)) is not None:
                faults[i], rows[i] = (records[i][0], reason), [None] * count
        columns = arrays(rows)
    return Part(columns, faults)


def votes_of(part: Part, columns: Sequence[str]) -> Votes:
    """Returns for each column the type that fits all its values, with their number.

    The words of `MISSING` count as values of the type `binary`, empty values as null."""
    votes = {}
    for name, texts in zip(columns, part.columns, strict=True):
        filled = texts.drop_null()
        values = filled.filter(pc.invert(pc.is_in(filled, pa.array(MISSING, TEXT))))
        counts = {number_type(values): len(values), pa.binary(): len(filled) - len(values)}
        votes[name] = Counter({**counts, pa.null(): len(texts) - len(filled) - len(part.faults)})
    return votes


def number_type(values: pa.Array) -> pa.DataType:
    """Returns the type of texts that are all booleans or all numbers; else the type of texts, or null without texts."""
    if not len(values):
        return pa.null()
    if pc.all(pc.is_in(values, pa.array(list(BOOLS), TEXT))).as_py():
        return pa.bool_()
    trimmed = pc.utf8_trim(values, SPACES)
    for type_ in (pa.int64(), pa.float64()):
        try:
            pc.cast(trimmed, type_)
            return type_
        except pa.ArrowInvalid:
            pass
    return TEXT


def settled(votes: Votes) -> Types:
    """Returns the type of each column: of texts, unless all values are numbers or all are booleans."""
    fields = []
    for column, counts in votes.items():
        types = {type_ for type_, count in counts.items() if count} - {pa.null(), pa.binary()}
        missing = counts[pa.null()] + counts[pa.binary()]
        if types == {pa.int64(), pa.float64()} or (types == {pa.int64()} and missing):
            types = {pa.float64()}  # as in pandas
        empty = TEXT if counts[pa.binary()] else pa.float64()
        fields.append((column, TEXT if len(types) > 1 else next(iter(types), empty)))
    return Types(pa.schema(fields), frozenset())


def table_of(part: Part, columns: Sequence[str], types: Types, name: str) -> pa.Table:
    """Returns a table of records, with the columns of `types` and the hidden column of faults. name: of the file."""
    texts, count = dict(zip(columns, part.columns, strict=True)), len(part.columns[0])
    arrays = [
        typed(texts[field.name], field.type) if field.name in texts else pa.nulls(count, field.type)
        for field in types.schema
    ]
    faults: list[list[Fault]] = [[]] * count
    for i, (line, reason) in part.faults.items():
        faults[i] = [at_line(reason, line, name)]
    return pa.table([*arrays, fault_array(faults)], [*types.schema.names, FAULTS])


def arrays(rows: Sequence[Sequence[str | None]]) -> list[pa.Array]:
    """Returns the columns of rows as texts, null for empty ones. Raises `UnicodeEncodeError` for invalid bytes."""
    columns = [pa.array(column, TEXT) for column in zip(*rows, strict=True)]
    return [pc.if_else(pc.equal(column, ""), pa.scalar(None, TEXT), column) for column in columns]


def undecodable(fields: Sequence[str]) -> str | None:
    """Returns a reason if a record contains bytes that are not in the encoding of the file, else None."""
    text = "".join(fields)
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"not UTF-8: (byte 0x{ord(text[error.start]) & 0xFF:02x})"
    return None


def typed(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    """Returns texts as an array of a type of `settled`."""
    if type_ == TEXT:
        return texts
    words = pc.is_in(texts, pa.array(MISSING, TEXT))
    texts = pc.if_else(pc.fill_null(words, False), pa.scalar(None, TEXT), texts)
    if type_ == pa.bool_():
        return pa.array([None if text is None else BOOLS[text] for text in texts.to_pylist()], type_)
    return pc.cast(pc.utf8_trim(texts, SPACES), type_)
