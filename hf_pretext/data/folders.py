"""Lists the files of a folder, and selects those that are the data of an objective.

folder -> {file: path below the folder}, in one pass -> shards, or media of the wanted kinds, or tables
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from ..utils.paths import suffix_of
from .lines import Reading, kind_of
from .media_suffixes import NAMES, ONE, counts_by_suffix, kinds_by_suffix, media_kind, suffixes_of

SHARDS = {".parquet": "parquet", ".tar": "webdataset"}  # streamed
TABLES = {".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
METADATA = ("metadata.csv", "metadata.jsonl")  # as in `datasets`
NEXT_TO = {"text": (".txt",), "json": (".json",), "subtitles": (".srt", ".vtt")}  # files with the name of a medium
LANGUAGE = re.compile(r"\.[a-zA-Z]{2,3}(-\w+)*$")  # .en, .en-US, .zh-Hans
FRAMES = " Images can be taken from videos, for example: ffmpeg -i a.mp4 -vf fps=1 a-%05d.jpg"
Files = Mapping[str, str]  # {path or URL: path below the folder}, sorted


class Wanted(NamedTuple):
    """What an objective reads. needed: canonical columns; of a tuple, one is enough. asked: names of columns in the
    data, by canonical name; None to detect them. further: columns that other readers of the same data need."""

    needed: Sequence[str | tuple[str, ...]] = ("image",)
    asked: Mapping[str, str | None] = {}
    further: Sequence[str | tuple[str, ...]] = ()

    @property
    def media(self) -> list[tuple[str, ...]]:
        """Kinds of media, of each tuple one. Those without an alternative come first."""
        groups = [tuple(kind for kind in group if kind in NAMES) for group in self.groups]
        return sorted(dict.fromkeys(filter(None, groups)), key=len)

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Canonical columns of `needed` and `further`, as tuples."""
        return [(kind,) if isinstance(kind, str) else kind for kind in (*self.needed, *self.further)]

    @property
    def detected(self) -> set[str]:
        """Canonical columns whose names in the data are not given."""
        return {kind for group in self.groups for kind in group if self.asked.get(kind) is None}

    @property
    def names(self) -> set[str]:
        """Names of columns in the data that are given."""
        return {name for name in self.asked.values() if name is not None}


class Folder(NamedTuple):
    """A folder that is opened. name: its path. files: all files below it. wanted: what the objective reads. reading:
    how files are read."""

    name: str
    files: Files
    wanted: Wanted
    reading: Reading


class Selected(NamedTuple):
    """The data files of a folder. kind: of media; None for shards and tables."""

    files: Files
    kind: str | None = None


class Listing(NamedTuple):
    """The files of a folder. links: linked folders, which are not followed. closed: `[(path, reason)]` of what can't be
    listed."""

    files: dict[str, str]
    links: list[str]
    closed: list[tuple[str, str]]


def listing(folder: str) -> Listing:
    """Lists all files below a folder, sorted by the parts of their paths."""
    start, result, stack = str(PurePath(folder)), Listing({}, [], []), [""]
    start = "" if start == "." else os.path.join(start, "")
    while stack:
        below = stack.pop()
        if below and not below.endswith("/"):
            result.files[start + below] = below
            continue
        try:
            entries = sorted(os.scandir(start + below or "."), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            result.closed.append((below, error.strerror or str(error)))
            continue
        for entry in entries:
            if not is_utf_8(entry.name):
                result.closed.append((repr(below + entry.name), "its name is not UTF-8"))
            elif entry.is_dir(follow_symlinks=False):
                stack.append(f"{below}{entry.name}/")
            elif is_file(entry):
                stack.append(below + entry.name)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                result.links.append(below + entry.name)
    return result


def is_file(entry: os.DirEntry) -> bool:
    """Returns True for a regular file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # links in a circle, for example
        return False


def is_utf_8(name: str) -> bool:
    """Returns True for a file name that Arrow can store."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def select(files: Files, wanted: Wanted) -> Selected:
    """Returns the data files among files: shards (Parquet, tars), else media of a wanted kind, else tables.

    If the objective takes no media, images take precedence over tables, because their folders often contain texts about
    them. Next to media of kinds that it does not take, files about them (`notes_among`) are no tables."""
    if shards := {file: path for file, path in files.items() if kind_of(file) in SHARDS}:
        return Selected(shards)
    media = media_of(files)
    for kind in wanted.media[0] if wanted.media else ("image",):
        if kind in media:
            return Selected(media[kind], kind)
    tables = {file: path for file, path in files.items() if kind_of(file) in TABLES}
    if wanted.media and tables:
        about = set(notes_among([file for of_kind in media.values() for file in of_kind], files)) if media else ()
        tables = {file: path for file, path in tables.items() if file not in about}
    return Selected(tables)


def media_of(files: Files) -> dict[str, dict[str, str]]:
    """Returns the images, sounds and videos among files, by kind."""
    media: dict[str, dict[str, str]] = {}
    kinds = kinds_by_suffix()
    for file, path in files.items():
        if (kind := media_kind(file, kinds)) is not None:
            media.setdefault(kind, {})[file] = path
    return media


def stem_of(file: str) -> str:
    """Returns a path without its last suffix."""
    return os.path.splitext(file)[0]


def next_to(media: Sequence[str], files: Files, suffixes: Sequence[str]) -> list[str | None]:
    """Returns for each medium the file with its name and the first of some suffixes that exists; None if none does.

    Subtitles may have a language after the name, as film.en.vtt, if they are the only ones of a film."""
    others: dict[str, dict[str, str]] = {}
    by_language: dict[str, list[str]] = {}
    for file in files:
        if (suffix := suffix_of(file)) in suffixes:
            others.setdefault(stem_of(file), {}).setdefault(suffix, file)
            if suffix in NEXT_TO["subtitles"] and LANGUAGE.search(stem_of(file)):
                by_language.setdefault(stem_of(stem_of(file)), []).append(file)
    if not others:
        return [None] * len(media)
    files_next_to = []
    for stem in map(stem_of, media):
        some, of_a_language = others.get(stem, {}), by_language.get(stem, [])
        only = of_a_language[0] if len(of_a_language) == 1 else None
        files_next_to.append(next((some[suffix] for suffix in suffixes if suffix in some), only))
    return files_next_to


def notes_among(media: Sequence[str], files: Files) -> Iterator[str]:
    """Yields the files that are about media: metadata, else texts and JSON with their names; and subtitles."""
    metadata = metadata_among(files)
    yield from metadata
    for name, suffixes in NEXT_TO.items():
        if name == "subtitles" or not metadata:
            yield from filter(None, next_to(media, files, suffixes))


def metadata_among(files: Files) -> list[str]:
    """Returns the metadata files among files."""
    return [file for file in files if os.path.basename(file) in METADATA]


def no_data(name: str, files: Files, wanted: Wanted) -> str:
    """Returns the error for a folder without files that the objective takes. name: of the dataset."""
    kinds = wanted.media[0] if wanted.media else ()
    if media := media_of(files):
        missing = " or ".join(NAMES[kind] for kind in kinds) or "tars, Parquet files or tables of texts"
        has = " and ".join(
            f"{len(some):,} {NAMES[kind]} ({counts_by_suffix(some)})" for kind, some in sorted(media.items())
        )
        others = " or ".join(NAMES[kind] for kind in sorted(media))
        return (
            f"{name} has {has} and no {missing}, which this objective takes. Give other data, or choose an objective "
            f"that takes {others}.{FRAMES if 'video' in media and kinds == ('image',) else ''}"
        )
    known = " and no ".join(
        f"{ONE[kind].split()[1]} ({', '.join(sorted(suffixes_of(kind)))})" for kind in kinds or ("image",)
    )
    return (
        f"{name} contains no {known} and no other supported file ({', '.join([*SHARDS, *TABLES])}). Give a folder that "
        "contains data files, at any depth."
    )
