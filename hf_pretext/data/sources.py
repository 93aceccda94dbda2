"""Opens the rows of a Hub id, files, a folder, or a `datasets` object.

    --dataset -> datasets object -> Source: rows with canonical columns, each with a key of its file and position

Images stay undecoded bytes or paths here, because one damaged image must not end a stream (see `decoding.py`).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any

import PIL.Image
from datasets import Dataset, Features, IterableDataset
from transformers.utils import logging

from ..utils.paths import without_query
from .columns import PATHS, TEXTS, features_of, find_one_of, holds_paths, times_of
from .contents import File
from .decoding import UNREADABLE, BadSample, with_pixels
from .folders import Wanted
from .lines import Reading
from .media_paths import check_no_url, followed
from .opening import SPLITS, Opened, alone, choose_split, open_dataset, split_names
from .parquet import ParquetFiles, ParquetRows, parquet_files
from .ranges import is_network, is_remote
from .remote import is_gone, patiently
from .rows import ENDLESS, BrokeOff, MapRows, ReplayRows, Rows, StreamRows, broke_at, is_damage, size_of, undecoded
from .table import Table, TableRows
from .tars import TarRows, Tars, are_tars
from .urls import is_url

READ_TOGETHER = 256  # most rows per read
PIECES_PROBED, PROBED = 4, 8  # pieces, and rows of each, that are read to estimate the size of a row
ON_HUB = re.compile(r"hf://datasets/[^@]+@([0-9a-f]{40})/")
log = logging.get_logger(__name__)


class Source:
    """Undecoded rows with canonical columns, in pieces of known row counts."""

    def __init__(self, data, columns: Mapping[str, str], name: str = "dataset", features=None, files=None, lost=()):
        """columns: `{canonical name: name in the data}`. files: the files of `data` by name. lost: files that can't be
        read, with the reasons.

        The attribute `revision` is the commit of a Hub dataset that was opened by its id, None for other data. Raises
        `ValueError` for a source without rows."""
        self.name, self.columns, self.prefix = name, dict(columns), ""
        features = data.features if features is None else features
        self.features = {canonical: features[column] for canonical, column in self.columns.items()}
        self._paths = [kind for kind in PATHS if kind in self.features and holds_paths(self.features[kind])]
        self.rows = rows_of(data, self.columns, name, files)
        self.counts = self.rows.counts
        self._row_bytes: float | None = None
        self._damaged: dict[int, int] = {}  # first damaged row of each damaged remote piece
        if not sum(self.counts):
            raise ValueError(f"{name} has no rows. Give a dataset with at least one sample.")
        self.revision = None if is_url(name) else revision_of(self.rows.url(0))
        self.rows.lost = [*lost, *self.rows.lost]
        for where, why in self.rows.lost:
            log.warning(f"{name}: {where} is {why}.")
        if self._paths:
            first = self.read_rows(0, 0, min(PROBED, self.counts[0]))
            for kind in self._paths:
                check_no_url([row.get(kind) for row in first], self.columns[kind], name)
            self.rows.close()

    @property
    def endless(self) -> bool:
        """True if the number of rows is unknown."""
        return self.counts == [ENDLESS]

    def __len__(self) -> int:
        """Returns the number of rows. Raises `TypeError` if it is unknown."""
        if self.endless:
            raise TypeError(f"{self.name} is an iterable without a length. Give a list or a dataset with a length.")
        return sum(self.counts)

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        """Returns rows `start` to `stop` (exclusive) of a piece, as `read_rows` does, with their paths followed."""
        rows = [with_pixels(row) for row in self.read_rows(piece, start, stop)]
        return [self._followed(row, piece, i) for i, row in enumerate(rows, start)] if self._paths else rows

    def _followed(self, row: dict, piece: int, index: int) -> dict:
        try:
            folder = self.rows.folder(piece, index)
            remote = self.rows.remote or is_remote(folder or "")  # tables of a server are stored on disk
            paths = {kind: followed(row[kind], folder, remote) for kind in self._paths if kind in row}
            return {**row, **paths}
        except BadSample as error:
            return {UNREADABLE: str(error)}

    def read_rows(self, piece: int, start: int, stop: int) -> list[dict]:
        """Returns rows `start` to `stop` (exclusive) of a piece.

        A row that can't be read is `{UNREADABLE: reason}`, so that a damaged file causes bad samples and does not end a
        run. The set of these rows does not depend on the range. Raises the network's error for a remote file that
        can't be reached after all retries."""
        hopeless = partial(self._is_hopeless, piece, start)
        try:
            rows = patiently(lambda: self.rows.read(piece, start, stop), self.rows.remote, hopeless)
            reason = "the file ends before this row"
        except Exception as error:  # each format raises other types
            cause = error.__cause__ if isinstance(error, BrokeOff) else error
            if self.rows.remote and not self._is_damaged(piece, start, error):
                raise cause from None
            reason = f"the file can't be read: {type(cause).__name__}: {str(cause)[:200]}"
            if isinstance(error, BrokeOff):
                rows = error.rows
            elif stop - start == 1:
                rows = []
            else:  # these rows can be read one by one, and only some may be damaged
                return [row for i in range(start, stop) for row in self.read_rows(piece, i, i + 1)]
        return rows + [{UNREADABLE: reason}] * (stop - start - len(rows))

    def _is_hopeless(self, piece: int, start: int, error: Exception) -> bool:
        """Returns True if a retry can't succeed: the file is missing, or is known to be damaged at this row."""
        if is_gone(error):
            return True
        if self.rows.confirms_damage:
            return not is_network(error.__cause__ if isinstance(error, BrokeOff) else error)
        return is_damage(error) and broke_at(start, error) >= self._damaged.get(piece, ENDLESS)

    def _is_damaged(self, piece: int, start: int, error: Exception) -> bool:
        """Returns True if an unreadable remote file is damaged, False if it is missing or can't be reached.

        Stores the first damaged row, so that later reads do not retry it."""
        if not self._is_hopeless(piece, start, error) and is_damage(error) and self.rows.is_served(piece):
            self._damaged[piece] = min(self._damaged.get(piece, ENDLESS), broke_at(start, error))
        return self._is_hopeless(piece, start, error) and not is_gone(error)

    def row_bytes(self, known: float | None = None) -> float:
        """Returns the approximate size of a row in memory, in bytes: the mean of the first rows of several pieces.

        The rows are read only once, and not for a size that is `known`, by another process. Raises as `read` does."""
        self._row_bytes = self._row_bytes if known is None else known
        if self._row_bytes is None:
            pieces = [piece for piece, count in enumerate(self.counts) if count]
            chosen = sorted({pieces[i * len(pieces) // PIECES_PROBED] for i in range(PIECES_PROBED)})
            rows = [row for piece in chosen for row in self.read(piece, 0, min(PROBED, self.counts[piece]))]
            self.rows.close()
            self._row_bytes = sum(map(size_of, rows)) / max(len(rows), 1)
        return self._row_bytes

    def take(self, places: Sequence[tuple[int, int]]) -> Iterator[dict]:
        """Yields the rows at the places (piece, index); consecutive rows are read together."""
        first = 0
        for at in range(1, len(places) + 1):
            (piece, start), length = places[first], at - first
            if at == len(places) or places[at] != (piece, start + length) or length == READ_TOGETHER:
                yield from self.read(piece, start, start + length)
                first = at

    def key(self, piece: int, index: int) -> str:
        """Returns the file and index of a row, as "train-00000-of-00004.parquet:117".

        If several sources of a mixture have files of the same name, the number of the source comes first:
        "1/train.parquet:117"."""
        name, before = self.rows.places[piece]
        return f"{self.prefix}{name}:{before + index}"


def revision_of(url: str | None) -> str | None:
    """Returns the commit in the URL of a file on the Hub, or None."""
    match = ON_HUB.match(url or "")
    return match[1] if match else None


def open_source(
    dataset,
    split: str = "train",
    columns: Mapping[str, str | None] | None = None,
    needed: tuple[str | tuple[str, ...], ...] = ("image",),
    reading: Reading | None = None,
    option: str = "",
    share: Callable[[Callable[[], Any]], Any] = alone,
    further: Sequence[str | tuple[str, ...]] = (),
) -> Source:
    """Opens a dataset and returns its rows as a `Source`.

    dataset: a Hub id (streamed), a folder, a glob, a URL, "@" and the path of a list of files, the name of a bundled
        data set, a `datasets` object, a sequence or iterable of dicts, or a list of Pillow images or of texts. Files
        may be images, sounds or videos of a folder, Parquet files and WebDataset tars (both streamed), or Arrow, JSON
        lines, CSV and text files (converted to a table on disk).
    columns: `{canonical name: name in the data, or None to detect it}`. needed: required canonical columns; of a tuple,
        the first that the dataset has. further: canonical columns that the objective needs elsewhere; they decide, too,
        which files of a folder are read.
    reading: how files are read. option: prefix of the option names in error messages. share: gives all ranks what
        its argument returns on one (`on_main_process`), if all ranks open the dataset together; by default each rank
        asks the server.
    Raises `ValueError` for a dataset that does not exist or has no rows, and for a missing or ambiguous column.
    """
    dataset = str(dataset) if isinstance(dataset, PathLike) else as_rows(dataset, needed)
    name = name_of(dataset)
    wanted = Wanted(needed, dict(columns or {}), further)
    opened, features, asked = open_columns(dataset, split, wanted, reading, option, share)
    chosen = columns_of(features, needed, asked, name, option, opened.note)
    return Source(opened.data, chosen, name, features, opened.files, opened.lost)


def name_of(dataset) -> str:
    """Returns the name of a dataset in messages: what was given without the query of a URL, else its type."""
    return without_query(dataset) if isinstance(dataset, str) else type(dataset).__name__


def open_columns(
    dataset,
    split: str,
    wanted: Wanted,
    reading: Reading | None = None,
    option: str = "",
    share: Callable[[Callable[[], Any]], Any] = alone,
) -> tuple[Opened, Features, dict[str, str | None]]:
    """Opens a split of a dataset whose columns are not chosen yet, see `open_source`.

    wanted: decides which files of a folder are read. Returns the open split, the types of its columns, and the names
    of columns that need no detection: those of `wanted.asked`, and the media of a folder. Raises `ValueError` for a
    dataset that does not exist or has no rows."""
    name, asked = name_of(dataset), dict(wanted.asked)
    opened = Opened(dataset)
    if isinstance(dataset, str):
        opened = open_dataset(dataset, split, wanted, reading, option, share)
        asked = {
            **dict(zip(opened.kinds, opened.kinds, strict=True)),
            **{k: v for k, v in asked.items() if v is not None},
        }
    data = opened.data
    if isinstance(data, Mapping):  # a DatasetDict
        data = choose_split(data, split, name)
    data = as_tars(data)
    if isinstance(data, IterableDataset) and data.features is None:
        data = data._resolve_features()
    features = getattr(data, "features", None)
    if features is None:
        first = next(iter(data), None)
        if first is None:
            raise ValueError(f"{name} has no rows. Give a dataset with at least one sample.")
        features = features_of(first)
    if isinstance(data, Tars):
        asked = {kind: column and data.named(column) for kind, column in asked.items()}
    return opened._replace(data=data), features, asked


def as_rows(dataset, needed: Sequence[str | tuple[str, ...]]):
    """Returns a list of Pillow images or of texts as a list of rows; other data as it is. Raises `ValueError` for a
    list of strings if texts are not all that is needed, and for data that has no rows."""
    first = dataset[0] if isinstance(dataset, (list, tuple)) and dataset else None
    if isinstance(first, PIL.Image.Image):
        return [{"image": image} for image in dataset]
    if isinstance(first, str) and needed == ("text",):
        return [{"text": text} for text in dataset]
    if isinstance(first, (str, PathLike)):
        raise ValueError(
            f"The dataset is a list of strings, like {str(first)[:80]!r}, but the model needs {listed(needed)}. For "
            "files, give their folder, a glob as 'folder/*.parquet', or '@' and the path of a list of files; else "
            "rows as {'image': ..., 'text': ...}."
        )
    if not isinstance(dataset, str) and not hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"The dataset has the type {type(dataset).__name__}, and no rows. Give a folder, a Hub id, a "
            "datasets.Dataset, or a list of dicts or images."
        )
    return dataset


def listed(needed: Sequence[str | tuple[str, ...]]) -> str:
    """Returns the names of needed columns as text: "image and text", "audio or video"."""
    return " and ".join(name if isinstance(name, str) else " or ".join(name) for name in needed)


def columns_of(features, needed: Sequence, asked: Mapping, name: str, option: str, note: str | None) -> dict[str, str]:
    """Returns `{canonical name: name in the data}` of the needed columns. note: about files that are left out.

    If texts or subtitles are needed (`TEXTS`) and there are lists of texts, "start" and "end" are columns, too. Raises
    `ValueError` for a missing or ambiguous column."""
    kinds = [(kind,) if isinstance(kind, str) else kind for kind in needed]
    try:
        chosen = dict(find_one_of(features, some, asked, name, option) for some in kinds)
    except ValueError as error:
        raise ValueError(f"{error} In the folder, {note}." if note else str(error)) from None
    return {**chosen, **(times_of(features, chosen["text"], name) if TEXTS in kinds and "text" in chosen else {})}


def as_tars(data):
    """Returns the tars of a stream that `datasets` made of uncompressed tars; other data as it is."""
    kwargs = getattr(data._ex_iterable, "kwargs", {}) if isinstance(data, IterableDataset) else {}
    tars = list(map(str, kwargs.get("tar_paths", [])))  # only of a stream without map or filter
    return Tars(tars, data.features) if are_tars(tars) else data


def open_splits(
    dataset: str | Mapping | Dataset | IterableDataset,
    columns: Mapping[str, str | None] | None = None,
    needed: tuple[str | tuple[str, ...], ...] = ("image",),
    reading: Reading | None = None,
    option: str = "",
) -> dict[str, Source]:
    """Returns the existing splits of a dataset, named "train", "validation" and "test".

    A dataset without splits is "train". Arguments and errors are those of `open_source`."""
    return {
        split: open_source(dataset, name or "train", columns, needed, reading, option)
        for split, name in usual_splits(dataset, Wanted(needed, columns or {})).items()
    }


def usual_splits(dataset: str | Mapping | Dataset | IterableDataset, wanted: Wanted) -> dict[str, str | None]:
    """Returns the existing ones of "train", "validation" and "test", each with its name in the dataset.

    "train" always exists; its name is None in a dataset without a split of this name. wanted: see `open_columns`."""
    available = ["train"]
    if isinstance(dataset, Mapping):
        available = list(dataset)
    elif isinstance(dataset, str):
        available = split_names(dataset, wanted)
    names = {split: next((name for name in SPLITS[split] if name in available), None) for split in SPLITS}
    return {split: name for split, name in names.items() if name is not None or split == "train"}


def rows_of(data, columns: Mapping[str, str], name: str, files: Mapping[str, File] | None = None) -> Rows:
    """Returns the fastest `Rows` for a `datasets` object, a sequence or an iterable.

    Raises `ValueError` for an iterator, which can be iterated only once.
    """
    if isinstance(data, Tars):
        return TarRows(data, columns)
    if isinstance(data, ParquetFiles):
        return ParquetRows(data, columns)
    if isinstance(data, IterableDataset):
        kwargs = getattr(data._ex_iterable, "kwargs", {})  # only of a stream without map or filter
        builder = getattr(getattr(data._ex_iterable, "generate_tables_fn", None), "__self__", None)
        if (parquet := parquet_files(data)) is not None:
            return ParquetRows(parquet, columns)
        how = getattr(builder, "config_id", None)  # differs between lines and paragraphs, for example
        made_by = None if builder is None and not kwargs else f"{type(builder).__name__} {how}"
        return StreamRows(undecoded(data, columns), columns, name, made_by)
    if isinstance(data, Table):
        return TableRows(data, columns, name, files)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return MapRows(undecoded(data, columns) if isinstance(data, Dataset) else data, columns, name, files)
    if iter(data) is data:
        raise ValueError(
            f"{name} can be iterated only once, but training iterates it repeatedly. Give a list, a datasets object, "
            "or an object whose __iter__ starts from the first row each time."
        )
    return ReplayRows(data, columns, name)
