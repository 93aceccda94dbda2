"""Types of the columns of text files, by a vote of their values, and the faults of rows that can't be used.

{column: {type: values}} of each file -> one schema for all files
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
from datasets import Features, Json

FAULTS = "hf_pretext.faults"  # hidden column: the faults of a row; None for a good row
FAULTS_TYPE = pa.list_(pa.struct([("column", pa.string()), ("reason", pa.string())]))
MOST_FIELDS = 256  # of a dict; above, it is stored as JSON
JSON = Json().pa_type
Votes = dict[str, Counter[pa.DataType]]


class Fault(NamedTuple):
    """What makes a row bad. column: the column whose value can't be used; None if the row can't be read."""

    column: str | None
    reason: str


class Types(NamedTuple):
    """Types of the columns. mixed: columns with values of other types, too."""

    schema: pa.Schema
    mixed: frozenset[str]


def at_line(reason: str, line: int, name: str) -> Fault:
    """Returns the fault of a row that can't be read. reason: "kind: detail". name: of the file."""
    kind, _, detail = reason.partition(": ")
    return Fault(None, f"{kind}: line {line:,} of {name} {detail}".rstrip())


def add_votes(votes: Votes, more: Mapping[str, Mapping[pa.DataType, int]]) -> None:
    """Adds the votes of a further part of the data. Columns whose names Arrow can't store are left out."""
    for column, counts in more.items():
        if "\0" not in column and column != FAULTS:
            votes.setdefault(column, Counter()).update(counts)


def settled(votes: Votes) -> Types:
    """Returns the type of each column: the one that fits most of its values."""
    fields, mixed = [], set()
    for column, counts in votes.items():
        groups: list[tuple[pa.DataType, int]] = []
        for type_, count in counts.items():
            if pa.types.is_null(type_):
                continue
            for i, (known, votes_of_known) in enumerate(groups):
                if (common := common_type(known, type_)) is not None:
                    groups[i] = (JSON if fields_in(common) > MOST_FIELDS else common, votes_of_known + count)
                    break
            else:
                groups.append((JSON if fields_in(type_) > MOST_FIELDS else type_, count))
        winner = max(groups, key=lambda group: group[1], default=(pa.null(), 0))[0]
        if winner != JSON and len(groups) > 1:
            mixed.add(column)
        fields.append((column, winner))
    return Types(pa.schema(fields), frozenset(mixed))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Returns a type that fits the values of two types; None if there is none."""
    if one == JSON:  # dicts of very many fields
        return JSON if pa.types.is_struct(other) or pa.types.is_list(other) else None
    if {True, False} == {pa.types.is_timestamp(one), pa.types.is_timestamp(other)}:  # texts that look like dates
        return next((type_ for type_ in (one, other) if is_string(type_)), None)
    schemas = [pa.schema([("", type_)]) for type_ in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").types[0]
    except pa.ArrowException:
        return None


def is_string(type_: pa.DataType) -> bool:
    """Returns True for the type of texts."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def fields_in(type_: pa.DataType) -> int:
    """Returns the number of fields of all structs in a type."""
    if type_ == JSON:
        return 0
    inner = [type_.field(i).type for i in range(type_.num_fields)]
    return (len(inner) if pa.types.is_struct(type_) else 0) + sum(map(fields_in, inner))


def with_faults(schema: pa.Schema) -> pa.Schema:
    """Returns a schema with the hidden column of faults, and with the features of `datasets` in its metadata."""
    schema = schema.append(pa.field(FAULTS, FAULTS_TYPE))
    features = {field.name: Json() for field in schema if field.type == JSON}
    return Features({**Features.from_arrow_schema(schema), **features}).arrow_schema


def fault_array(faults: Iterable[Sequence[Fault]]) -> pa.Array:
    """Returns the hidden column. faults: of each row; empty for a good row."""
    return pa.array([[fault._asdict() for fault in some] or None for some in faults], FAULTS_TYPE)


def dumped(votes: Votes) -> bytes:
    """Serialises votes. `loaded_votes` reads them."""
    types = list(dict.fromkeys(type_ for counts in votes.values() for type_ in counts))
    numbers = {type_: i for i, type_ in enumerate(types)}
    names = {
        column: {str(numbers[type_]): count for type_, count in counts.items()} for column, counts in votes.items()
    }
    return pa.schema([(str(i), type_) for i, type_ in enumerate(types)], {"votes": json.dumps(names)}).serialize()


def loaded_votes(content: bytes) -> Votes:
    """Returns the votes in the bytes of `dumped`."""
    schema = pa.ipc.read_schema(pa.py_buffer(content))
    names = json.loads((schema.metadata or {})[b"votes"])
    return {
        column: Counter({schema.field(int(i)).type: count for i, count in counts.items()})
        for column, counts in names.items()
    }
