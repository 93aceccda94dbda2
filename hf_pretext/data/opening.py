"""Opens a Hub id, a folder, files or the output of `save_to_disk` as a `datasets` object.

"path/to/images", "shards/*.tar", "user/name", "s3://bucket/folder" -> Dataset, IterableDataset, DatasetDict, Table,
Tars or ParquetFiles
"""

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets import Dataset, IterableDataset
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from transformers.utils import logging

from ..samples import located
from ..utils.paths import without_query
from .contents import File
from .folders import SHARDS, TABLES, Folder, Listing, Selected, Wanted, listing, no_data, select
from .lines import Reading, kind_of
from .media_folder import files_in_use, open_media
from .media_suffixes import kinds_by_suffix, left_out_note, media_kind
from .parquet import ParquetFiles, parquet_files
from .remote import patient_hub
from .table import Table, check_lost, open_table
from .tars import Tars, are_tars
from .urls import is_url, listed

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
Share = Callable[[Callable[[], Any]], Any]  # gives all ranks what a function returns on one
log = logging.get_logger(__name__)


def split_names(dataset: str, wanted: Wanted) -> list[str]:
    """Returns the split names of a path, glob, URL or Hub id; `["train"]` for data without splits.

    wanted: decides which files of a folder are read."""
    path = Path(located(dataset)).expanduser()
    if path.is_dir():
        return names_of_splits(select(listing(str(path)).files, wanted).files)
    if not is_url(dataset) and (glob.glob(str(path), recursive=True) or not HUB_ID.fullmatch(dataset)):
        return ["train"]
    try:
        if is_url(dataset):
            return names_of_splits(data_urls(dataset, wanted))
        return datasets.get_dataset_split_names(dataset)
    except Exception:  # `open_dataset` reports the error
        return ["train"]


class Opened(NamedTuple):
    """An open dataset. files: by name; None for streamed files, Hub datasets and the output of `save_to_disk`. lost:
    `[(file, reason)]` of files, or parts of files, that can't be read. kinds: of the media of a folder, each a column.
    note: about files of a folder that are left out."""

    data: Dataset | IterableDataset | Mapping | Table | ParquetFiles | Tars
    files: dict[str, File] | None = None
    lost: Sequence[tuple[str, str]] = ()
    kinds: Sequence[str] = ()
    note: str | None = None


def alone(compute: Callable[[], Any]) -> Any:
    """Returns what a function returns, computed by each rank."""
    return compute()


def open_dataset(
    dataset: str, split: str, wanted: Wanted, reading: Reading | None = None, option: str = "", share: Share = alone
) -> Opened:
    """Opens a path, glob, URL, list of files, Hub id, or a bundled data set by its name.

    wanted: decides which files of a folder are read. option: prefix of the option names in error messages. share: see
    `open_source`. Raises `ValueError` for a dataset that does not exist or can't be read.
    """
    reading = reading or Reading()
    if is_url(dataset):
        return open_urls(dataset, split, wanted, reading, option, share)
    path = Path(located(dataset)).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():  # save_to_disk
            return Opened(datasets.load_from_disk(str(path)))
        return open_folder(path, split, wanted, reading, option)
    files = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
    if files:
        return load_files(files, dataset, reading)
    if any(c in dataset for c in "*?[~") or dataset.startswith((".", "/")) or not HUB_ID.fullmatch(dataset):
        raise ValueError(f"--{option}dataset {dataset}: no such file or folder. Check the path, or give a Hub id.")
    return Opened(share(lambda: hub_dataset(dataset, split, option)))


def open_folder(path: Path, split: str, wanted: Wanted, reading: Reading, option: str) -> Opened:
    """Opens a folder: its shards, media or tables. Logs what is left out. Returns the same as `open_dataset`."""
    everything = listing(str(path))
    folder = Folder(str(path), everything.files, wanted, reading)
    selected = select(folder.files, wanted)
    report_listing(folder.name, everything)
    if not selected.files:
        note = left_out_note(folder.files, ())
        raise ValueError(
            f"--{option}dataset {no_data(folder.name, folder.files, wanted)}" + (f" {note}." if note else "")
        )
    used = files_in_use(selected, folder)
    files = of_split(selected.files, split, folder.name)
    if selected.kind is None:
        opened = load_files(files, folder.name, reading)
    else:
        of_this = Selected({file: folder.files[file] for file in files}, selected.kind)
        media = open_media(of_this, folder, has_class_folders(selected.files))
        opened = Opened(media.data, media.files, kinds=media.kinds)
    note = left_out_note(folder.files, used)
    if note:
        log.warning_once(f"{folder.name}: {note}.")
    return opened._replace(note=note)


def open_urls(dataset: str, split: str, wanted: Wanted, reading: Reading, option: str, share: Share) -> Opened:
    """Opens the files of a URL or of a list of files. Returns the same as `open_dataset`."""
    name = without_query(dataset)

    def explained(compute: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            try:
                return compute()
            except Exception as error:  # each library raises other types
                raise ValueError(f"--{option}dataset {name} can't be opened: {without_query(str(error))}") from None

        return run

    files = share(explained(lambda: of_split(data_urls(dataset, wanted), split, name)))
    if not files or media_kind(files[0], kinds_by_suffix()):
        raise ValueError(
            f"--{option}dataset {name} can't be opened: no Parquet files, tars or tables. Images, sounds and videos "
            "are read from local folders: copy them, or pack them into tars (img2dataset makes tars from a list of "
            "image URLs, video2dataset from one of videos)."
        )
    load = explained(lambda: load_files(files, name, reading))
    return share(load) if kind_of(files[0]) in SHARDS else load()  # each machine has its own cache of tables


def data_urls(dataset: str, wanted: Wanted) -> Mapping[str, str | None]:
    """Returns the data files of a URL or of a list of files, `{file: path below the folder or None}`, of one group."""
    files = listed(dataset, {*SHARDS, *TABLES, *kinds_by_suffix()})
    if None in files.values():
        return dict.fromkeys(files)
    return select({file: path.as_posix() for file, path in files.items()}, wanted).files


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


def report_listing(folder: str, everything: Listing) -> None:
    """Logs the links to folders below a folder, which are not followed, as they may lead around in a circle, and what
    can't be listed."""
    if links := everything.links:
        log.warning_once(
            f"{folder}: {len(links):,} linked folders are not followed: {', '.join(links[:3])}"
            f"{', ...' if len(links) > 3 else ''}. Move the folders themselves there."
        )
    if closed := everything.closed:
        log.warning_once(
            f"{folder}: {len(closed):,} files or folders are left out: "
            f"{', '.join(f'{path} ({reason})' for path, reason in closed[:3])}{', ...' if len(closed) > 3 else ''}"
        )


def split_of(path: str | None, media: Mapping[str, str]) -> str | None:
    """Returns the split name in the path of a file below its folder, or None.

    The name is the file's top folder ("train/cat/1.jpg") or, for files other than media, the beginning of the file name
    ("train-00000-of-00004.parquet"). media: `kinds_by_suffix()`."""
    if path is None:
        return None
    top, *below = path.split("/")
    words = [word for words in SPLITS.values() for word in words]
    if below and top in words:
        return top
    if media_kind(path, media):
        return None
    name = path.rpartition("/")[2]
    return next((word for word in words if re.match(rf"{word}(?![a-z])", name)), None)


def splits_of(files: Mapping[str, str | None]) -> dict[str, str | None]:
    """Returns the split name of each file, or None."""
    media = kinds_by_suffix()
    return {file: split_of(path, media) for file, path in files.items()}


def has_class_folders(files: Mapping[str, str]) -> bool:
    """Returns True if the media of all splits together lie in several folders. The folder of a split has no classes.

    files: `{path: path below the folder}`. A split with a single class has class folders if another one has two."""
    splits = splits_of(files)
    used = [file for file in files if splits[file]] or list(files)
    folders = {(splits[file], files[file].rpartition("/")[0]) for file in used}
    return len({None if below in ("", split) else below.rpartition("/")[2] for split, below in folders}) > 1


def names_of_splits(files: Mapping[str, str | None]) -> list[str]:
    """Returns the split names in the paths of files; `["train"]` if there are none."""
    return sorted({split for split in splits_of(files).values() if split}) or ["train"]


def of_split(files: Mapping[str, str | None], split: str, folder: str) -> list[str]:
    """Returns the files of one split; all files if no path contains a split name. Raises `ValueError` for an unknown
    split."""
    splits = splits_of(files)
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
        if any(media_kind(file, kinds_by_suffix()) for file in files):
            known += ". Images, sounds and videos are read from their folder: give the folder"
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


def choose_split(data: Mapping[str, Dataset | IterableDataset], split: str, name: str):
    """Returns one split of a dict of splits. Raises `ValueError` for an unknown split; the message lists all splits."""
    if split not in data:
        raise ValueError(f"{name} has no split {split!r}. Choose one of: {', '.join(data)}.")
    return data[split]
