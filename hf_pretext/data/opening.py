"""What `--dataset` may name, to a `datasets` object: a Hub id, a folder, files, what `save_to_disk` wrote.

"path/to/pictures", "shards/*.tar", "user/name" -> Dataset, IterableDataset or DatasetDict
"""

import csv
import glob
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
from datasets import Dataset, Image, IterableDataset

from .remote import file_facts, patient_hub, short_names, sizes_of

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SHARDS = {".parquet": "parquet", ".tar": "webdataset"}  # streamed
TABLES = {".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
METADATA = ("metadata.csv", "metadata.jsonl")  # beside pictures, as `datasets` has them
COMPRESSION = {".gz", ".zst", ".xz", ".bz2"}
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


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


def open_dataset(
    dataset: str, split: str, sample_by: str | None = None, option: str = ""
) -> tuple[Dataset | IterableDataset | Mapping, dict[str, int] | None]:
    """A path, glob or Hub id to a `datasets` object, and the sizes of its files where they are not its own to tell.

    sample_by: what a row of a plain text file is. option: what the option's name begins with, for what errors say.
    Raises `ValueError` for what is not there.
    """
    path = Path(dataset).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():  # of save_to_disk
            return datasets.load_from_disk(str(path)), None
        files = of_split(data_files(path), split, path)
        if files and files[0].suffix.lower() not in IMAGE_SUFFIXES:
            return load_files(list(map(str, files)), dataset, sample_by)
        return image_folder(files, path)
    files = sorted(glob.glob(str(path), recursive=True))
    if files:
        return load_files(files, dataset, sample_by)
    if any(c in dataset for c in "*?[~") or dataset.startswith((".", "/")) or not HUB_ID.fullmatch(dataset):
        raise ValueError(
            f"--{option}dataset {dataset}: there is no such file or folder. Check the path, or give a Hub id."
        )
    try:
        with patient_hub():
            return hub_dataset(dataset, split), None
    except Exception as error:  # the Hub's client has many; to a user they all mean the same
        raise ValueError(
            f"--{option}dataset {dataset} is neither a path that exists here nor a Hub dataset (split {split!r}) that "
            f"can be reached. Check the spelling, the split, the network and your access. The Hub said: {error}"
        ) from error


def hub_dataset(dataset: str, split: str) -> IterableDataset:
    """A Hub dataset's split as a stream whose columns are known."""
    data = datasets.load_dataset(dataset, split=split, streaming=True)
    return data if data.features is not None else data._resolve_features()


def data_files(folder: Path) -> list[Path]:
    """Files of one kind below a folder, sorted: shards (Parquet, tars) before pictures before tables, since pictures
    come with lists of labels and notes."""
    candidates = sorted(file for file in folder.rglob("*") if file.is_file())
    for kinds in (SHARDS, IMAGE_SUFFIXES, TABLES):
        if files := [file for file in candidates if kind_of(file) in kinds]:
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
    splits = {file: split_of(file, folder) for file in files}
    if not any(splits.values()):
        return files
    chosen = [file for file in files if splits[file] == split]
    if not chosen:
        known = ", ".join(sorted({s for s in splits.values() if s}))
        raise ValueError(f"{folder} has no split {split!r}. Its splits: {known}.")
    return chosen


def load_files(
    files: list[str], name: str, sample_by: str | None = None
) -> tuple[Dataset | IterableDataset, dict[str, int] | None]:
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
    if builder == "text":
        options["sample_by"] = sample_by or ("paragraph" if any(map(has_blank_line, files)) else "line")
    try:
        data = datasets.load_dataset(builder, data_files=files, split="train", streaming=kind in SHARDS, **options)
    except Exception as error:  # each format has its own
        reason = error.__cause__ or error
        raise ValueError(f"{name} can't be read as {kind} files: {type(reason).__name__}: {reason}") from error
    if kind in SHARDS:
        return data, None
    return data, sizes_of(short_names(files), file_facts(files))


def has_blank_line(file: str) -> bool:
    """Whether a plain text file, maybe compressed, has an empty line between two that are not."""
    with fsspec.open(file, "rt", encoding="utf-8", errors="replace", compression="infer") as lines:
        text = itertools.dropwhile(str.isspace, lines)
        return any(not line.isspace() for line in itertools.dropwhile(lambda line: line != "\n", text))


def image_folder(paths: list[Path], folder: Path) -> tuple[Dataset, dict[str, int]]:
    """Pictures as a table of paths; the name of a picture's own folder is its label. With the files' sizes.

    What a `metadata.csv` or `metadata.jsonl` says of a picture, by its `file_name` in the metadata's own folder, is
    further columns; without one, so is the text of a file of the picture's name that ends in `.txt`. Raises
    `ValueError` where there is no picture, or for metadata that can't be read.
    """
    if not paths:
        raise ValueError(
            f"{folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))}) and no file of {', '.join(SHARDS)} or "
            f"{', '.join(TABLES)}. Give the folder that holds them, at any depth."
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
        raise ValueError(f"{folder}: a column of its metadata holds values of different types. {error}") from error
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in [*paths, *note_files]}
    return data.cast_column("image", Image(decode=False)), sizes


def notes_on(paths: list[Path], folder: Path) -> tuple[list[dict], list[Path]]:
    """What files beside pictures say of each, and which files those are."""
    files, metadata = sorted(file for name in METADATA for file in folder.rglob(name)), {}
    for file in files:
        for row in metadata_rows(file):
            if "file_name" not in row:
                raise ValueError(f"{file} has no column file_name, which says what picture a row is of.")
            metadata[file.parent / row["file_name"]] = {
                name: row[name] for name in row if name not in ("file_name", "image")
            }
    if files:
        return [metadata.get(path, {}) for path in paths], files
    texts = {path: path.with_suffix(".txt") for path in paths}
    text_files = {text for text in texts.values() if text.is_file()}
    if not text_files:
        return [{} for _ in paths], []
    read = {text: text.read_text(encoding="utf-8", errors="replace").strip() for text in text_files}
    return [{"text": read.get(texts[path])} for path in paths], sorted(text_files)


def metadata_rows(file: Path) -> list[dict]:
    """The rows of a metadata file. Raises `ValueError` where it can't be read."""
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            if file.suffix == ".csv":
                return list(csv.DictReader(lines))
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} can't be read: {error}") from error


def choose_split(data: Mapping[str, Dataset | IterableDataset], split: str, name: str):
    """One split of several. Raises `ValueError` that lists them where it is not among them."""
    if split not in data:
        raise ValueError(f"{name} has no split {split!r}. Its splits: {', '.join(data)}.")
    return data[split]
