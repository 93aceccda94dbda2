"""Reads the files next to images, sounds and videos: texts, JSON and subtitles with the name of a medium.

next to 1.mp4: 1.txt -> "text"; 1.json -> "json.caption", "json.label", ...; 1.srt or 1.vtt -> "subtitles"
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from transformers.utils import logging

from .column_types import Votes, settled
from .columns import USUAL_NAMES
from .folders import NEXT_TO, Folder, Wanted, next_to
from .json_rows import array_of, fitted, loaded, str_of, type_of
from .table import check_reasons
from .tars import value_at

log = logging.get_logger(__name__)
VALUE = TypeVar("VALUE")
WHAT = {"text": "texts in .txt files", "json": ".json files", "subtitles": "subtitles"}  # in messages


class Notes(NamedTuple):
    """Columns about media, a value for each medium, and the files that they were read from."""

    columns: dict[str, list | pa.Array]
    files: list[str]


class BadNote(Exception):
    """A note can't be read; the message is the reason, "kind: detail"."""


def notes_next_to(media: Sequence[str], known: Sequence[str], folder: Folder) -> Notes:
    """Returns the columns of the notes next to media. Notes that the objective does not need are not read.

    known: columns that exist without notes. A text is stripped; subtitles are the content of the file, with their
    times. A note that can't be read is None. Raises `ValueError` if there are more of them than
    `reading.max_bad_fraction`."""
    columns: dict[str, list | pa.Array] = {}
    read: list[str] = []
    for name in names_to_read(known, folder.wanted, any(next_to(media, folder.files, NEXT_TO["text"]))):
        paths = next_to(media, folder.files, NEXT_TO[name])
        values = contents(paths, {"text": str.strip, "json": parsed, "subtitles": str}[name], WHAT[name], folder)
        if values:
            read += sorted({path for path in paths if path is not None})
            columns |= fields(paths, values, folder) if name == "json" else {name: [values.get(p) for p in paths]}
    return Notes(columns, read)


def names_to_read(known: Sequence[str], wanted: Wanted, has_texts: bool) -> Iterator[str]:
    """Yields those of `NEXT_TO` that the objective may need. has_texts: True if there are texts next to media."""
    fields_asked = {name for name in wanted.names if name.startswith("json.")}
    others = wanted.names - {*known, *NEXT_TO, *fields_asked}  # columns that do not exist: the error lists all
    no_text = "text" in wanted.detected and not has_texts
    no_label = "label" in wanted.detected and "label" not in known
    for name, instead in {"text": False, "json": no_text or no_label or fields_asked, "subtitles": no_text}.items():
        if others or instead or name in wanted.names or name in wanted.detected:
            yield name


def contents(
    paths: Sequence[str | None], parse: Callable[[str], VALUE], what: str, folder: Folder
) -> dict[str | None, VALUE]:
    """Returns the parsed content of the files that can be read, by path. what: the files are, in messages."""
    values: dict[str | None, VALUE] = {}
    reasons, distinct = [], sorted({path for path in paths if path is not None})
    for path in distinct:
        try:
            with open(path, encoding=folder.reading.encoding or "utf-8-sig") as file:
                values[path] = parse(file.read())
        except UnicodeDecodeError as error:
            reasons.append(f"not UTF-8: {folder.files[path]} (byte 0x{error.object[error.start]:02x})")
        except OSError as error:
            reasons.append(f"unreadable: {folder.files[path]} ({error.strerror})")
        except BadNote as error:
            kind, _, detail = str(error).partition(": ")
            reasons.append(f"{kind}: {folder.files[path]} {detail}".rstrip())
    check_reasons(reasons, len(distinct), f"{folder.name}: {what}", folder.reading.max_bad_fraction)
    return values


def parsed(text: str) -> dict[str, Any]:
    """Returns the fields of a JSON object. Raises `BadNote` for other content."""
    value, reason = loaded(text.encode(errors="surrogatepass"))
    if reason is not None or value is None:
        raise BadNote(reason)
    return value


def fields(paths: Sequence[str | None], objects: Mapping[str | None, dict], folder: Folder) -> dict[str, pa.Array]:
    """Returns a column "json.<field>" for each field of JSON objects, and "json.<field>.<field>" if it is asked for.

    A value of another type than most of its column is None, with a warning."""
    asked = sorted(name for name in folder.wanted.names if name.startswith("json."))
    flat: dict[str | None, dict[str, Any]] = {}
    votes: Votes = {}
    for path, each in objects.items():
        values = {f"json.{str_of(key)}": value for key, value in each.items() if "\0" not in key}
        inner = {name: value_at(each, name.split(".")[1:]) for name in asked if name not in values}
        flat[path] = values | {name: value for name, value in inner.items() if value is not None}
        for name, value in flat[path].items():
            votes.setdefault(name, Counter())[type_of(value)] += 1
    columns: dict[str, pa.Array] = {}
    for field in settled(votes).schema:
        fit = {path: fitted(values.get(field.name), field.type) for path, values in flat.items()}
        columns[field.name] = array_of([fit[path][0] if path in fit else None for path in paths], field.type)
        if wrong := sorted((folder.files[path], reason) for path, (_, reason) in fit.items() if reason):
            log.warning_once(
                f"{folder.name}: {len(wrong):,} of {len(flat):,} values of {field.name!r} are left out. The first: "
                f"{wrong[0][1]} in {wrong[0][0]}"
            )
    return columns


def label_fields(columns: Sequence[str]) -> list[str]:
    """Returns the fields of JSON that have a usual name of labels."""
    return [name for name in columns if name.lower() in {f"json.{usual}" for usual in USUAL_NAMES["label"]}]
