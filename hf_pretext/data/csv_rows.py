"""Converts the records of CSV files to Arrow tables: numbers where all values are numbers, else texts.

records (lists of texts) -> votes on the types of columns, in a first pass -> Arrow tables, in a second pass
"""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from .column_types import FAULTS, Types, Votes, at_line, fault_array
from .csv_records import Record

TEXT = pa.large_string()
BOOLS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
MISSING = (  # words for a missing number, as in pandas; in a column of texts they are texts
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
SPACES = " \t"


def votes_of(records: Sequence[Record], columns: Sequence[str]) -> Votes:
    """Returns for each column the type that fits all its values, with their number.

    The words of `MISSING` count as values of the type `binary`, empty values as null."""
    votes = {}
    parsed, reasons = text_columns(records, len(columns))
    good = pa.array([reason is None for reason in reasons], pa.bool_())
    for name, texts in zip(columns, parsed, strict=True):
        texts = texts.filter(good)
        filled = texts.drop_null()
        words = pc.is_in(filled, pa.array(MISSING, TEXT))
        values = filled.filter(pc.invert(words))
        counts = {number_type(values): len(values), pa.binary(): len(filled) - len(values)}
        votes[name] = Counter({**counts, pa.null(): len(texts) - len(filled)})
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


def table_of(records: Sequence[Record], columns: Sequence[str], types: Types, name: str) -> pa.Table:
    """Returns a table of records, with the columns of `types` and the hidden column of faults. name: of the file."""
    parsed, reasons = text_columns(records, len(columns))
    texts = dict(zip(columns, parsed, strict=True))
    arrays = [
        typed(texts[field.name], field.type) if field.name in texts else pa.nulls(len(records), field.type)
        for field in types.schema
    ]
    faults = [
        [] if reason is None else [at_line(reason, line, name)]
        for (line, _), reason in zip(records, reasons, strict=True)
    ]
    return pa.table([*arrays, fault_array(faults)], [*types.schema.names, FAULTS])


def text_columns(records: Sequence[Record], count: int) -> tuple[list[pa.Array], list[str | None]]:
    """Returns the columns as texts, null for empty ones, and for each record the reason why it is bad, or None.

    All texts of a bad record are null."""
    reasons: list[str | None] = []
    rows = []
    for _, fields in records:
        reason = fields if isinstance(fields, str) else undecodable(fields)
        reasons.append(reason)
        rows.append([None] * count if reason is not None else fields)
    columns = [pa.array(column, TEXT) for column in zip(*rows, strict=True)] or [pa.nulls(0, TEXT)] * count
    return [pc.if_else(pc.equal(column, ""), pa.scalar(None, TEXT), column) for column in columns], reasons


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
