"""Reads the records of CSV files. A line that can't be read becomes a reason, and the next line is read normally.

lines of a CSV file -> names of the columns -> records (lists of texts) with their line numbers
"""

import csv
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .lines import BLOCK, LONGEST, Line, Reading, in_lists, kind_of, lines_of

SEPARATORS = {".csv": (",", ";", "\t"), ".tsv": ("\t", ",", ";")}  # the first is the default
SNIFFED = 100  # lines that decide the separator
MOST_LINES = 10_000  # lines of a record, so that an open quote does not swallow the rest
Record = tuple[int, list[str] | str]  # number of its first line; its fields, or the reason why it can't be read
csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than long texts have


class Csv:
    """A CSV file. columns: their names. separator: the character between fields."""

    def __init__(self, url: str, reading: Reading):
        """Raises as `lines_of` does."""
        self.url, self.encoding, self.universal = url, reading.encoding, False
        first = self._first_lines()
        if first and b"\r" in first[0][1].removesuffix(b"\r"):  # lines that end with "\r" only
            self.universal = True
            first = self._first_lines()
        self.separator = reading.separator or separator_of(first, SEPARATORS[kind_of(url)])
        names, *others = [fields for _, fields in careful_records(Lines([], first), self.separator)] or [[]]
        rows = [fields for fields in others if isinstance(fields, list)]
        one_more = len(rows) > 1 and len(names) > 1 and all(len(fields) == len(names) + 1 for fields in rows)
        trailing = one_more and not any(fields[-1] for fields in rows)  # a separator at the end of each line
        names = [*names, ""] if trailing else names
        self.row_names = one_more and not trailing  # as R writes them, without a name in the header
        self.columns = distinct(names if isinstance(names, list) else [names])
        self.fields = len(self.columns) + self.row_names

    def records(self, quick: Callable[[list[Line]], Any] | None = None) -> Iterator[list[Record] | Any]:
        """Yields the records below the header in lists. Raises as `lines_of` does, after the last complete record.

        quick: takes a block of lines and returns its records in any form, which is yielded as it is; or None if some
        are bad or have several lines."""
        lines = Lines(self._lines())
        lines.put_back(lines.block())
        next(careful_records(lines, self.separator), None)  # the header
        while block := lines.block():
            if quick is not None and (parsed := quick(block)) is not None:
                yield parsed
                continue
            lines.put_back(block)
            records = careful_records(lines, self.separator, block[-1][0])
            yield from in_lists((line, self._checked(fields)) for line, fields in records)

    def _checked(self, fields: list[str] | str) -> list[str] | str:
        if isinstance(fields, list) and len(fields) != self.fields:
            return f"bad CSV: {len(fields)} fields, the header has {len(self.columns)} (separator {self.separator!r})"
        return fields[self.row_names :] if isinstance(fields, list) else fields

    def _lines(self) -> Iterator[list[Line]]:
        return lines_of(self.url, self.encoding, self.universal)

    def _first_lines(self) -> list[Line]:
        return next(self._lines(), [])[:SNIFFED]


class Lines:
    """Iterator over the lines of blocks, which takes lines back. waiting: the next lines."""

    def __init__(self, blocks: Iterable[list[Line]], waiting: Sequence[Line] = ()):
        self.blocks, self.waiting = iter(blocks), deque(waiting)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> Line:
        if not self.waiting:
            self.waiting.extend(next(self.blocks))
        return self.waiting.popleft()

    def block(self) -> list[Line]:
        """Returns the rest of a block, or the next block; `[]` at the end."""
        block = list(self.waiting) or next(self.blocks, [])
        self.waiting.clear()
        return block

    def put_back(self, lines: Sequence[Line]) -> None:
        """The next lines will be these."""
        self.waiting.extendleft(reversed(lines))


def careful_records(lines: Lines, separator: str, last: float = math.inf) -> Iterator[Record]:
    """Yields the records that begin in the waiting lines, up to the line `last`. Blank lines are left out."""
    padding = " \t\r".replace(separator, "")
    while lines.waiting and lines.waiting[0][0] <= last:
        number, content = next(lines)
        text = content.decode(errors="surrogateescape")
        if number == 1:
            text = text.removeprefix("\ufeff")
        if not text.strip(padding):
            continue
        if len(content) > LONGEST:
            yield number, f"more than {LONGEST:,} bytes"
        elif '"' not in text:
            yield number, text.removesuffix("\r").split(separator)
        else:
            yield number, quoted(text, lines, separator)


def quoted(text: str, lines: Lines, separator: str) -> list[str] | str:
    """Returns the fields of a record with quotes, which may continue on the next lines, or the reason if it is bad.

    After a quote that is not closed, the next lines stay in `lines`."""
    used: list[Line] = []

    def feed() -> Iterator[str]:
        yield text + "\n"
        size = len(text)
        while len(used) < MOST_LINES and size < BLOCK and (line := next(lines, None)) is not None:
            used.append(line)
            size += len(line[1])
            yield line[1].decode(errors="surrogateescape") + "\n"

    try:
        return next(csv.reader(feed(), delimiter=separator, strict=True))
    except csv.Error as error:
        lines.put_back(used)
        if used:
            return "bad CSV: a quote is not closed"
        reason = str(error)
    try:  # text after a closing quote is common
        return next(csv.reader([text], delimiter=separator))
    except csv.Error:
        return f"bad CSV: {reason}"


def separator_of(lines: Sequence[Line], candidates: Sequence[str]) -> str:
    """Returns the separator that all lines have equally often, at least once; else the only one that the header has;
    else the default, the first of the candidates."""
    in_header = []
    for separator in candidates:
        counts = [len(fields) for _, fields in careful_records(Lines([], lines), separator) if isinstance(fields, list)]
        if counts and counts[0] > 1:
            in_header.append(separator)
            if len(set(counts)) == 1:
                return separator
    return in_header[0] if len(in_header) == 1 else candidates[0]


def distinct(names: Sequence[str]) -> list[str]:
    """Returns distinct names of columns: "Unnamed: 0" for an empty one, "a.1" for a second "a", as pandas does."""
    seen: Counter[str] = Counter()
    result: dict[str, None] = {}
    for i, name in enumerate(names):
        name = name.encode(errors="replace").decode() or f"Unnamed: {i}"
        unique = name
        while unique in result:
            seen[name] += 1
            unique = f"{name}.{seen[name]}"
        result[unique] = None
    return list(result)
