"""Opens a Hub id, a folder, files or the output of `save_to_disk` as a `datasets` object.

"path/to/images", "shards/*.tar", "user/name", "s3://bucket/folder" -> Dataset, IterableDataset, DatasetDict, Tars or
ParquetFiles
"""

import csv
import glob
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import datasets
import fsspec
import pyarrow as pa
from datasets import Dataset, Image, IterableDataset
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from transformers.utils import logging

from ..utils.paths import without_query
from .contents import File, files_of
from .formats import image_suffixes, left_out_note
from .parquet import ParquetFiles, parquet_files
from .remote import file_facts, patient_hub, short_names
from .tars import Tars, are_tars
from .urls import is_url, listed

SHARDS = {".parquet": "parquet", ".tar": "webdataset"}  # streamed
TABLES = {".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
METADATA = ("metadata.csv", "metadata.jsonl")  # of an image folder, as in `datasets`
COMPRESSION = {".gz", ".zst", ".xz", ".bz2"}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
FILE = TypeVar("FILE", str, Path)
log = logging.get_logger(__name__)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


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


def open_dataset(
    dataset: str, split: str, sample_by: str | None, option: str, share: Callable[[Callable[[], Any]], Any]
) -> tuple[Dataset | IterableDataset | ParquetFiles | Tars | Mapping, dict[str, File] | None]:
    """Opens a path, glob, URL, list of files or Hub id. Returns a `datasets` object, `ParquetFiles` or `Tars`, and its
    files by name.

    The files are None for streamed files, Hub datasets and the output of `save_to_disk`. sample_by: the unit of a row
    of a plain text file. option: prefix of the option names in error messages. share: see `open_source`. Raises
    `ValueError` for a dataset that does not exist or can't be read.
    """
    if is_url(dataset):
        return share(lambda: open_urls(dataset, split, sample_by, option))
    path = Path(dataset).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():  # save_to_disk
            return datasets.load_from_disk(str(path)), None
        everything = all_files(path)
        chosen = of_one_group(everything)
        note = left_out_note(list(everything), {*chosen, *notes_among(everything, chosen)})
        files = of_split(chosen, split, str(path))
        if note and files:
            log.warning_once(f"{dataset}: {note}.")
        if files and files[0].suffix.lower() not in image_suffixes():
            return load_files(list(map(str, files)), dataset, sample_by)
        return image_folder(files, path, note)
    files = sorted(glob.glob(str(path), recursive=True))
    if files:
        return load_files(files, dataset, sample_by)
    if any(c in dataset for c in "*?[~") or dataset.startswith((".", "/")) or not HUB_ID.fullmatch(dataset):
        raise ValueError(f"--{option}dataset {dataset}: no such file or folder. Check the path, or give a Hub id.")
    return share(lambda: hub_dataset(dataset, split, option)), None


def open_urls(dataset: str, split: str, sample_by: str | None, option: str) -> tuple:
    """Opens the files of a URL or of a list of files. Returns the same as `open_dataset`."""
    name = without_query(dataset)
    try:
        files = of_split(data_urls(dataset), split, name)
        if not files or kind_of(files[0]) in image_suffixes():
            raise ValueError(
                "no Parquet files, tars or tables. Images are read from local folders: copy them, or pack them into "
                "tars (img2dataset makes tars from a list of image URLs)."
            )
        return load_files(files, name, sample_by)
    except Exception as error:  # each library raises other types
        raise ValueError(f"--{option}dataset {name} can't be opened: {without_query(str(error))}") from None


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


def alone(compute: Callable[[], Any]) -> Any:
    """Returns what a function returns, computed by each rank."""
    return compute()


def all_files(folder: Path) -> dict[Path, Path]:
    """Returns all files below a folder, sorted, `{file: path below the folder}`."""
    return {file: file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()}


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


def kind_of(file: str | Path) -> str:
    """Returns the lowercase suffix of a file, without the suffix of its compression."""
    suffixes = [suffix.lower() for suffix in Path(without_query(str(file))).suffixes] or [""]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in COMPRESSION else suffixes[-1]


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


def load_files(
    files: list[str], name: str, sample_by: str | None = None
) -> tuple[Dataset | IterableDataset | ParquetFiles | Tars, dict[str, File] | None]:
    """Opens Parquet files as `ParquetFiles`, tars as `Tars`, other files as a table on disk.

    Returns the data and, for a table, its files by name. Raises `ValueError` for files of several
    formats, of an unsupported format, or that `datasets` can't read.
    """
    kinds = {kind_of(file) for file in files}
    kind = next(iter(kinds))
    builder = {**SHARDS, **TABLES}.get(kind)
    if len(kinds) > 1 or builder is None:
        known = ", ".join([*SHARDS, *TABLES])
        raise ValueError(
            f"{name} has files of the formats {', '.join(sorted(kinds))}. Give files of one supported format: {known}."
        )
    if kind == ".parquet":
        try:
            return ParquetFiles(files), None
        except OSError as error:  # names the file
            raise ValueError(str(error)) from error
    options = {"sep": "\t"} if kind == ".tsv" else {}
    if builder == "text":
        options["sample_by"] = sample_by or ("paragraph" if any(map(has_blank_line, files)) else "line")
    try:
        if are_tars(files):
            return Tars(files), None
        data = datasets.load_dataset(builder, data_files=files, split="train", streaming=kind in SHARDS, **options)
    except Exception as error:  # each format raises other types
        reason = error.__cause__ or error
        raise ValueError(
            f"{name} can't be read as {kind} files. Check that they are complete and valid. "
            f"{type(reason).__name__}: {reason}"
        ) from error
    if kind in SHARDS:
        return data, None
    return data, files_of(short_names(files), files, file_facts(files))


def has_blank_line(file: str) -> bool:
    """Returns True if a plain text file, compressed or not, has an empty line between two lines of text."""
    with fsspec.open(file, "rt", encoding="utf-8", errors="replace", compression="infer") as lines:
        text = itertools.dropwhile(str.isspace, lines)
        return any(not line.isspace() for line in itertools.dropwhile(lambda line: line != "\n", text))


def image_folder(paths: list[Path], folder: Path, left_out: str | None = None) -> tuple[Dataset, dict[str, File]]:
    """Returns a table of image paths with labels and captions, and the files by name.

    The label of an image is the name of its folder. The columns of `metadata.csv` or `metadata.jsonl` are added; their
    `file_name` is relative to the folder of the metadata file. Without metadata files, the `.txt` file with the name of
    an image becomes its column `text`. left_out: a note on other files, for the error. Raises `ValueError` for a folder
    without images, or metadata that can't be read.
    """
    if not paths:
        raise ValueError(
            f"{folder} contains no image ({', '.join(sorted(image_suffixes()))}) and no other supported file "
            f"({', '.join([*SHARDS, *TABLES])}). Give a folder that contains data files, at any depth."
            + (f" {left_out}." if left_out else "")
        )
    metadata, note_files = notes_on(paths, folder)
    names = list(dict.fromkeys(name for row in metadata for name in row))
    columns = {
        "label": [path.parent.name for path in paths],
        **{name: [row.get(name) for row in metadata] for name in names},
    }
    try:
        data = Dataset.from_dict({"image": [str(path) for path in paths], **columns})
    except pa.ArrowException as error:
        raise ValueError(
            f"{folder}: a metadata column contains values of different types. Use one type per column. {error}"
        ) from error
    files = {path: path.stat() for path in [*paths, *note_files]}
    files = {str(path.relative_to(folder)): File(str(path), of.st_size, str(of.st_mtime)) for path, of in files.items()}
    return data.cast_column("image", Image(decode=False)), files


def notes_on(paths: list[Path], folder: Path) -> tuple[list[dict], list[Path]]:
    """Returns the metadata of each image, `{column: value}`, and the files it was read from.

    Raises `ValueError` for a metadata file without the column `file_name`, or one that can't be read."""
    files, metadata = sorted(file for name in METADATA for file in folder.rglob(name)), {}
    for file in files:
        for row in metadata_rows(file):
            if "file_name" not in row:
                raise ValueError(f"{file} has no column file_name. Add it, with the path of each row's image.")
            metadata[file.parent / str(row["file_name"])] = {
                name: row[name] for name in row if name not in ("file_name", "image")
            }
    if files:
        report_unmatched(folder, paths, metadata)
        return [metadata.get(path, {}) for path in paths], files
    texts = {path: path.with_suffix(".txt") for path in paths}
    text_files = {text for text in texts.values() if text.is_file()}
    if not text_files:
        return [{} for _ in paths], []
    read = {text: text.read_text(encoding="utf-8", errors="replace").strip() for text in text_files}
    return [{"text": read.get(texts[path])} for path in paths], sorted(text_files)


def report_unmatched(folder: Path, paths: list[Path], metadata: Mapping[Path, dict]) -> None:
    """Logs the number and three examples of metadata rows whose image does not exist, and of images without a row."""
    images = set(paths)
    missing = [path for path in metadata if path not in images and not path.is_file()]
    for what, some in (
        (f"of {len(metadata):,} metadata rows have no image (column file_name)", missing),
        (f"of {len(paths):,} images have no metadata row", [path for path in paths if path not in metadata]),
    ):
        if some:
            examples = ", ".join(str(path.relative_to(folder)) for path in some[:3])
            log.warning_once(f"{folder}: {len(some):,} {what}: {examples}{', ...' if len(some) > 3 else ''}")


def metadata_rows(file: Path) -> list[dict]:
    """Returns the rows of a metadata file. Raises `ValueError` for a file that can't be read."""
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            if file.suffix == ".csv":
                return list(csv.DictReader(lines))
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} can't be read as a {file.suffix} file in UTF-8: {error}") from error


def choose_split(data: Mapping[str, Dataset | IterableDataset], split: str, name: str):
    """Returns one split of a dict of splits. Raises `ValueError` for an unknown split; the message lists all splits."""
    if split not in data:
        raise ValueError(f"{name} has no split {split!r}. Choose one of: {', '.join(data)}.")
    return data[split]
