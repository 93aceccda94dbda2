"""Opens a Hub id, a folder, files or the output of `save_to_disk` as a `datasets` object.

"path/to/images", "shards/*.tar", "user/name" -> Dataset, IterableDataset or DatasetDict
"""

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa
from datasets import Dataset, Image, IterableDataset

from .contents import File
from .lines import Reading, kind_of
from .metadata import notes_on
from .remote import patient_hub
from .shards import footer
from .table import Table, check_lost, open_table

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SHARDS = {".parquet": "parquet", ".tar": "webdataset"}  # streamed
TABLES = {".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


def split_names(dataset: str) -> list[str]:
    """Returns the split names of a path, glob or Hub id; `["train"]` for data without splits."""
    path = Path(dataset).expanduser()
    if path.is_dir():
        files = data_files(path)
        return sorted({split for file in files if (split := split_of(file, path))}) or ["train"]
    if glob.glob(str(path), recursive=True) or not HUB_ID.fullmatch(dataset):
        return ["train"]
    try:
        return datasets.get_dataset_split_names(dataset)
    except Exception:  # `open_dataset` reports the error
        return ["train"]


class Opened(NamedTuple):
    """An open dataset. files: by name; None for streamed files, Hub datasets and the output of `save_to_disk`. lost:
    `[(file, reason)]` of files, or parts of files, that can't be read."""

    data: Dataset | IterableDataset | Mapping | Table
    files: dict[str, File] | None = None
    lost: Sequence[tuple[str, str]] = ()


def open_dataset(dataset: str, split: str, reading: Reading | None = None, option: str = "") -> Opened:
    """Opens a path, glob or Hub id.

    option: prefix of the option names in error messages. Raises `ValueError` for a dataset that does not exist or can't
    be read.
    """
    reading = reading or Reading()
    path = Path(dataset).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():  # save_to_disk
            return Opened(datasets.load_from_disk(str(path)))
        files = of_split(data_files(path), split, path)
        if files and files[0].suffix.lower() not in IMAGE_SUFFIXES:
            return load_files(list(map(str, files)), dataset, reading)
        return image_folder(files, path, reading)
    files = sorted(glob.glob(str(path), recursive=True))
    if files:
        return load_files(files, dataset, reading)
    if any(c in dataset for c in "*?[~") or dataset.startswith((".", "/")) or not HUB_ID.fullmatch(dataset):
        raise ValueError(f"--{option}dataset {dataset}: no such file or folder. Check the path, or give a Hub id.")
    try:
        with patient_hub():
            return Opened(hub_dataset(dataset, split))
    except Exception as error:  # the Hub's client raises many types; the user's remedy is the same for all
        raise ValueError(
            f"--{option}dataset {dataset} is neither an existing path nor a Hub dataset (split {split!r}) that can be "
            f"reached. Check the spelling, the split, the network and your access. Error of the Hub: {error}"
        ) from error


def hub_dataset(dataset: str, split: str) -> IterableDataset:
    """Returns a split of a Hub dataset as a stream with known features."""
    data = datasets.load_dataset(dataset, split=split, streaming=True)
    return data if data.features is not None else data._resolve_features()


def data_files(folder: Path) -> list[Path]:
    """Returns the sorted data files below a folder, all of one group: shards (Parquet, tars), else images, else tables.

    Images take precedence over tables, because image folders often contain tables of labels or text notes."""
    candidates = sorted(file for file in folder.rglob("*") if file.is_file())
    for kinds in (SHARDS, IMAGE_SUFFIXES, TABLES):
        if files := [file for file in candidates if kind_of(file) in kinds]:
            return files
    return []


def split_of(file: Path, folder: Path) -> str | None:
    """Returns the split name in the path of a file, or None.

    The name is the file's top folder ("train/cat/1.jpg") or, for files other than images, the beginning of the file
    name ("train-00000-of-00004.parquet")."""
    top, *below = file.relative_to(folder).parts
    words = [word for words in SPLITS.values() for word in words]
    if below and top in words:
        return top
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return None
    return next((word for word in words if re.match(rf"{word}(?![a-z])", file.name)), None)


def of_split(files: list[Path], split: str, folder: Path) -> list[Path]:
    """Returns the files of one split; all files if no path contains a split name. Raises `ValueError` for an unknown
    split."""
    splits = {file: split_of(file, folder) for file in files}
    if not any(splits.values()):
        return files
    chosen = [file for file in files if splits[file] == split]
    if not chosen:
        known = ", ".join(sorted({s for s in splits.values() if s}))
        raise ValueError(f"{folder} has no split {split!r}. Choose one of: {known}.")
    return chosen


def load_files(files: list[str], name: str, reading: Reading) -> Opened:
    """Opens Parquet files and tars as a stream, other files as a table on disk.

    Raises `ValueError` for files of several formats, of an unsupported format, or if too many can't be read.
    """
    kinds = {kind_of(file) for file in files}
    kind = next(iter(kinds))
    format = {**SHARDS, **TABLES}.get(kind)
    if len(kinds) > 1 or format is None:
        known = ", ".join([*SHARDS, *TABLES])
        raise ValueError(
            f"{name} has files of the formats {', '.join(sorted(kinds))}. Give files of one supported format: {known}."
        )
    if kind in TABLES:
        return Opened(*open_table(files, format, name, reading))
    lost = broken_parquet(files) if kind == ".parquet" else {}
    check_lost(lost, files, name, reading.max_bad_fraction)
    files = [file for file in files if file not in lost]
    try:
        data = datasets.load_dataset(format, data_files=files, split="train", streaming=True)
    except Exception as error:  # each format raises other types
        reason = error.__cause__ or error
        raise ValueError(
            f"{name} can't be read as {kind} files. Check that they are complete and valid. "
            f"{type(reason).__name__}: {reason}"
        ) from error
    return Opened(data, lost=list(lost.items()))


def broken_parquet(files: Sequence[str]) -> dict[str, str]:
    """Returns the Parquet files whose footer can't be read, with the reasons."""
    broken = {}
    for file in files:
        try:
            footer(file)
        except (OSError, pa.ArrowException) as error:
            broken[file] = f"no Parquet file, or cut: {error}"
    return broken


def image_folder(paths: list[Path], folder: Path, reading: Reading) -> Opened:
    """Returns a table of image paths with labels and captions.

    The label of an image is the name of its folder. The other columns are those of `notes_on`. Raises `ValueError` for
    a folder without images, or metadata that can't be read.
    """
    if not paths:
        raise ValueError(
            f"{folder} contains no image ({', '.join(sorted(IMAGE_SUFFIXES))}) and no other supported file "
            f"({', '.join([*SHARDS, *TABLES])}). Give a folder that contains data files, at any depth."
        )
    notes = notes_on(paths, folder, reading)
    columns = {"image": list(map(str, paths)), "label": [path.parent.name for path in paths], **notes.columns}
    data = Dataset.from_dict(columns).cast_column("image", Image(decode=False))
    files = {path: path.stat() for path in [*paths, *notes.files]}
    files = {str(path.relative_to(folder)): File(str(path), of.st_size, str(of.st_mtime)) for path, of in files.items()}
    return Opened(data, files)


def choose_split(data: Mapping[str, Dataset | IterableDataset], split: str, name: str):
    """Returns one split of a dict of splits. Raises `ValueError` for an unknown split; the message lists all splits."""
    if split not in data:
        raise ValueError(f"{name} has no split {split!r}. Choose one of: {', '.join(data)}.")
    return data[split]
