"""Suffixes of the files of each kind of media, and a count of the files that are not read.

"cat/1.MP4" -> "video"; files of a folder -> "5 files are left out, by suffix: 3 .gif, 2 .txt"
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..utils.paths import suffix_of
from .image_suffixes import HOW, image_suffixes

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts")
NAMES = {"image": "images", "audio": "sounds", "video": "videos"}  # of the kinds of media, in messages
ONE = {"image": "an image", "audio": "a sound", "video": "a video"}
NO_DATA = ("readme", "license", "licence")  # names of files, without their suffix, that are not reported


def suffixes_of(kind: str) -> Sequence[str]:
    """Returns the suffixes of the files of a kind of media: `image`, `audio` or `video`."""
    return {"image": sorted(image_suffixes()), "audio": SOUNDS, "video": VIDEOS}[kind]


def kinds_by_suffix() -> dict[str, str]:
    """Returns the kind of media of each suffix."""
    return {suffix: kind for kind in NAMES for suffix in suffixes_of(kind)}


def is_hidden(file: str) -> bool:
    """Returns True for a file whose name begins with a dot, like the ._1.jpg that macOS writes."""
    return os.path.basename(file).startswith(".")


def media_kind(file: str, kinds: Mapping[str, str]) -> str | None:
    """Returns the kind of media of a path or URL, by its last suffix; None for a hidden or another file.

    kinds: `kinds_by_suffix()`."""
    kind = kinds.get(suffix_of(file))
    return None if kind is None or is_hidden(file) else kind


def counts_by_suffix(files: Iterable[str]) -> str:
    """Returns the number of files of each suffix, the most frequent first: "3 .gif, 2 .txt"."""
    return ", ".join(
        f"{count:,} {suffix or 'without a suffix'}{f' (to read them: {HOW[suffix]})' if suffix in HOW else ''}"
        for suffix, count in Counter(map(suffix_of, files)).most_common()
    )


def left_out_note(files: Iterable[str], used: Collection[str]) -> str | None:
    """Returns the number of files by suffix that are not used, with the fix if a package reads them; None for none.

    Hidden files and those of `NO_DATA` do not count."""
    others = [file for file in files if file not in used and not is_hidden(file)]
    others = [file for file in others if os.path.splitext(os.path.basename(file))[0].lower() not in NO_DATA]
    return f"{len(others):,} files are left out, by suffix: {counts_by_suffix(others)}" if others else None
