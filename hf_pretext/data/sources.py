"""Where rows come from: a Hub id, files, a folder, or a `datasets` object.

    --dataset -> datasets object -> Source: rows with canonical columns, each with a key that says where it lies

Pictures stay undecoded bytes or paths here: one bad picture must not end a stream (see `decoding.py`).
"""

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import datasets
from datasets import Dataset, Features, Image, IterableDataset, Value
from transformers.utils import logging

from .columns import features_of, find_column
from .decoding import UNREADABLE
from .order import ENDLESS
from .remote import file_facts, patiently, short_names, sizes_of
from .rows import DAMAGE, rows_of

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SHARDS = {".parquet": "parquet", ".tar": "webdataset"}  # streamed
TABLES = {".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
COMPRESSION = {".gz", ".zst", ".xz", ".bz2"}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
TAKEN = 256  # rows read together
log = logging.get_logger(__name__)


class Source:
    """Undecoded rows with canonical columns, in pieces whose row counts are known."""

    def __init__(self, data, columns: Mapping[str, str], name: str = "dataset", features=None, files=None):
        """columns: `{canonical name: name in the data}`. files: sizes of the files behind `data`, by name.

        Raises `ValueError` for a source without rows."""
        self.name, self.columns = name, dict(columns)
        features = data.features if features is None else features
        self.features = {canonical: features[column] for canonical, column in self.columns.items()}
        self.rows = rows_of(data, self.columns, name, files)
        self.counts = self.rows.counts
        if not sum(self.counts):
            raise ValueError(f"{name} has no rows. Give a dataset with at least one sample.")
        for where, why in self.rows.lost:
            log.warning(f"{name}: {where} is {why}.")

    @property
    def endless(self) -> bool:
        """Whether nobody knows how many rows there are."""
        return self.counts == [ENDLESS]

    def __len__(self) -> int:
        """Rows in all. Raises `TypeError` where nobody knows."""
        if self.endless:
            raise TypeError(f"{self.name} is an iterable without a length.")
        return sum(self.counts)

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        """Rows `start` to `stop` (exclusive) of a piece. Those that can't be read say why under `UNREADABLE`: a damaged
        file is many bad samples, not the end of a run."""
        try:
            rows = patiently(lambda: self.rows.read(piece, start, stop), self.rows.remote)
            reason = "its file ends before it"
        except Exception as error:  # each format has its own
            if self.rows.remote and not isinstance(error, DAMAGE):
                raise  # the network, not the file
            rows, reason = [], f"its file can't be read: {type(error).__name__}: {str(error)[:200]}"
        return rows + [{UNREADABLE: reason}] * (stop - start - len(rows))

    def take(self, places: Sequence[tuple[int, int]]) -> Iterator[dict]:
        """The rows at some places (piece, index), neighbours read together."""
        first = 0
        for at in range(1, len(places) + 1):
            (piece, start), length = places[first], at - first
            if at == len(places) or places[at] != (piece, start + length) or length == TAKEN:
                yield from self.read(piece, start, start + length)
                first = at

    def key(self, piece: int, index: int) -> str:
        """Where a row lies, as "train-00000-of-00004.parquet:117"."""
        name, before = self.rows.places[piece]
        return f"{name}:{before + index}"


class Mixture:
    """What is trained on: one source, or several with weights."""

    def __init__(self, sources: Source | Sequence[Source], weights: Sequence[float] | None = None):
        """weights: shares of the samples, in any scale; by the sources' rows where None.

        Raises `ValueError` for weights that do not fit the sources."""
        self.sources = [sources] if isinstance(sources, Source) else list(sources)
        self.weights = None if weights is None else list(weights)
        if weights is not None and (len(weights) != len(self.sources) or min(weights) <= 0):
            raise ValueError(
                f"--mixture_weights {' '.join(map(str, weights))}: give a positive number for each of the "
                f"{len(self.sources)} datasets."
            )
        if weights is None and len(self.sources) > 1 and self.endless:
            raise ValueError("A mixture with an iterable of unknown length needs --mixture_weights.")

    @property
    def name(self) -> str:
        return " + ".join(source.name for source in self.sources)

    @property
    def endless(self) -> bool:
        """Whether nobody knows how many rows there are."""
        return any(source.endless for source in self.sources)

    def __len__(self) -> int:
        """Rows of all sources. Raises `TypeError` where nobody knows."""
        return sum(map(len, self.sources))

    def fingerprint(self) -> list[dict]:
        """What tells this data from other data, source by source; for JSON."""
        return [{"name": source.name, **source.rows.fingerprint()} for source in self.sources]


def difference(before: list[dict], now: list[dict]) -> str:
    """What has changed between two fingerprints, in words; nothing where they agree. Names of sources do not count."""
    if len(before) != len(now):
        return f"{len(before)} datasets then, {len(now)} now"
    changes = []
    for old, new in zip(before, now, strict=True):
        files, others = old["files"], new["files"]
        if isinstance(files, dict) and isinstance(others, dict):
            changes += [f"{name} is gone" for name in files if name not in others]
            changes += [f"{name} is new" for name in others if name not in files]
            changes += [
                f"{name} had {files[name]:,} bytes and has {others[name]:,}"
                for name in files
                if name in others and files[name] != others[name]
            ]
        elif files != others:
            changes.append(f"the names or sizes of the files of {new['name']}")
        if old["rows"] != new["rows"]:
            changes.append(f"{new['name']} had {old['rows']} rows and has {new['rows']}")
        elif old["pieces"] != new["pieces"]:
            changes.append(f"the rows of {new['name']} are cut into other pieces")
    return "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")


def open_source(
    dataset,
    split: str = "train",
    columns: Mapping[str, str | None] | None = None,
    needed: tuple[str, ...] = ("image",),
) -> Source:
    """Opens what `--dataset` names.

    dataset: a Hub id (streamed), a folder or a glob (of pictures, Parquet files or WebDataset tars, which are streamed;
        of Arrow, JSON lines, CSV or text files, which `datasets` makes into a table on disk), a `datasets` object, or
        any sequence or iterable of dicts. columns: `{canonical name: name in the data, or None to find it}`.
    needed: canonical columns that must be there.
    Raises `ValueError` for what is not there, has no rows, lacks a column or leaves a choice of columns.
    """
    name = dataset if isinstance(dataset, str) else type(dataset).__name__
    data, files = open_dataset(dataset, split) if isinstance(dataset, str) else (dataset, None)
    if isinstance(data, Mapping):  # a DatasetDict
        data = choose_split(data, split, name)
    if isinstance(data, IterableDataset) and data.features is None:
        data = data._resolve_features()
    features = getattr(data, "features", None)
    if features is None:
        first = next(iter(data), None)
        if first is None:
            raise ValueError(f"{name} has no rows. Give a dataset with at least one sample.")
        features = features_of(first)
    asked = dict(columns or {})
    found = {kind: find_column(features, kind, asked.get(kind), name) for kind in needed}
    return Source(data, found, name, features, files)


def open_splits(
    dataset: str | Mapping | Dataset | IterableDataset,
    columns: Mapping[str, str | None] | None = None,
    needed: tuple[str, ...] = ("image",),
) -> dict[str, Source]:
    """The splits train, validation and test of a dataset, those of them that there are; all of it is train where it
    is not split. Takes and raises what `open_source` does."""
    there = ["train"]
    if isinstance(dataset, Mapping):
        there = list(dataset)
    elif isinstance(dataset, str):
        there = split_names(dataset)
    names = {split: next((name for name in SPLITS[split] if name in there), None) for split in SPLITS}
    return {
        split: open_source(dataset, name, columns, needed)
        for split, name in names.items()
        if name is not None or split == "train"
    }


def split_names(dataset: str) -> list[str]:
    """The splits of a path, glob or Hub id; only train where it is not split."""
    path = Path(dataset).expanduser()
    if path.is_dir():
        files = data_files(path)
        return sorted({split for file in files if (split := split_of(file, path))}) or ["train"]
    if glob.glob(str(path), recursive=True) or not HUB_ID.fullmatch(dataset):
        return ["train"]
    try:
        return datasets.get_dataset_split_names(dataset)
    except Exception:  # opening it will tell what is wrong
        return ["train"]


def open_dataset(dataset: str, split: str) -> tuple[Dataset | IterableDataset | Mapping, dict[str, int] | None]:
    """A path, glob or Hub id to a `datasets` object, and the sizes of its files where they are not its own to tell.

    Raises `ValueError` for what is not there.
    """
    path = Path(dataset).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():  # of save_to_disk
            return datasets.load_from_disk(str(path)), None
        files = of_split(data_files(path), split, path)
        if files and files[0].suffix.lower() not in IMAGE_SUFFIXES:
            return load_files(list(map(str, files)), dataset)
        return image_folder(files, path)
    files = sorted(glob.glob(str(path), recursive=True))
    if files:
        return load_files(files, dataset)
    if any(c in dataset for c in "*?[~") or dataset.startswith((".", "/")) or not HUB_ID.fullmatch(dataset):
        raise ValueError(f"--dataset {dataset}: there is no such file or folder. Check the path, or give a Hub id.")
    try:
        return datasets.load_dataset(dataset, split=split, streaming=True), None
    except Exception as error:  # the Hub's client has many; to a user they all mean the same
        raise ValueError(
            f"--dataset {dataset} is neither a path that exists here nor a Hub dataset (split {split!r}) that can be "
            f"reached. Check the spelling, the split, the network and your access. The Hub said: {error}"
        ) from error


def data_files(folder: Path) -> list[Path]:
    """Files of one kind below a folder, sorted: shards (Parquet, tars) before pictures before tables, since pictures
    come with lists of labels and notes."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    for kinds in (SHARDS, IMAGE_SUFFIXES, TABLES):
        if files := [file for file in found if kind_of(file) in kinds]:
            return files
    return []


def kind_of(file: str | Path) -> str:
    """A file's suffix, without that of its compression."""
    suffixes = [suffix.lower() for suffix in Path(file).suffixes] or [""]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in COMPRESSION else suffixes[-1]


def split_of(file: Path, folder: Path) -> str | None:
    """The split that a file belongs to by its top folder ("train/cat/1.jpg") or, for all but pictures, by the beginning
    of its name ("train-00000-of-00004.parquet"); None where neither tells."""
    top, *below = file.relative_to(folder).parts
    words = [word for words in SPLITS.values() for word in words]
    if below and top in words:
        return top
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return None
    return next((word for word in words if re.match(rf"{word}(?![a-z])", file.name)), None)


def of_split(files: list[Path], split: str, folder: Path) -> list[Path]:
    """The files of one split; all, where none tells of splits. Raises `ValueError` for a split that is not there."""
    found = {file: split_of(file, folder) for file in files}
    if not any(found.values()):
        return files
    chosen = [file for file in files if found[file] == split]
    if not chosen:
        there = ", ".join(sorted({s for s in found.values() if s}))
        raise ValueError(f"{folder} has no split {split!r}. Its splits: {there}.")
    return chosen


def load_files(files: list[str], name: str) -> tuple[Dataset | IterableDataset, dict[str, int] | None]:
    """Parquet files or tars, streamed; others as a table on disk, with the files' sizes.

    Raises `ValueError` for a mixture, another kind, or files that `datasets` can't read.
    """
    kinds = {kind_of(file) for file in files}
    kind = next(iter(kinds))
    builder = {**SHARDS, **TABLES}.get(kind)
    if len(kinds) > 1 or builder is None:
        known = ", ".join([*SHARDS, *TABLES])
        raise ValueError(f"{name}: give files of one kind ({known}), not {', '.join(sorted(kinds))}.")
    options = {"sep": "\t"} if kind == ".tsv" else {}
    try:
        data = datasets.load_dataset(builder, data_files=files, split="train", streaming=kind in SHARDS, **options)
    except Exception as error:  # each format has its own
        reason = error.__cause__ or error
        raise ValueError(f"{name} can't be read as {kind} files: {type(reason).__name__}: {reason}") from error
    if kind in SHARDS:
        return data, None
    return data, sizes_of(short_names(files), file_facts(files))


def image_folder(paths: list[Path], folder: Path) -> tuple[Dataset, dict[str, int]]:
    """Pictures as a table of paths; the name of a picture's own folder is its label. With the files' sizes.

    Raises `ValueError` where there is none.
    """
    if not paths:
        raise ValueError(
            f"{folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))}) and no file of {', '.join(SHARDS)} or "
            f"{', '.join(TABLES)}. Give the folder that holds them, at any depth."
        )
    columns = {"image": [str(path) for path in paths], "label": [path.parent.name for path in paths]}
    data = Dataset.from_dict(columns, Features({"image": Value("string"), "label": Value("string")}))
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in paths}
    return data.cast_column("image", Image(decode=False)), sizes


def choose_split(data: Mapping[str, Dataset | IterableDataset], split: str, name: str):
    """One split of several. Raises `ValueError` that lists them where it is not among them."""
    if split not in data:
        raise ValueError(f"{name} has no split {split!r}. Its splits: {', '.join(data)}.")
    return data[split]
