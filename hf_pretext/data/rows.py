"""Reads rows by position: a source is a list of pieces, and any range of rows of a piece can be read.

    a datasets object, a sequence or an iterable -> pieces with row counts -> read(piece, start, stop) -> undecoded rows

Parquet row groups and members of tars are read directly from their files, so resuming in the middle reads only those
that are needed. Other streams are read from the start of a piece, and earlier rows are skipped.
"""

import copy
import gzip
import itertools
import lzma
import os
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from datasets import Audio, Dataset, Image, IterableDataset, Video

from ..utils.progress import progress
from .contents import Contents, File, files_of
from .remote import cached, digest, file_facts, is_remote, patiently, short_names

ENDLESS = 2**62  # row count of a source of unknown length
BLOCK = 256  # rows of a piece, if a source can be divided anywhere
KEPT_OPEN = 32  # default number of readers that stay open where they stopped
MEDIA = (Image, Audio, Video)
DAMAGE = (EOFError, ValueError, tarfile.TarError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


class BrokeOff(Exception):
    """A range contains a row that can't be read. rows: the rows before it. `__cause__`: the original error."""

    def __init__(self, rows: list[dict], cause: Exception):
        super().__init__(f"after {len(rows)} rows: {type(cause).__name__}: {cause}")
        self.rows = rows


def is_damage(error: Exception) -> bool:
    """Returns True if damaged content may have caused an error.

    Some network errors have the same types; `Rows.is_served` distinguishes them."""
    error = error.__cause__ if isinstance(error, BrokeOff) else error
    # pyarrow raises a plain OSError; network errors are of subclasses, or have an errno
    return isinstance(error, DAMAGE) or (type(error) is OSError and error.errno is None)


def broke_at(start: int, error: Exception) -> int:
    """Returns the index of the row at which reading from `start` failed."""
    return start + (len(error.rows) if isinstance(error, BrokeOff) else 0)


class Rows:
    """Rows of one source, divided into pieces. A subclass sets `counts` and implements either `open` or `read`.

    counts: number of rows of each piece. places: for each piece, the name of its file and the number of rows of the
    file before it. files: sizes of the files, `{name: bytes}`. contents: of the files, to notice changes. lost:
    `[(file, reason)]` of rows that can't be read.
    reads_from_start: True if a row in the middle of a piece requires reading the piece from its start. confirms_damage:
    True if reading raises an error of the content only after two reads gave the same bytes. piece: name of a piece in
    messages. stamp: a hash that changes with the content of the rows; None if only reading the rows can show
    a change. kept_open: number of readers that stay open where they stopped.
    """

    reads_from_start = False
    confirms_damage = False
    piece = "shard"
    stamp: str | None = None

    def __init__(
        self,
        columns: Mapping[str, str],
        counts: Sequence[int],
        places: Sequence[tuple[str, int]],
        files: Mapping[str, File] | None = None,
        remote: bool = False,
    ):
        """columns: `{canonical name: name in the data}`. remote: True if reading may fail temporarily."""
        self.remote = remote
        self.columns, self.counts, self.places = dict(columns), list(counts), list(places)
        self.files: dict[str, int] = {name: file.size for name, file in (files or {}).items()}
        self.contents = Contents(files or {})
        self.lost: list[tuple[str, str]] = []
        self.kept_open = KEPT_OPEN
        self._opened: OrderedDict[tuple[int, int], Iterator[dict]] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, piece: int, start: int) -> Iterator[dict]:
        """Yields the rows of a piece from `start` to its end."""
        raise NotImplementedError(f"{type(self).__name__} has no open(). Use read(piece, start, stop).")

    def url(self, piece: int) -> str | None:
        """Returns the path or URL of the file of a piece; None for pieces without a known file."""
        return None

    def is_served(self, piece: int) -> bool:
        """Returns True if the file of a piece has the size and stamp that it had when it was opened.

        A row that can't be read is then damage, not a network failure."""
        url = self.url(piece)
        file = next((file for file in self.contents.files.values() if file.path == url), None)
        try:
            return file is None or file_facts([url]) == [(file.size, file.stamp)]
        except Exception:  # each library raises other types
            return False

    def folder(self, piece: int, index: int) -> str | None:
        """Returns the folder from which relative paths in a row start; None if it is unknown."""
        url = self.url(piece)
        return None if url is None else os.path.dirname(url)

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        """Returns rows `start` to `stop` (exclusive) of a piece.

        Continues a reader that an earlier range of the piece left open. Raises `BrokeOff` for a row that can't be read.
        Subclasses that override `read` raise the original error."""
        with self._lock:
            behind = [at for owner, at in self._opened if owner == piece and at <= start]
            at = max(behind, default=None)
            rows = self._opened.pop((piece, at)) if behind else None
        result: list[dict] = []
        try:
            if rows is None:
                rows, at = self.open(piece, start), start
            for row in itertools.islice(rows, start - at, stop - at):
                result.append(row)
        except Exception as error:
            raise BrokeOff(result, error) from error
        if start + len(result) == stop < self.counts[piece]:
            with self._lock:
                self._opened[piece, stop] = rows
                while len(self._opened) > self.kept_open:
                    self._opened.popitem(last=False)
        return result

    def with_mark(self, mark: str) -> "Rows":
        """Returns a copy that reads the same rows and has another fingerprint and stamp. mark: what differs."""
        marked = copy.copy(self)
        marked.files = {**self.files, mark: 0}
        marked.stamp = None if self.stamp is None else digest([self.stamp, mark])
        return marked

    def close(self) -> None:
        """Closes the readers that stayed open where they stopped."""
        self._opened.clear()

    def fingerprint(self) -> dict:
        """Returns a description that differs between sources: files with sizes, number of rows, hash of the pieces."""
        files = self.files if len(self.files) <= 1000 else digest(sorted(self.files.items()))
        rows = None if self.counts == [ENDLESS] else sum(self.counts)
        return {"files": files, "rows": rows, "pieces": digest(self.counts)}

    def _renamed(self, row: Mapping) -> dict:
        return {canonical: row[column] for canonical, column in self.columns.items()}


class MapRows(Rows):
    """Rows of data with a length and an index: a `datasets.Dataset`, a list of dicts, a torch dataset of dicts."""

    def __init__(self, data: Sequence, columns: Mapping[str, str], name: str, files: Mapping[str, File] | None = None):
        firsts = range(0, len(data), BLOCK)
        counts = [min(BLOCK, len(data) - first) for first in firsts]
        super().__init__(columns, counts, [(name, first) for first in firsts], files)
        self.data, self.name = data, name
        self.stamp = getattr(data, "_fingerprint", None)  # of a datasets.Dataset
        if files is None and isinstance(data, Dataset):  # its files have no sizes in the fingerprint
            paths = list(dict.fromkeys(path for file in data.cache_files if os.path.exists(path := file["filename"])))
            self.contents = Contents(files_of(short_names(paths), paths, file_facts(paths)))

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        first = self.places[piece][1]
        numbers = range(first + start, first + stop)
        many = getattr(self.data, "__getitems__", None)
        rows = many(list(numbers)) if many is not None else [self.data[i] for i in numbers]
        return [self._renamed(row) for row in rows]


class StreamRows(Rows):
    """Rows of any other `IterableDataset`. A piece is a shard, read from its start; its rows are counted once."""

    reads_from_start = True

    def __init__(self, data: IterableDataset, columns: Mapping[str, str], name: str, made_by: str | None = None):
        """made_by: name of the reader and its configuration, on which the rows of a file depend; None if the row counts
        can't be cached."""
        self.data = data
        self.urls = shard_urls(data)
        # an error in a user's code must not be treated as a damaged file
        user_code = made_by is None
        self._damage = () if not self.urls else tuple(kind for kind in DAMAGE if not (user_code and kind is ValueError))
        shards, urls = data.num_shards, self.urls
        facts = file_facts(urls)
        self.stamp = digest([made_by, urls, facts]) if urls and made_by is not None else None
        names = short_names(urls) if urls else [f"{name}[{shard}]" for shard in range(shards)]
        files = files_of(names, urls, facts) if urls else None
        super().__init__(columns, [ENDLESS] * shards, [(n, 0) for n in names], files, any(map(is_remote, urls)))
        with progress(total=shards, description=f"counting the rows of {name}", unit="shard") as bar:

            def count(piece: int) -> np.ndarray:
                result = patiently(lambda: self._count(piece), bool(urls) and is_remote(urls[piece]))
                bar.update()
                return result

            if urls and made_by is not None:
                numbers = {url: piece for piece, url in enumerate(urls)}
                counted = cached(urls, facts, made_by, lambda url: count(numbers[url]))
            else:
                counted = [count(piece) for piece in range(shards)]
        self.counts = [int(rows) for rows, _ in counted]
        for (rows, cut), shard in zip(counted, names, strict=True):
            if cut:
                self.lost.append((shard, f"damaged or cut after {rows:,} rows: the rest is left out"))

    def url(self, piece: int) -> str | None:
        return self.urls[piece] if self.urls else None

    def open(self, piece: int, start: int) -> Iterator[dict]:
        shard = self.data.shard(num_shards=self.data.num_shards, index=piece)
        for row in shard.skip(start) if start else shard:
            yield self._renamed(row)

    def _count(self, piece: int) -> np.ndarray:
        """Returns the number of readable rows of a shard, and 1 if it is damaged or cut after them, else 0."""
        rows = 0
        try:
            for _ in self.open(piece, 0):
                rows += 1
        except self._damage:
            return np.array([rows, 1], np.int64)
        return np.array([rows, 0], np.int64)


class ReplayRows(Rows):
    """Rows of a plain iterable of dicts, which is iterated repeatedly.

    Its length is unknown, so it is a single piece without end. Resuming in the middle replays it from the start."""

    reads_from_start = True

    def __init__(self, data: Iterable[Mapping], columns: Mapping[str, str], name: str):
        super().__init__(columns, [ENDLESS], [(name, 0)])
        self.data = data

    def open(self, piece: int, start: int) -> Iterator[dict]:
        def rounds() -> Iterator[Mapping]:
            while True:
                empty = True
                for row in self.data:
                    empty = False
                    yield row
                if empty:
                    raise ValueError(
                        f"{self.places[0][0]} yields no rows. Give an iterable that yields its rows on every iteration."
                    )

        return map(self._renamed, itertools.islice(rounds(), start, None))


def undecoded(data: Dataset | IterableDataset, columns: Mapping[str, str]) -> Dataset | IterableDataset:
    """Returns the data with only these columns, and with images, sound and video undecoded, `{"bytes", "path"}`.

    Decoding inside `datasets` would end a stream at the first damaged value."""
    features = data.features
    data = data.with_format(None).select_columns(list(dict.fromkeys(columns.values())))
    for column in set(columns.values()):
        if isinstance(features[column], MEDIA):
            data = data.cast_column(column, type(features[column])(decode=False))
    return data


def shard_urls(data: IterableDataset) -> list[str]:
    """Returns the files of a stream's shards if each shard is one file, else `[]`."""
    source = data._ex_iterable
    while hasattr(source, "ex_iterable"):
        source = source.ex_iterable
    lists = [value for value in getattr(source, "kwargs", {}).values() if isinstance(value, list)]
    named = [value for value in lists if len(value) == data.num_shards and all(isinstance(v, str) for v in value)]
    return list(map(str, named[0])) if named else []


def size_of(value) -> int:
    """Returns the approximate size of a value in memory, in bytes."""
    if isinstance(value, (bytes, str)):
        return len(value) + 40
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values())) + 200
    if isinstance(value, (list, tuple)):
        return sum(map(size_of, value)) + 56
    return int(getattr(value, "nbytes", 32))
