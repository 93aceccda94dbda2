"""Reads any range of rows directly from Parquet files.

urls -> footers, one request each (cached on disk as one file) -> row groups -> rows

Resuming in the middle reads only the row groups that are needed. A remote row group is one request.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, IterableDataset

from ..utils.files import atomic_path
from ..utils.paths import without_query
from .contents import files_of
from .ranges import UNKNOWN, Answer, BadAnswer, Changed, Fact, RemoteFile, fetch, is_network, is_remote
from .remote import READ_AHEAD, digest, listed_facts, patiently, served_fact, short_names, side_by_side
from .rows import Rows

TAIL = 2**16  # bytes at the end of a file that are read first: most footers are shorter
CHECKED = 2  # files whose server is asked whether they are those of the cached index
# Readers stay open in the middle of a row group, so each must use little memory for row groups of any size
AT_ONCE = 16  # rows per read
LOCAL_BUFFER = 2**20  # bytes per column
# A remote row group of so many bytes is read at once and held while its reader is open (one for each part); a larger
# one is read in blocks of READ_AHEAD
AT_A_TIME = 2**25
GAP = 2**20  # bytes between two columns that are read too, to save a request
INDEX = pa.schema(
    {"size": pa.int64(), "stamp": pa.string(), "rows": pa.list_(pa.int64()), "footer": pa.large_binary()}
)  # a line for each file. footer: empty if it is damaged or cut


class ParquetFiles:
    """Parquet files, local or at any URL, and what their footers say.

    features: of the rows; by default as in the first footer. Raises `ValueError` if no footer can be read, and as
    `fetch` does."""

    def __init__(self, urls: Sequence[str], features: Features | None = None):
        self.urls = list(urls)
        facts = listed_facts(self.urls)
        self.cache = index_path(self.urls, facts)
        self.index = read_index(self.cache, self.urls, facts)
        if self.index is None:
            lines = side_by_side(indexed, self.urls, [fact or UNKNOWN for fact in facts])
            self.index = pa.Table.from_pylist(lines, INDEX)
            write_index(self.cache, self.index)
        if features is None:
            readable = next((i for i, rows in enumerate(self.index["rows"]) if rows.is_valid), None)
            if readable is None:
                raise ValueError(f"{without_query(self.urls[0])} is no Parquet file, or is damaged or cut.")
            features = Features.from_arrow_schema(self.metadata(readable).schema.to_arrow_schema())
        self.features = features

    def facts(self) -> list[Fact]:
        """Returns size and stamp of each file."""
        return list(zip(self.index["size"].to_pylist(), self.index["stamp"].to_pylist(), strict=True))

    @property
    def lost(self) -> dict[str, str]:
        """Files whose footer can't be read, with the reason."""
        readable = self.index["rows"].is_valid().to_pylist()
        names = zip(short_names(self.urls), readable, strict=True)
        return {name: "no Parquet file, or damaged or cut: its rows are left out" for name, fine in names if not fine}

    def metadata(self, number: int) -> pq.FileMetaData:
        """Returns the metadata of a file."""
        return pq.read_metadata(pa.BufferReader(self.index["footer"][number].as_buffer()))


def parquet_files(data: IterableDataset) -> ParquetFiles | None:
    """Returns the Parquet files of a stream without map or filter; None for any other stream."""
    kwargs = getattr(data._ex_iterable, "kwargs", {})
    builder = getattr(getattr(data._ex_iterable, "generate_tables_fn", None), "__self__", None)
    if "row_groups_list" not in kwargs or getattr(getattr(builder, "config", None), "filters", None):
        return None
    return ParquetFiles(list(map(str, kwargs["files"])), data.features)


class ParquetRows(Rows):
    """Rows of Parquet files. A piece is a row group; only the columns in use are read."""

    reads_from_start = True
    piece = "row group"
    confirms_damage = True

    def __init__(self, files: ParquetFiles, columns: Mapping[str, str]):
        urls, facts = files.urls, files.facts()
        self.stamp = digest([urls, facts])
        names, counts, places = short_names(urls), [], []
        self.groups: list[tuple[int, int]] = []  # file and row group of each piece
        for number, of_file in enumerate(files.index["rows"].to_pylist()):
            before = 0
            for group, count in enumerate(of_file or []):
                counts.append(count)
                places.append((names[number], before))
                self.groups.append((number, group))
                before += count
        super().__init__(columns, counts, places, files_of(names, urls, facts), any(map(is_remote, urls)))
        self.lost = list(files.lost.items())
        self.of_files, self.facts = files, facts
        self.metadata = lru_cache(256)(files.metadata)

    def url(self, piece: int) -> str:
        return self.of_files.urls[self.groups[piece][0]]

    def open(self, piece: int, start: int) -> Iterator[dict]:
        number, group = self.groups[piece]
        metadata, columns = self.metadata(number), list(self.columns.values())
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        for column in columns:
            if not any(belongs(path, column) for path in paths):
                raise ValueError(f"{self.places[piece][0]} has no column {column!r}")
        with forgotten_if_changed(self.of_files.cache), self._opened_file(number, group) as file:
            buffer = READ_AHEAD if isinstance(file, RemoteFile) else LOCAL_BUFFER
            with pq.ParquetFile(file, metadata=metadata, buffer_size=buffer) as parquet:
                batches = parquet.iter_batches(AT_ONCE, row_groups=[group], columns=columns, use_threads=False)
                while (batch := confirmed(batches, file)) is not None:
                    rows = batch.slice(start).to_pylist()[::-1]
                    start = max(start - len(batch), 0)
                    del batch
                    while rows:  # frees each row after it is yielded
                        yield self._renamed(rows.pop())

    def _opened_file(self, number: int, group: int):
        """Returns an opened file, of which the columns in use of a row group are read if it is remote."""
        url = self.of_files.urls[number]
        if not is_remote(url):
            return open(url, "rb")
        spans = spans_of(self.metadata(number).row_group(group), self.columns.values())
        return RemoteFile(url, self.facts[number], spans)


def confirmed(batches: Iterator, file):
    """Returns the next batch, None at the end. Raises the decoder's error, if a second read gives the same bytes."""
    try:
        return next(batches, None)
    except Exception as error:  # pyarrow raises many types
        if isinstance(file, RemoteFile) and not is_network(error):
            file.confirm()
        raise


@contextmanager
def forgotten_if_changed(cache: Path) -> Iterator[None]:
    """Deletes a cached index if a file has changed, so that the next start reads the footers again."""
    try:
        yield
    except Changed:
        cache.unlink(missing_ok=True)
        raise


def belongs(path: str, column: str) -> bool:
    """Returns True if a path in a Parquet schema is of a column or of a part of it."""
    return f"{path}.".startswith(f"{column}.")


def spans_of(group: pq.RowGroupMetaData, columns: Iterable[str]) -> list[tuple[int, int]]:
    """Returns the ranges (start, stop) that hold columns of a row group; none if they are more than `AT_A_TIME`."""
    columns, chunks = set(columns), []
    for number in range(group.num_columns):
        chunk = group.column(number)
        if any(belongs(chunk.path_in_schema, column) for column in columns):
            start = min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset)
            chunks.append((start, start + chunk.total_compressed_size))
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(chunks):
        if spans and start - spans[-1][1] <= GAP:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((start, stop))
    return spans if sum(stop - start for start, stop in spans) <= AT_A_TIME else []


# the index


def index_path(urls: Sequence[str], facts: Sequence[Fact | None]) -> Path:
    """Returns the path of the cached index of files."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "hf_pretext" / "rows" / f"{digest(['parquet', urls, facts])}.arrow"


def read_index(path: Path, urls: Sequence[str], facts: Sequence[Fact | None]) -> pa.Table | None:
    """Returns a cached index; None if it can't be read, or if one of `CHECKED` files without a listing has changed."""
    try:
        with pa.ipc.open_file(pa.BufferReader(path.read_bytes())) as reader:
            index = reader.read_all()
    except (OSError, pa.ArrowException):
        return None
    unknown = [i for i, fact in enumerate(facts) if fact is None]
    some = sorted({unknown[i * len(unknown) // CHECKED] for i in range(CHECKED) if unknown})
    known = [(index["size"][i].as_py(), index["stamp"][i].as_py()) for i in some]
    return index if side_by_side(served_fact, [urls[i] for i in some]) == known else None


def write_index(path: Path, index: pa.Table) -> None:
    """Writes an index into the cache, if there is space."""
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    try:
        with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), INDEX, options=options) as writer:
            writer.write_table(index)
    except OSError:  # disk full or not writable: the next start reads the footers again
        pass


def indexed(url: str, known: Fact) -> dict:
    """Returns the line of a file in the index."""
    size, stamp, tail = footer(url, known)
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    except (ValueError, OSError):  # damaged or cut
        if is_remote(url) and footer(url, (size, stamp)) != (size, stamp, tail):
            raise BadAnswer(f"{without_query(url)}: two reads of its footer differ.") from None
        rows, tail = None, b""
    return {"size": size, "stamp": stamp, "rows": rows, "footer": tail}


def footer(url: str, known: Fact) -> tuple[int, str, bytes]:
    """Returns size, stamp and the footer of a Parquet file: its metadata, their length and the magic number."""

    def read(start: int, stop: int | None, fact: Fact) -> Answer:
        return patiently(lambda: fetch(url, start, stop, fact), is_remote(url))

    tail, size, stamp = read(-TAIL, None, known)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if len(tail) < length <= size:
        tail = read(size - length, size - len(tail), (size, stamp)).content + tail
    return size, stamp, tail[-length:]
