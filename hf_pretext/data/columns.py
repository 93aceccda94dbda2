"""Finds the columns of images, texts, labels, ... in a dataset, by type or by usual name.

features {"jpg": Image(), "cls": Value("int64")} -> {"image": "jpg", "label": "cls"}
"""

from collections.abc import Mapping, Sequence

import PIL.Image
from datasets import Audio, ClassLabel, Features, Image, Json, Value, Video
from transformers.utils import logging

log = logging.get_logger(__name__)
USUAL_NAMES = {
    "image": ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    "text": ("text", "caption", "sentence", "content", "document", "txt"),
    "audio": ("audio", "sound", "speech", "wav", "flac", "mp3", "ogg", "opus", "m4a", "aac"),
    "video": ("video", "clip", "mp4", "m4v", "mov", "webm", "mkv", "avi"),
    "subtitles": ("subtitles", "srt", "vtt"),
    "label": ("label", "labels", "class", "category", "cls", "fine_label", "target"),
}
TEXTS = ("text", "subtitles")  # canonical columns of strings, which may be the narrations of a film
TIMES = ("start", "end")  # canonical columns of the times of a list of texts
CAPTION_LISTS = ("captions", "sentences", "texts")  # names of columns of several texts, used after the usual ones
PATHS = {  # names of columns of paths, used if a dataset has no other column of the kind
    "image": ("file_name", "filename", "image_path", "image_file", "filepath", "file_path", "path"),
    "audio": ("audio_path", "file_name", "filename", "file_path", "path"),
    "video": ("video_path", "file_name", "filename", "file_path", "path"),
}
URLS = ("url", "image_url", "img_url", "coco_url", "flickr_url")
STRINGS = ("string", "large_string", "string_view")
DOWNLOAD = "download the images with img2dataset (pip install img2dataset) and give its output folder."
TYPES = {"image": Image, "audio": Audio, "video": Video, "label": ClassLabel}


def find_one_of(
    features: Features, kinds: Sequence[str], asked: Mapping[str, str | None], name: str, prefix: str = ""
) -> tuple[str, str]:
    """Returns the first of several canonical columns that the dataset has, and its name in the dataset.

    A column named in `asked` comes before all others. A text column that is named like subtitles is one of them where
    they are among `kinds`. Raises `ValueError` as `find_column` does; for the first of `kinds` if the dataset has none
    of them."""
    named = [kind for kind in kinds if asked.get(kind) is not None]
    present = [kind for kind in kinds if any(candidates(features, kind)) or (kind == "text" and texts_of(features))]
    present = present or [kind for kind in kinds if second_choice(features, kind)]
    kind = next(iter([*named, *present, kinds[0]]))
    if {*present} == {*TEXTS} and not named and not {*TIMES} & {each.rpartition(".")[2] for each in features}:
        advice = "its texts are used. --text_column subtitles takes the others."
        log.warning_once(f"{name} has texts and subtitles: {advice}")
    if kind == "text" and "subtitles" in kinds and asked.get(kind) in candidates(features, "subtitles")[1]:
        return "subtitles", asked[kind]
    return kind, find_column(features, kind, asked.get(kind), name, prefix)


def find_column(
    features: Features, kind: str, asked: str | None = None, name: str = "the dataset", prefix: str = ""
) -> str:
    """Returns the name of the column of images, texts, labels, ...: `asked`, else by type, else by usual name.

    prefix: prefix of the options that choose a column, for error messages. Raises `ValueError` for a missing column,
    several candidates, or a text column of another type; the message lists all columns.
    """
    listing = ", ".join(f"{column} ({type_name(feature)})" for column, feature in features.items())
    option = f"--{prefix}{kind}_column" if kind in USUAL_NAMES else f"--{kind.partition('/')[0]}"
    option = "--eval_label" if kind == "label" else option
    if asked is not None:
        if asked not in features:
            raise ValueError(f"{name} has no column {asked!r} ({option}). Its columns: {listing}.")
        if kind == "text" and not holds_captions(features[asked]):
            raise ValueError(f"{name}: the column {asked!r} ({option}) contains no texts. Its columns: {listing}.")
        return asked
    typed, usual = candidates(features, kind)
    if not typed and not usual:
        usual = second_choice(features, kind)
    for some in ([c for c in typed if c in usual], typed, usual):
        if len(some) == 1:
            return some[0]
    if not typed and not usual:
        urls = [column for column in features if kind == "image" and column.lower() in URLS]
        advice = f"The column {urls[0]!r} has URLs: {DOWNLOAD}" if urls else f"Name the column with {option}."
        raise ValueError(f"{name}: no column of {kind}s was detected. {advice} Columns: {listing}.")
    choice = ", ".join(dict.fromkeys(typed + usual))
    raise ValueError(f"{name} has several columns of {kind}s: {choice}. Choose one with {option}. Columns: {listing}.")


def candidates(features: Features, kind: str) -> tuple[list[str], list[str]]:
    """Returns the candidate columns of images, texts, labels, ...: those of its type, and those of its usual names."""
    typed = [column for column, feature in features.items() if kind in TYPES and isinstance(feature, TYPES[kind])]
    names = USUAL_NAMES.get(kind, ())
    usual = [column for column in features if column.lower() in names]
    if not usual and kind in ("text", "label"):  # fields of the JSON members of a tar
        usual = [column for column in features if column.lower() in {f"json.{name}" for name in names}]
    return typed, [column for column in usual if kind not in TEXTS or holds_text(features[column])]


def second_choice(features: Features, kind: str) -> list[str]:
    """Returns the columns of lists or dicts of texts by their usual names; for other kinds, the columns of paths."""
    if kind == "text":
        return texts_of(features)
    return [column for column in features if column.lower() in PATHS.get(kind, ()) and holds_paths(features[column])]


def texts_of(features: Features) -> list[str]:
    """Returns the columns of lists or dicts of texts by their usual names, else those of JSON members."""
    names = (*USUAL_NAMES["text"], *CAPTION_LISTS)
    some = [column for column in features if holds_captions(features[column])]
    usual = [column for column in some if column.lower() in names]
    return usual or [column for column in some if column.lower() in {f"json.{name}" for name in names}]


def times_of(features: Features, column: str, name: str) -> dict[str, str]:
    """Returns `{"start": ..., "end": ...}`, the names of the columns of times next to a column of lists of texts; `{}`
    for other texts and for lists without times.

    They have the names "start" and "end", in the same JSON as the texts. Raises `ValueError` for one without the
    other."""
    before = column[: -len(column.rpartition(".")[2])]
    times = {time: f"{before}{time}" for time in TIMES if f"{before}{time}" in features}
    feature = features[column]
    if isinstance(feature, Value) and feature.dtype in STRINGS:
        return {}
    if len(times) == 1:
        missing = next(f"{before}{time}" for time in TIMES if time not in times)
        raise ValueError(
            f"{name}: the texts in {column!r} have times in {next(iter(times.values()))!r}, but the column {missing!r} "
            "is missing. Give the start and the end of each text in seconds, or neither."
        )
    return times


def holds_paths(feature) -> bool:
    """Returns True for a column of strings."""
    return isinstance(feature, Value) and feature.dtype in STRINGS


def holds_captions(feature) -> bool:
    """Returns True for a column of strings, lists of strings, dicts of strings (as by language), JSON, or of unknown
    type."""
    inner = feature.values() if isinstance(feature, dict) else [getattr(feature, "feature", feature)]
    return isinstance(feature, Json) or all(map(holds_text, inner))


def holds_text(feature) -> bool:
    """Returns True for a column of strings or of unknown type."""
    return isinstance(feature, Value) and feature.dtype in (*STRINGS, "null")


def type_name(feature) -> str:
    """Returns a short name of a column's type, for error messages."""
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__


def features_of(row: dict) -> Features:
    """Returns the features of plain rows, read from one row. Raises `ValueError` for a row that is not a dict."""
    if not isinstance(row, dict):
        raise ValueError(
            f"The first row is a {type(row).__name__}. Give rows that are dicts of columns, as {{'image': ...}}."
        )
    return Features({name: Image() if isinstance(v, PIL.Image.Image) else Value("null") for name, v in row.items()})
