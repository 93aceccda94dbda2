"""Opens a Hub id, a folder, files or the output of `save_to_disk` as a `datasets` object.

"path/to/images", "shards/*.tar", "user/name", "s3://bucket/folder" -> Dataset, IterableDataset, DatasetDict, Table,
Tars or ParquetFiles
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

import datasets
from datasets import Dataset, Image, IterableDataset
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from transformers.utils import logging

from ..utils.paths import without_query
from .contents import File
from .image_suffixes import image_suffixes, left_out_note
from .lines import Reading, kind_of
from .metadata import METADATA, notes_on
from .parquet import ParquetFiles, parquet_files
from .remote import patient_hub
from .table import Table, check_lost, open_table
from .tars import Tars, are_tars
from .urls import is_url, listed

SHARDS = {".parquet": "parquet", ".tar": "webdataset"}  # streamed
TABLES = {".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
FILE = TypeVar("FILE", str, Path)
Share = Callable[[Callable[[], Any]], Any]  # gives all ranks what a function returns on one
log = logging.get_logger(__name__)


def split_names(dataset: str) -> list[str]:
    """Returns the split names of a path, glob, URL or Hub id; `["train"]` for data without splits."""
    path = Path(dataset).expanduser()
    if path.is_dir():
        return names_of_splits(data_files(path))
    if not is_url(dataset) and (glob.glob(str(path), recursive=True) or not HUB_ID.fullmatch(dataset)):
        return ["train"]
    try:
        return names_of_splits(data_urls(dataset)) if is_url(dataset) else datasets.get_dataset_split_names(dataset)
    except Exception:  # `open_dataset` reports the error
        return ["train"]


class Opened(NamedTuple):
    """An open dataset. files: by name; None for streamed files, Hub datasets and the output of `save_to_disk`. lost:
    `[(file, reason)]` of files, or parts of files, that can't be read."""

    data: Dataset | IterableDataset | Mapping | Table | ParquetFiles | Tars
    files: dict[str, File] | None = None
    lost: Sequence[tuple[str, str]] = ()


def alone(compute: Callable[[], Any]) -> Any:
    """Returns what a function returns, computed by each rank."""
    return compute()


def open_dataset(
    dataset: str, split: str, reading: Reading | None = None, option: str = "", share: Share = alone
) -> Opened:
    """Opens a path, glob, URL, list of files or Hub id.

    option: prefix of the option names in error messages. share: see `open_source`. Raises `ValueError` for a dataset
    that does not exist or can't be read.
    """
    reading = reading or Reading()
    if is_url(dataset):
        return open_urls(dataset, split, reading, option, share)
    path = Path(dataset).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():  # save_to_disk
            return Opened(datasets.load_from_disk(str(path)))
        everything = all_files(path)
        chosen = of_one_group(everything)
        report_links(path)
        note = left_out_note(list(everything), {*chosen, *notes_among(everything, chosen)})
        files = of_split(chosen, split, str(path))
        if note and files:
            log.warning_once(f"{dataset}: {note}.")
        if files and files[0].suffix.lower() not in image_suffixes():
            return load_files(list(map(str, files)), dataset, reading)
        return image_folder(files, path, reading, note)
    files = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
    if files:
        return load_files(files, dataset, reading)
    if any(c in dataset for c in "*?[~") or dataset.startswith((".", "/")) or not HUB_ID.fullmatch(dataset):
        raise ValueError(f"--{option}dataset {dataset}: no such file or folder. Check the path, or give a Hub id.")
    return Opened(share(lambda: hub_dataset(dataset, split, option)))


def open_urls(dataset: str, split: str, reading: Reading, option: str, share: Share) -> Opened:
    """Opens the files of a URL or of a list of files. Returns the same as `open_dataset`."""
    name = without_query(dataset)

    def explained(compute: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            try:
                return compute()
            except Exception as error:  # each library raises other types
                raise ValueError(f"--{option}dataset {name} can't be opened: {without_query(str(error))}") from None

        return run

    files = share(explained(lambda: of_split(data_urls(dataset), split, name)))
    if not files or kind_of(files[0]) in image_suffixes():
        raise ValueError(
            f"--{option}dataset {name} can't be opened: no Parquet files, tars or tables. Images are read from local "
            "folders: copy them, or pack them into tars (img2dataset makes tars from a list of image URLs)."
        )
    load = explained(lambda: load_files(files, name, reading))
    return share(load) if kind_of(files[0]) in SHARDS else load()  # each machine has its own cache of tables


def data_urls(dataset: str) -> dict[str, PurePath | None]:
    """Returns the data files of a URL or of a list of files, `{file: path below the folder or None}`, of one group."""
    files = listed(dataset, {*SHARDS, *TABLES, *image_suffixes()})
    return files if None in files.values() else of_one_group(files)


def hub_dataset(dataset: str, split: str, option: str) -> IterableDataset | ParquetFiles | Tars:
    """Returns a split of a Hub dataset as a stream with known features, or as its Parquet files or tars.

    Raises `ValueError` for a dataset that can't be reached."""
    try:
        with patient_hub():
            builder = datasets.load_dataset_builder(dataset)
            files = list(map(str, (getattr(builder.config, "data_files", None) or {}).get(split, [])))
            if isinstance(builder, WebDataset) and are_tars(files):  # its stream would judge by the first samples
                return Tars(files, builder.info.features)
            data = builder.as_streaming_dataset(split=split)
            return parquet_files(data) or (data if data.features is not None else data._resolve_features())
    except Exception as error:  # the Hub's client raises many types; the user's remedy is the same for all
        raise ValueError(
            f"--{option}dataset {dataset} is neither an existing path nor a Hub dataset (split {split!r}) that can be "
            f"reached. Check the spelling, the split, the network and your access. Error of the Hub: {error}"
        ) from error


def all_files(folder: Path) -> dict[Path, Path]:
    """Returns all files below a folder, sorted, `{file: path below the folder}`."""
    return {file: file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()}


def report_links(folder: Path) -> None:
    """Logs the links to folders below a folder: they are not followed, and may lead around in a circle."""
    folders = (Path(at, name) for at, names, _ in os.walk(folder) for name in names)
    links = sorted(str(link.relative_to(folder)) for link in folders if link.is_symlink())
    if links:
        log.warning_once(
            f"{folder}: {len(links):,} linked folders are not followed: {', '.join(links[:3])}"
            f"{', ...' if len(links) > 3 else ''}. Move the folders themselves there."
        )


def data_files(folder: Path) -> dict[Path, Path]:
    """Returns the sorted data files below a folder, `{file: path below the folder}`, all of one group."""
    return of_one_group(all_files(folder))


def of_one_group(files: Mapping[FILE, PurePath]) -> dict[FILE, PurePath]:
    """Returns the data files among files: shards (Parquet, tars), else images, else tables.

    Images take precedence over tables, because image folders often contain tables of labels or text notes."""
    for kinds in (SHARDS, image_suffixes(), TABLES):
        if chosen := {file: path for file, path in files.items() if kind_of(file) in kinds}:
            return chosen
    return {}


def notes_among(files: Iterable[Path], images: Iterable[Path]) -> list[Path]:
    """Returns the files that may describe images: metadata, and texts with the name of an image."""
    texts = {image.with_suffix(".txt") for image in images}
    return [file for file in files if file.name in METADATA or file in texts]


def split_of(path: PurePath | None) -> str | None:
    """Returns the split name in the path of a file below its folder, or None.

    The name is the file's top folder ("train/cat/1.jpg") or, for files other than images, the beginning of the file
    name ("train-00000-of-00004.parquet")."""
    if path is None:
        return None
    top, *below = path.parts
    words = [word for words in SPLITS.values() for word in words]
    if below and top in words:
        return top
    if path.suffix.lower() in image_suffixes():
        return None
    return next((word for word in words if re.match(rf"{word}(?![a-z])", path.name)), None)


def names_of_splits(files: Mapping[FILE, PurePath | None]) -> list[str]:
    """Returns the split names in the paths of files; `["train"]` if there are none."""
    return sorted({split for path in files.values() if (split := split_of(path))}) or ["train"]


def of_split(files: Mapping[FILE, PurePath | None], split: str, folder: str) -> list[FILE]:
    """Returns the files of one split; all files if no path contains a split name. Raises `ValueError` for an unknown
    split."""
    splits = {file: split_of(path) for file, path in files.items()}
    if not any(splits.values()):
        return list(files)
    chosen = [file for file in files if splits[file] == split]
    if not chosen:
        known = ", ".join(sorted({s for s in splits.values() if s}))
        raise ValueError(f"{folder} has no split {split!r}. Choose one of: {known}.")
    return chosen


def load_files(files: list[str], name: str, reading: Reading) -> Opened:
    """Opens Parquet files and tars as shards, other files as a table on disk.

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
    try:
        if kind == ".parquet":
            parquet = ParquetFiles(files)
            check_lost(parquet.lost, files, name, reading.max_bad_fraction)
            return Opened(parquet)
        if are_tars(files):
            return Opened(Tars(files))
        return Opened(datasets.load_dataset(format, data_files=files, split="train", streaming=True))  # .tar.gz
    except ValueError:
        raise
    except Exception as error:  # each format raises other types
        reason = error.__cause__ or error
        raise ValueError(
            f"{name} can't be read as {kind} files. Check that they are complete and valid. "
            f"{type(reason).__name__}: {reason}"
        ) from error


def image_folder(paths: list[Path], folder: Path, reading: Reading, left_out: str | None = None) -> Opened:
    """Returns a table of image paths with labels and captions.

    The label of an image is the name of its folder. The other columns are those of `notes_on`. left_out: a note on
    other files, for the error. Raises `ValueError` for a folder without images, or metadata that can't be read.
    """
    if not paths:
        raise ValueError(
            f"{folder} contains no image ({', '.join(sorted(image_suffixes()))}) and no other supported file "
            f"({', '.join([*SHARDS, *TABLES])}). Give a folder that contains data files, at any depth."
            + (f" {left_out}." if left_out else "")
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
