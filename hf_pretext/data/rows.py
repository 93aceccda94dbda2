"""Rows by their place: a source is a list of pieces, and any range of a piece's rows can be read.

    a datasets object, a sequence or an iterable -> pieces with row counts -> read(piece, start, stop) -> undecoded rows

Parquet row groups and the members of a tar are read straight from their files, so that going on in the middle costs
the reading of what is needed; what can only be read from its start is skipped through.
"""

import gzip
import itertools
import lzma
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from datasets import Audio, Dataset, Image, IterableDataset, Video
from tqdm.auto import tqdm

from .remote import cached, digest, file_facts, is_remote, patiently, short_names, sizes_of

ENDLESS = 2**62  # rows of a source whose end nobody knows
BLOCK = 256  # rows of a piece, where a source can be cut anywhere
KEPT_OPEN = 32  # readers kept where they stopped, to go on from there, unless told otherwise
MEDIA = (Image, Audio, Video)
DAMAGE = (EOFError, ValueError, tarfile.TarError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


class BrokeOff(Exception):
    """Reading a range came to a row that can't be read, for the reason that is its cause. rows: those before it."""

    def __init__(self, rows: list[dict], cause: Exception):
        super().__init__(f"after {len(rows)} rows: {type(cause).__name__}: {cause}")
        self.rows = rows


def is_damage(error: Exception) -> bool:
    """Whether an error is one that damaged content causes. The network's own may look the same: ask the server."""
    error = error.__cause__ if isinstance(error, BrokeOff) else error
    # pyarrow says no more than OSError; those of the network are kinds of it, or have a number
    return isinstance(error, DAMAGE) or (type(error) is OSError and error.errno is None)


def broke_at(start: int, error: Exception) -> int:
    """The row where reading from `start` on came to an error."""
    return start + (len(error.rows) if isinstance(error, BrokeOff) else 0)


class Rows:
    """Rows of one source. A subclass says `counts` and either `open` (a piece's rows from one on) or `read`.

    counts: rows of each piece. places: the name of the file that each piece lies in, and how many of the file's rows
    come before it. files: what is known of the files, `{name: bytes}`. lost: `[(where, why)]` of what can't be read.
    reads_from_start: whether a piece can only be read from its start, also for a row in its middle. piece: what a piece
    is, where that matters to a user. stamp: what changes with the rows' content, None where only reading them shows it.
    """

    reads_from_start = False
    piece = "shard"
    stamp: str | None = None

    def __init__(
        self,
        columns: Mapping[str, str],
        counts: Sequence[int],
        places: Sequence[tuple[str, int]],
        files: Mapping[str, int] | None = None,
        remote: bool = False,
    ):
        """columns: `{canonical name: name in the data}`. remote: whether reading may fail for a while."""
        self.remote = remote
        self.columns, self.counts, self.places = dict(columns), list(counts), list(places)
        self.files: dict[str, int] = dict(files or {})
        self.lost: list[tuple[str, str]] = []
        self.kept_open = KEPT_OPEN
        self._opened: OrderedDict[tuple[int, int], Iterator[dict]] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, piece: int, start: int) -> Iterator[dict]:
        """The rows of a piece from `start` on."""
        raise NotImplementedError(f"{type(self).__name__} reads ranges.")

    def url(self, piece: int) -> str | None:
        """The file that a piece lies in, where there is one that can be reached by itself."""
        return None

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        """Rows `start` to `stop` (exclusive) of a piece. Goes on where an earlier range of the piece ended, if any.

        Raises `BrokeOff` where a piece that is read from its start breaks off; what else reads, whatever it raises."""
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

    def close(self) -> None:
        """Ends the readers that were kept where they stopped."""
        self._opened.clear()

    def fingerprint(self) -> dict:
        """What tells this source from another: files with their sizes, rows, how the rows are cut into pieces."""
        files = self.files if len(self.files) <= 1000 else digest(sorted(self.files.items()))
        rows = None if self.counts == [ENDLESS] else sum(self.counts)
        return {"files": files, "rows": rows, "pieces": digest(self.counts)}

    def _renamed(self, row: Mapping) -> dict:
        return {canonical: row[column] for canonical, column in self.columns.items()}


class MapRows(Rows):
    """Anything with a length and numbered rows: a `datasets.Dataset`, a list of dicts, a torch dataset of dicts."""

    def __init__(self, data: Sequence, columns: Mapping[str, str], name: str, files: Mapping[str, int] | None = None):
        firsts = range(0, len(data), BLOCK)
        counts = [min(BLOCK, len(data) - first) for first in firsts]
        super().__init__(columns, counts, [(name, first) for first in firsts], files)
        self.data, self.name = data, name
        self.stamp = getattr(data, "_fingerprint", None)  # of a datasets.Dataset

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        first = self.places[piece][1]
        numbers = range(first + start, first + stop)
        many = getattr(self.data, "__getitems__", None)
        rows = many(list(numbers)) if many is not None else [self.data[i] for i in numbers]
        return [self._renamed(row) for row in rows]


class StreamRows(Rows):
    """Whatever else `datasets` streams. A piece is a shard, which is read from its start; rows are counted once."""

    reads_from_start = True

    def __init__(self, data: IterableDataset, columns: Mapping[str, str], name: str, made_by: str | None = None):
        """made_by: what the rows of a file depend on beside the file, or None where counts can't be kept."""
        self.data = data
        self.urls = shard_urls(data)
        # what broke off in a user's own code must not pass for a file that ends there
        user_code = made_by is None
        self._damage = () if not self.urls else tuple(kind for kind in DAMAGE if not (user_code and kind is ValueError))
        shards, urls = data.num_shards, self.urls
        facts = file_facts(urls)
        self.stamp = digest([made_by, urls, facts]) if urls and made_by is not None else None
        names = short_names(urls) if urls else [f"{name}[{shard}]" for shard in range(shards)]
        files = sizes_of(names, facts) if urls else None
        super().__init__(columns, [ENDLESS] * shards, [(n, 0) for n in names], files, any(map(is_remote, urls)))
        with tqdm(total=shards, desc=f"counting the rows of {name}", unit="shard", leave=False) as bar:

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
        """Rows of a shard, and whether it broke off after them."""
        rows = 0
        try:
            for _ in self.open(piece, 0):
                rows += 1
        except self._damage:
            return np.array([rows, 1], np.int64)
        return np.array([rows, 0], np.int64)


class ReplayRows(Rows):
    """A plain iterable of dicts, gone through again and again. Nobody knows its length, so all of it is one piece, and
    going on from the middle means replaying it."""

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
                    raise ValueError(f"{self.places[0][0]} gave no row. An iterable must give its rows each time.")

        return map(self._renamed, itertools.islice(rounds(), start, None))


def undecoded(data: Dataset | IterableDataset, columns: Mapping[str, str]) -> Dataset | IterableDataset:
    """Only these columns, with pictures, sound and video left as `{"bytes", "path"}`: one bad one must not end a
    stream."""
    features = data.features
    data = data.with_format(None).select_columns(list(dict.fromkeys(columns.values())))
    for column in set(columns.values()):
        if isinstance(features[column], MEDIA):
            data = data.cast_column(column, type(features[column])(decode=False))
    return data


def shard_urls(data: IterableDataset) -> list[str]:
    """The files behind a stream's shards, one for each, where that is how it is cut."""
    source = data._ex_iterable
    while hasattr(source, "ex_iterable"):
        source = source.ex_iterable
    lists = [value for value in getattr(source, "kwargs", {}).values() if isinstance(value, list)]
    named = [value for value in lists if len(value) == data.num_shards and all(isinstance(v, str) for v in value)]
    return list(map(str, named[0])) if named else []


def size_of(value) -> int:
    """Bytes of a row's content."""
    if isinstance(value, (bytes, str)):
        return len(value) + 40
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values())) + 200
    if isinstance(value, (list, tuple)):
        return sum(map(size_of, value)) + 56
    return int(getattr(value, "nbytes", 32))
