"""Where rows come from: a Hub id, a folder, Parquet files or WebDataset tars, or a `datasets` object.

    --dataset -> datasets object -> Source: rows with canonical columns, each with a key that says where it lies

Pictures stay undecoded bytes or paths here: one bad picture must not end a stream (see `decoding.py`).
"""

import glob
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
USUAL_NAMES = {
    "image": ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    "label": ("label", "labels", "class", "category", "cls", "fine_label", "target"),
}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
TYPES = {"image": Image, "label": ClassLabel}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
PIECES_KEPT = 64


class Source:
    """Rows by number: `source.row(piece, index)`, of a source cut into `pieces` whose row counts are known.

    A piece is what is read together: a Parquet row group, a tar, or a whole table that can be read anywhere. The last
    pieces read are kept, so that the order of samples may jump between the windows in use.
    """

    def __init__(self, data: Dataset | IterableDataset, columns: Mapping[str, str], name: str = "dataset"):
        """columns: `{canonical name: name in the data}`. Raises `ValueError` for a source without rows."""
        self.name, self.columns = name, dict(columns)
        self.streamed = isinstance(data, IterableDataset)
        self.features = {canonical: data.features[column] for canonical, column in self.columns.items()}
        self.data = data.reshard() if self.streamed else data
        self.files = getattr(getattr(self.data, "_ex_iterable", None), "kwargs", {}) if self.streamed else {}
        self.data = undecoded(self.data, self.columns.values())
        self._kept: OrderedDict[int, list[dict]] = OrderedDict()
        self.counts = self._counts()
        if not len(self):
            raise ValueError(f"{name} has no rows. Give a dataset with at least one sample.")
        self._places = self._pieces_places()

    def __len__(self) -> int:
        """Rows in all."""
        return sum(self.counts)

    def row(self, piece: int, index: int) -> dict:
        """One undecoded row with canonical columns."""
        raw = self._piece(piece)[index] if self.streamed else self.data[index]
        return {canonical: raw[column] for canonical, column in self.columns.items()}

    def key(self, piece: int, index: int) -> str:
        """Where a row lies, as "train-00000-of-00004.parquet:117"."""
        name, before = self._places[piece]
        return f"{name}:{before + index}"

    def _pieces_places(self) -> list[tuple[str, int]]:
        """The file that each piece lies in, and how many of the file's rows come before it."""
        files = self.files.get("files")
        if not files:
            pieces = range(len(self.counts))
            return [(f"{self.name}[{piece}]" if self.streamed else self.name, 0) for piece in pieces]
        rows, places = Counter(), []
        for file, count in zip(files, self.counts, strict=True):  # row groups of one file come one after the other
            places.append((Path(str(file)).name, rows[file]))
            rows[file] += count
        return places

    def _piece(self, piece: int) -> list[dict]:
        if piece not in self._kept:
            self._kept[piece] = list(self.data.shard(num_shards=self.data.num_shards, index=piece))
            while len(self._kept) > PIECES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(piece)
        return self._kept[piece]

    def _counts(self) -> list[int]:
        """Rows of each piece: from the table or the Parquet footers, else by one pass over everything."""
        if not self.streamed:
            return [len(self.data)]
        if self.files.get("row_groups_list") and self.files.get("files"):
            return parquet_counts(self.files["files"], self.files["row_groups_list"])
        from tqdm.auto import tqdm

        pieces = tqdm(range(self.data.num_shards), desc=f"counting the rows of {self.name}", leave=False)
        return [sum(1 for _ in self.data.shard(num_shards=self.data.num_shards, index=piece)) for piece in pieces]


def open_source(
    dataset: str | Dataset | IterableDataset,
    split: str = "train",
    columns: Mapping[str, str | None] | None = None,
    needed: tuple[str, ...] = ("image",),
) -> Source:
    """Opens what `--dataset` names.

    dataset: a Hub id (streamed), a folder (of pictures, Parquet files or tars), a glob of `.parquet` or `.tar` files,
        or a `datasets` object. columns: `{canonical name: name in the data, or None to find it}`.
    needed: canonical columns that must be there.
    Raises `ValueError` for what is not there, has no rows, lacks a column or leaves a choice of columns.
    """
    name = dataset if isinstance(dataset, str) else type(dataset).__name__
    data = open_dataset(dataset, split) if isinstance(dataset, str) else dataset
    if isinstance(data, Mapping):  # a DatasetDict
        data = choose_split(data, split, name)
    if isinstance(data, IterableDataset) and data.features is None:
        data = data._resolve_features()
    asked = dict(columns or {})
    found = {kind: find_column(data.features, kind, asked.get(kind), name) for kind in needed}
    return Source(data, found, name)


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
        files = shards(path) or pictures(path)
        return sorted({split for file in files if (split := split_of(file, path))}) or ["train"]
    if glob.glob(str(path), recursive=True) or not HUB_ID.fullmatch(dataset):
        return ["train"]
    try:
        return datasets.get_dataset_split_names(dataset)
    except Exception:  # opening it will tell what is wrong
        return ["train"]


def open_dataset(dataset: str, split: str) -> Dataset | IterableDataset:
    """A path, glob or Hub id to a `datasets` object. Raises `ValueError` for what is not there."""
    path = Path(dataset).expanduser()
    if path.is_dir():
        if files := shards(path):
            return load_files([str(file) for file in of_split(files, split, path)], dataset)
        return image_folder(path, split)
    files = sorted(glob.glob(str(path), recursive=True))
    if files:
        return load_files(files, dataset)
    if any(c in dataset for c in "*?[~") or dataset.startswith((".", "/")) or not HUB_ID.fullmatch(dataset):
        raise ValueError(f"--dataset {dataset}: there is no such file or folder. Check the path, or give a Hub id.")
    try:
        return datasets.load_dataset(dataset, split=split, streaming=True)
    except Exception as error:  # the Hub's client has many; to a user they all mean the same
        raise ValueError(
            f"--dataset {dataset} is neither a path that exists here nor a Hub dataset (split {split!r}) that can be "
            f"reached. Check the spelling, the split, the network and your access. The Hub said: {error}"
        ) from error


def shards(folder: Path) -> list[Path]:
    """Parquet files and tars below a folder, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".parquet", ".tar"})


def pictures(folder: Path) -> list[Path]:
    """Pictures below a folder, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


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


def load_files(files: list[str], name: str) -> IterableDataset:
    """Parquet files or WebDataset tars, streamed. Raises `ValueError` for a mixture or another kind."""
    suffixes = {Path(file).suffix.lower() for file in files}
    builder = {".parquet": "parquet", ".tar": "webdataset"}.get(next(iter(suffixes))) if len(suffixes) == 1 else None
    if builder is None:
        raise ValueError(f"{name}: give .parquet files or .tar files, not {', '.join(sorted(suffixes))}.")
    return datasets.load_dataset(builder, data_files=files, split="train", streaming=True)


def image_folder(folder: Path, split: str) -> Dataset:
    """All pictures of a split below a folder, sorted by path; the name of a picture's own folder is its label.

    Raises `ValueError` where there is none.
    """
    paths = of_split(pictures(folder), split, folder)
    if not paths:
        raise ValueError(
            f"{folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))}) and no .parquet or .tar file. "
            "Give the folder that holds them, at any depth."
        )
    columns = {"image": [str(path) for path in paths], "label": [path.parent.name for path in paths]}
    data = Dataset.from_dict(columns, Features({"image": Value("string"), "label": Value("string")}))
    return data.cast_column("image", Image(decode=False))


def choose_split(data: Mapping[str, Dataset | IterableDataset], split: str, name: str):
    """One split of several. Raises `ValueError` that lists them where it is not among them."""
    if split not in data:
        raise ValueError(f"{name} has no split {split!r}. Its splits: {', '.join(data)}.")
    return data[split]


def find_column(features: Features, kind: str, asked: str | None = None, name: str = "the dataset") -> str:
    """The column that holds the images or labels: as asked, else by its type, else by its usual names.

    Raises `ValueError` that lists the columns there are when the column is missing or there is a choice.
    """
    told = ", ".join(f"{column} ({type_name(feature)})" for column, feature in features.items())
    option = f"--{kind}_column" if kind == "image" else f"--eval_{kind}"
    if asked is not None:
        if asked not in features:
            raise ValueError(f"{name} has no column {asked!r} ({option}). Its columns: {told}.")
        return asked
    typed = [column for column, feature in features.items() if isinstance(feature, TYPES[kind])]
    usual = [column for column in features if column.lower() in USUAL_NAMES[kind]]
    for candidates in ([c for c in typed if c in usual], typed, usual):
        if len(candidates) == 1:
            return candidates[0]
    if not typed and not usual:
        raise ValueError(f"{name} has no column of {kind}s that can be told. Name it with {option}. Columns: {told}.")
    choice = ", ".join(dict.fromkeys(typed + usual))
    raise ValueError(f"{name} has several columns of {kind}s: {choice}. Choose with {option}. Columns: {told}.")


def type_name(feature) -> str:
    """A column's type in a word."""
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__


def undecoded(data: Dataset | IterableDataset, columns) -> Dataset | IterableDataset:
    """Only these columns, with images left as `{"bytes", "path"}`."""
    features = data.features
    data = data.select_columns(list(columns))
    for column in columns:
        if isinstance(features[column], Image):
            data = data.cast_column(column, Image(decode=False))
    return data


def parquet_counts(files: list[str], row_groups: list[tuple[int, ...]]) -> list[int]:
    """Rows of each piece, from the footers alone."""
    import fsspec
    import pyarrow.parquet as pq

    footers = {}
    for file in dict.fromkeys(files):
        with fsspec.open(str(file), "rb") as handle:
            footers[file] = pq.read_metadata(handle)
    return [
        sum(footers[file].row_group(group).num_rows for group in groups)
        for file, groups in zip(files, row_groups, strict=True)
    ]
