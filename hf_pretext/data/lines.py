"""Reads the lines of text files, compressed or not, in constant memory; damage ends a file early.

a .jsonl, .csv or .txt file -> blocks of UTF-8 bytes -> lists of numbered lines, paragraphs or documents
"""

import bz2
import codecs
import gzip
import itertools
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..utils.paths import suffix_of, without_query
from .ranges import is_network, is_remote
from .remote import open_file
from .rows import DAMAGE

BLOCK = 2**22  # bytes read at once
AT_ONCE = 10_000  # items of a list
LONGEST = 2**28  # bytes of a line or paragraph; a longer one is a bad row
LONGEST_DOCUMENT = 2**31 - 2  # bytes of a text in Arrow
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSION = {*OPENERS, ".zst"}
Line = tuple[int, bytes]  # number in the file, from 1, and UTF-8 bytes without the line break
ITEM = TypeVar("ITEM")
KEEP = "hf_pretext.keep"  # name of an error handler of `codecs`


@dataclass(frozen=True)
class Reading:
    """How files are read.

    sample_by: unit of a row of plain text: line, paragraph or document; None: paragraph if a file has a blank line,
    else line. encoding, separator: of text files and CSV files; None: UTF-8 (UTF-16 with a byte order mark), and comma,
    semicolon or tab. max_bad_fraction: largest share of files, and of rows, that may be unreadable."""

    sample_by: str | None = None
    encoding: str | None = None
    separator: str | None = None
    max_bad_fraction: float = 0.05

    def __post_init__(self):
        """Raises `ValueError` for an unknown encoding, or a separator of several characters."""
        try:
            b"a".decode(self.encoding or "utf-8", "replace")
            utf_8 = self.encoding is None or codecs.lookup(self.encoding).name == "utf-8"
        except LookupError:  # unknown, or not of texts, as rot13
            raise ValueError(
                f"--encoding {self.encoding} is unknown. Give an encoding of Python, for example utf-8, cp1252 or gbk."
            ) from None
        object.__setattr__(self, "encoding", None if utf_8 else self.encoding)
        separator = {"tab": "\t", "\\t": "\t"}.get(self.separator, self.separator)
        if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
            raise ValueError(f"--separator {self.separator!r} must be one character, for example , or ; or tab.")
        object.__setattr__(self, "separator", separator)


class CutOff(Exception):
    """A file is damaged or cut; the message is the reason."""


def in_lists(items: Iterator[ITEM]) -> Iterator[list[ITEM]]:
    """Yields items in lists of at most `AT_ONCE`. Raises `CutOff` as `items` does, after the items before it."""
    cut = None
    while cut is None:
        some: list[ITEM] = []
        try:
            for item in itertools.islice(items, AT_ONCE):
                some.append(item)
        except CutOff as error:
            cut = error
        if not some:
            break
        yield some
    if cut is not None:
        raise cut


def kind_of(file: str | Path) -> str:
    """Returns the lowercase suffix of a file, without the suffix of its compression."""
    suffix = suffix_of(str(file))
    inner = suffix_of(without_query(str(file))[: -len(suffix)]) if suffix in COMPRESSION else ""
    return inner or suffix


def as_surrogates(error: UnicodeError) -> tuple[str, int]:
    """Error handler of `codecs`: invalid bytes become lone surrogates, so that their row is recognised as bad."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(KEEP, as_surrogates)


def blocks_of(url: str, encoding: str | None = None) -> Iterator[bytes]:
    """Yields the decompressed content of a file as UTF-8, in blocks of about `BLOCK` bytes. Invalid bytes stay invalid.

    Raises `CutOff` after the last block that can be read, and `OSError` for a file that can't be opened."""
    decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)(KEEP)
    first = True
    for block in raw_blocks(url):
        if first and encoding is None and block.startswith(UTF_16):
            decoder = codecs.getincrementaldecoder("utf-16")(KEEP)
        first = False
        yield block if decoder is None else decoder.decode(block).encode("utf-8", "surrogatepass")
    if decoder is not None and (rest := decoder.decode(b"", final=True)):
        yield rest.encode("utf-8", "surrogatepass")


def raw_blocks(url: str) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file. Raises as `blocks_of` does."""
    with open_file(url, through=True) as raw, decompressed(raw, url) as file:
        while True:
            try:
                # unlike read, read1 returns the bytes before a damage
                block = file.read1(BLOCK)
            except (*DAMAGE, OSError) as error:
                if isinstance(error, OSError) and (error.errno is not None or is_network(error)):  # no damage
                    raise
                raise CutOff(f"cut or damaged: {type(error).__name__}: {error}") from error
            if not block:
                return
            yield block


def decompressed(raw, url: str):
    """Returns a file that reads the decompressed content of `raw`, by the suffix of its name."""
    suffix = Path(without_query(url)).suffix.lower()
    if suffix == ".zst":
        import pyarrow as pa

        return pa.input_stream(raw, compression="zstd")
    return OPENERS[suffix](raw) if suffix in OPENERS else raw


def lines_of(url: str, encoding: str | None = None, universal: bool = False) -> Iterator[list[Line]]:
    r"""Yields the lines of a file in lists, without line breaks.

    universal: "\r" and "\r\n" end a line, too; else only "\n" does. Of a line longer than `LONGEST` bytes, only its
    beginning, which is longer too. Raises as `blocks_of` does; the incomplete line before a damage is not yielded."""
    number, pending = 1, b""
    blocks = blocks_of(url, encoding)
    for block in translated(blocks) if universal else blocks:
        lines = (pending + block).split(b"\n")
        pending = lines.pop()[: LONGEST + 1]
        if lines:
            yield list(enumerate(lines, number))
            number += len(lines)
    if pending:
        yield [(number, pending)]


def translated(blocks: Iterator[bytes]) -> Iterator[bytes]:
    r"""Yields blocks with "\n" in place of "\r\n" and "\r"."""
    held = b""  # a "\r" at the end of a block, which may belong to "\r\n"
    for block in blocks:
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        block = block[: len(block) - len(held)]
        yield block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
    if held:
        yield b"\n"


def texts_of(url: str, sample_by: str, encoding: str | None = None) -> Iterator[list[Line]]:
    """Yields the lines, paragraphs or the document of a plain text file with the number of their first line.

    Paragraphs are separated by empty lines. Raises as `blocks_of` does."""
    if sample_by == "line":
        yield from lines_of(url, encoding, universal=True)
    elif sample_by == "paragraph":
        yield from paragraphs_of(url, encoding)
    else:
        document, room = [], LONGEST_DOCUMENT
        for block in translated(blocks_of(url, encoding)):
            document.append(block)
            room -= len(block)
            if room < 0:
                raise CutOff(f"a document of more than {LONGEST_DOCUMENT:,} bytes: give --sample_by paragraph or line")
        yield [(1, b"".join(document))]


def paragraphs_of(url: str, encoding: str | None) -> Iterator[list[Line]]:
    """Yields the paragraphs of a plain text file with the number of their first line. Raises as `blocks_of` does."""
    number, pending = 1, b""
    for block in translated(blocks_of(url, encoding)):
        *complete, rest = (pending + block).split(b"\n\n")
        paragraphs = []
        for paragraph in complete:
            if paragraph:
                paragraphs.append((number, paragraph))
            number += paragraph.count(b"\n") + 2
        pending = rest[: LONGEST + 1]
        if paragraphs:
            yield paragraphs
    if pending:
        yield [(number, pending)]


def has_blank_line(file: str, encoding: str | None = None) -> bool:
    """Returns True if a plain text file, compressed or not, has an empty line between two lines of text.

    Raises `OSError` for a remote file that can't be reached."""

    def lines() -> Iterator[str]:
        try:
            for some in lines_of(file, encoding, universal=True):
                yield from (line.decode(errors="replace") for _, line in some)
        except CutOff:  # reported when the rows are read
            return
        except OSError:
            if is_remote(file):
                raise

    text = itertools.dropwhile(lambda line: not line.strip(), lines())
    return any(line.strip() for line in itertools.dropwhile(bool, text))
