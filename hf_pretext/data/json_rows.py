"""Parses JSON files to Arrow tables. A line that can't be parsed, or a value of another type, becomes a fault.

lines -> votes on the types of columns, in a first pass -> Arrow tables with these types, in a second pass

pyarrow parses many lines at once. If it refuses them, the bad ones are searched by halving.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.json

from .column_types import FAULTS, JSON, Fault, Types, Votes, at_line, fault_array
from .lines import LONGEST, CutOff, Line, Reading, blocks_of, in_lists, lines_of

DEEPEST = 100  # levels of lists and dicts; pyarrow crashes at some ten thousands
BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')
BETWEEN = re.compile(r"[\s,\]]*")  # elements of a document
BOM = b"\xef\xbb\xbf"
REFUSED = (pa.ArrowException, UnicodeDecodeError)
PYTHON = {pa.string(): str, pa.bool_(): bool, pa.int64(): int, pa.float64(): (int, float)}


def json_lines(url: str, reading: Reading) -> Iterator[list[Line]]:
    """Yields the lines of a JSON file that are not blank. Elements of a list are numbered like lines.

    Raises as `lines_of` does."""
    blocks = lines_of(url, reading.encoding)
    block = next(blocks, [])
    if block and block[0][0] == 1:
        block[0] = (1, block[0][1].removeprefix(BOM))
    first = next((line for _, line in block if line.strip()), b"")
    if may_be_document(first):
        elements = elements_of(url, reading)
        try:
            start = [next(elements)]
        except (CutOff, StopIteration):  # damage in the first line
            start = []
        if start or first.startswith(b"["):
            yield from in_lists(enumerate(itertools.chain(start, elements), 1))
            return
    for lines in itertools.chain([block], blocks):
        if filled := [line for line in lines if line[1].strip()]:
            yield filled


def may_be_document(first: bytes) -> bool:
    """Returns True if a file with this first line may be a list, or objects of several lines."""
    text = first.decode(errors="replace").strip()
    try:
        return isinstance(json.loads(text), list) if text else False
    except json.JSONDecodeError as error:
        return text.startswith("[") or (text.startswith("{") and error.pos >= len(text))
    except (ValueError, RecursionError):
        return False


def elements_of(url: str, reading: Reading) -> Iterator[bytes]:
    """Yields the objects of a JSON file that is a list or has objects of several lines, each as one line.

    The file must fit in memory. A list of texts gives objects with the field "text". Raises `CutOff` at damage."""
    text = b"".join(blocks_of(url, reading.encoding)).removeprefix(BOM).decode(errors="surrogateescape").strip()
    decoder, number = json.JSONDecoder(), 0
    at = int(text.startswith("["))
    while (at := BETWEEN.match(text, at).end()) < len(text):
        number += 1
        try:
            element, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise CutOff(f"not JSON in element {number:,}: {error}") from error
        yield json.dumps({"text": element} if isinstance(element, str) else element).encode()


# first pass: types


def votes_of(lines: Sequence[Line]) -> Votes:
    """Returns the number of values of each type in each column."""
    try:
        table = parsed(lines)
    except REFUSED:
        return slow_votes_of(lines)
    return {
        name: Counter({column.type: len(column) - column.null_count, pa.null(): column.null_count})
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def slow_votes_of(lines: Sequence[Line]) -> Votes:
    """Returns the votes of lines of which some are bad, or have values of several types."""
    votes: Votes = {}
    for _, line in lines:
        for name, value in (loaded(line)[0] or {}).items():
            votes.setdefault(str_of(name), Counter())[type_of(value)] += 1
    return votes


def type_of(value) -> pa.DataType:
    """Returns the Arrow type of a value of JSON; null if it has none."""
    quick = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}.get(type(value))
    if quick is not None:
        return quick
    try:
        return pa.infer_type([value])
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        return pa.null()


def str_of(name: str) -> str:
    """Returns the name of a column without lone surrogates, which Arrow can't store."""
    return name.encode(errors="replace").decode()


# second pass: tables


def tables(lines: Sequence[Line], types: Types, name: str) -> Iterator[pa.Table]:
    """Yields tables of lines, with the columns of `types` and the hidden column of faults. name: of the file."""
    slow = [field.name for field in types.schema if field.name in types.mixed or field.type == JSON]
    fast = pa.schema([field for field in types.schema if field.name not in slow])
    for part, table in parts(lines, fast):
        if table is None:
            yield one_by_one(part, types.schema, name)
            continue
        rest = one_by_one(part, pa.schema([types.schema.field(column) for column in slow]), name) if slow else None
        columns = {**dict(zip(fast.names, table.columns, strict=True))}
        columns |= dict(zip(slow, rest.columns, strict=False)) if slow else {}
        columns[FAULTS] = rest[FAULTS] if slow else fault_array([()] * len(part))
        yield pa.table([columns[column] for column in (*types.schema.names, FAULTS)], [*types.schema.names, FAULTS])


def parts(lines: Sequence[Line], schema: pa.Schema) -> Iterator[tuple[Sequence[Line], pa.Table | None]]:
    """Yields parts of the lines with their tables; for a single line that can't be parsed, None as its table."""
    try:
        yield lines, parsed(lines, schema)
    except REFUSED:
        if len(lines) == 1:
            yield lines, None
            return
        middle = len(lines) // 2
        yield from parts(lines[:middle], schema)
        yield from parts(lines[middle:], schema)


def parsed(lines: Sequence[Line], schema: pa.Schema | None = None) -> pa.Table:
    """Returns a table with a row for each line. schema: its columns; default: all, with inferred types.

    Raises an error of `REFUSED` if any line is bad."""
    content = b"\n".join(line for _, line in lines)
    content.decode()  # pyarrow does not check it
    if any(is_deep(line) or len(line) > LONGEST for _, line in lines):
        raise pa.ArrowInvalid("nested too deep, or too long")
    table = pyarrow.json.read_json(
        pa.BufferReader(content),
        # one block and one thread: a line in two blocks is an error
        pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1),
        pyarrow.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
        ),
    )
    if len(table) != len(lines):
        raise pa.ArrowInvalid("several values in a line")
    return table if schema is None else table.select(schema.names)


def one_by_one(lines: Sequence[Line], schema: pa.Schema, name: str) -> pa.Table:
    """Returns a table of lines, parsed one by one, with the hidden column of faults."""
    rows, faults = [], []
    for number, line in lines:
        row, reason = loaded(line)
        faults.append([] if reason is None else [at_line(reason, number, name)])
        rows.append(row or {})
    columns = []
    for field in schema:
        values = []
        for (number, _), row, of_row in zip(lines, rows, faults, strict=True):
            value, reason = fitted(row.get(field.name), field.type)
            values.append(value)
            if reason:
                of_row.append(Fault(field.name, f"{reason}: column {field.name!r} in line {number:,} of {name}"))
        columns.append(array_of(values, field.type))
    return pa.table([*columns, fault_array(faults)], [*schema.names, FAULTS])


def array_of(values: Sequence, type_: pa.DataType) -> pa.Array:
    """Returns an Arrow array of values that `fitted` returned."""
    if type_ == JSON:
        return pa.ExtensionArray.from_storage(type_, pa.array(values, type_.storage_type))
    return pa.array(values, type_)


def fitted(value, type_: pa.DataType) -> tuple[Any, str | None]:
    """Returns a value of a column of this type and None; or None and the reason why the value can't be used."""
    if value is None or type_ == JSON:
        return value if value is None else json.dumps(value), None
    expected = PYTHON.get(type_)
    if expected is None or (isinstance(value, expected) and isinstance(value, bool) == (expected is bool)):
        try:
            if pa.types.is_timestamp(type_):
                return pa.scalar(value, pa.string()).cast(type_).as_py(), None
            pa.array([value], type_)
            return value, None
        except UnicodeEncodeError:
            return None, "text with half a surrogate pair"
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            pass
    return None, f"{type(value).__name__} instead of {type_}"


def loaded(line: bytes) -> tuple[dict | None, str | None]:
    """Returns the object in a line and None; or None and a reason, "kind: detail"."""
    if len(line) > LONGEST:
        return None, f"more than {LONGEST:,} bytes"
    if is_deep(line):
        return None, f"more than {DEEPEST} levels of lists and dicts"
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: (byte 0x{error.object[error.start]:02x})"
    except json.JSONDecodeError as error:
        return None, f"not JSON: ({error.msg}, column {error.colno})"
    except (ValueError, RecursionError) as error:  # a number with thousands of digits
        return None, f"not JSON: ({error})"
    return (value, None) if isinstance(value, dict) else (None, f"not a JSON object: (a {type(value).__name__})")


def is_deep(line: bytes) -> bool:
    """Returns True for a line of JSON with more than `DEEPEST` levels."""
    if line.count(b"[") + line.count(b"{") <= DEEPEST:
        return False
    depth = 0
    for match in BRACKETS.finditer(line):
        depth += (match[1] is not None) - (match[2] is not None)
        if depth > DEEPEST:
            return True
    return False
