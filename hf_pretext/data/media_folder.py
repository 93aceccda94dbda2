"""Opens a folder of images, sounds or videos as a table of paths, with labels and what is noted about each file.

a/1.mp4, a/1.wav, a/1.txt -> {"video": "a/1.mp4", "audio": "a/1.wav", "label": "a", "text": ...}, paths undecoded
"""

import os
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

from datasets import Dataset
from transformers.utils import logging

from .columns import TYPES
from .contents import File
from .folders import Folder, Selected, Wanted, metadata_among, next_to, notes_among
from .media_suffixes import NAMES, ONE, suffixes_of
from .metadata import metadata_columns
from .notes import Notes, label_fields, notes_next_to

log = logging.get_logger(__name__)


class MediaFolder(NamedTuple):
    """The media of a folder. files: by their path below the folder, those of notes included. kinds: of media."""

    data: Dataset
    files: dict[str, File]
    kinds: list[str]


def open_media(selected: Selected, folder: Folder, class_folders: bool) -> MediaFolder:
    """Returns a table of the paths of media, with the columns "label" and those of metadata or of files next to them.

    selected: the media of a split. class_folders: whether the media of all splits lie in several folders. The label of
    a medium is the name of its folder. If all lie in one folder and JSON next to them has a usual name of labels, that
    field is the label. Raises `ValueError` if media of a second kind that the objective takes are missing, or if too
    many notes can't be read."""
    media, kind = list(selected.files), selected.kind
    partners = partners_of(media, kind, folder)
    report_alone(media, kind, partners, folder)
    columns = {kind: media, **partners}
    kinds = list(columns)
    labels = [os.path.basename(os.path.dirname(path)) for path in media]
    no_label = not class_folders and "label" not in folder.wanted.names
    notes = notes_on(media, kind, [*kinds, *([] if no_label else ["label"])], folder)
    noted = {name: values for name, values in notes.columns.items() if name not in kinds}
    if not (no_label and label_fields(list(noted))):
        columns["label"] = labels
    data = Dataset.from_dict(columns | noted)
    for each in kinds:
        data = data.cast_column(each, TYPES[each](decode=False))
    paths = [path for each in kinds for path in columns[each] if path is not None] + notes.files
    stats = {folder.files[path]: (path, os.stat(path)) for path in paths}
    files = {name: File(path, of.st_size, str(of.st_mtime)) for name, (path, of) in stats.items()}
    return MediaFolder(data, files, kinds)


def notes_on(media: list[str], kind: str, known: list[str], folder: Folder) -> Notes:
    """Returns the columns of metadata; without metadata, those of the files next to media. Subtitles are always files.

    known: columns that exist without notes."""
    metadata = metadata_among(folder.files)
    if not metadata:
        return notes_next_to(media, known, folder)
    notes = metadata_columns(media, kind, metadata, folder)
    if "subtitles" not in folder.wanted.detected or "subtitles" in notes.columns:
        return notes
    subtitles = notes_next_to(media, known, folder._replace(wanted=Wanted(("subtitles",))))
    return Notes({**subtitles.columns, **notes.columns}, [*notes.files, *subtitles.files])


def files_in_use(selected: Selected, folder: Folder) -> set[str]:
    """Returns the data files of a folder, those of further kinds, and what is noted about them.

    Raises `ValueError` if media of a second kind that the objective takes are missing."""
    media = list(selected.files)
    if selected.kind is None:
        return set(media)
    partners = partners_of(media, selected.kind, folder)
    return {*media, *chain.from_iterable(partners.values()), *notes_among(media, folder.files)} - {None}


def partners_of(media: list[str], kind: str, folder: Folder) -> dict[str, list[str | None]]:
    """Returns the media of further kinds that the objective takes: those with the name of a medium, `{kind: paths}`.

    A video that may be a sound needs no sound next to it. Raises `ValueError` if no medium has one of a needed kind."""
    partners: dict[str, list[str | None]] = {}
    for group in folder.wanted.media[1:]:
        paths = {other: next_to(media, folder.files, suffixes_of(other)) for other in group if other != kind}
        other = next((other for other in group if other == kind or any(paths[other])), None)
        if other is None and not any(folder.wanted.asked.get(other) for other in group):
            raise ValueError(no_partner(media, kind, group, folder))
        if other not in (None, kind):
            partners[other] = paths[other]
    return partners


def report_alone(media: list[str], kind: str, partners: Mapping[str, list[str | None]], folder: Folder) -> None:
    """Logs the number and three examples of media without one of a further kind."""
    for other, paths in partners.items():
        alone = [folder.files[medium] for medium, path in zip(media, paths, strict=True) if path is None]
        has_sound = any({kind, other} <= {*group} for group in folder.wanted.media)  # a video may be a sound
        if alone:
            what = "so their own sound is used" if has_sound else "and are bad samples"
            log.warning_once(
                f"{folder.name}: {len(alone):,} of {len(media):,} {NAMES[kind]} have no file of {NAMES[other]} with "
                f"their name, {what}: {', '.join(alone[:3])}"
                f"{', ...' if len(alone) > 3 else ''}"
            )


def no_partner(media: list[str], kind: str, group: tuple[str, ...], folder: Folder) -> str:
    """Returns the error for media of which none has a second kind that the objective takes."""
    name = folder.files[media[0]]
    pair = f"{os.path.splitext(name)[0]}{suffixes_of(group[0])[0]}"
    return (
        f"{folder.name}: none of the {len(media):,} {NAMES[kind]} has {' or '.join(ONE[other] for other in group)} of "
        f"the same name next to it, which this objective takes. Give pairs like {name} and {pair}, or Parquet files, "
        "tars or a table with both columns."
    )
