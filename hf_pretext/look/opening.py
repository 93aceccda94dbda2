"""Opens every kind of data that a data set has, as training opens the kinds of an objective.

--dataset -> {split: Source with the columns of all kinds}, other columns, notes of what is left out
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from datasets import Features

from ..data.columns import PATHS, USUAL_NAMES, candidates, find_column, holds_paths, second_choice, type_name
from ..data.folders import SHARDS, Wanted, listing, media_of, next_to
from ..data.lines import Reading, kind_of
from ..data.media_suffixes import kinds_by_suffix, media_kind, suffixes_of
from ..data.opening import Opened
from ..data.sources import Source, name_of, open_columns, usual_splits
from ..data.tars import Tars
from ..modalities import modality_classes
from ..samples import located

KINDS = ("image", "video", "audio", "text", "subtitles")  # canonical columns that are looked at
NEEDING = ("image", "video", "audio", "text")  # kinds with a modality, which knows the packages that it needs
LABEL = "label"
SAVED = ("dataset_info.json", "dataset_dict.json")  # of `save_to_disk`
PROBED = 8  # rows that decide whether a column of strings has paths
OPTIONS = {"text": "text_column", LABEL: LABEL}  # option that names the column of a kind; `column` for the others


class DataSet(NamedTuple):
    """An open data set. sources: by split. others: types of the columns that are of no kind, by name. asked: kinds
    whose columns were named. notes: what is left out, and how training would differ."""

    name: str
    sources: dict[str, Source]
    others: dict[str, str]
    asked: set[str]
    notes: list[str]

    @property
    def columns(self) -> dict[str, str]:
        """Names of the columns in the data, by kind, in the order of `KINDS`; of all splits."""
        all_columns = {kind: name for source in self.sources.values() for kind, name in source.columns.items()}
        return {kind: all_columns[kind] for kind in (*KINDS, LABEL) if kind in all_columns}


def open_data_set(
    dataset: str, split: str | None, asked: Mapping[str, str | None], reading: Reading, column: str | None = None
) -> DataSet:
    """Opens a data set, with the columns of every kind of data in it.

    split: name of one split; None: those of `open_splits`. asked: names of columns, by `LABEL` and "text". column: of
    the images, sounds or videos, or of the texts of data without them.
    Raises `ValueError` for a data set that can't be opened or has nothing to look at, for a column that does not exist,
    and for a kind of data whose packages are missing."""
    data = DataSet(name_of(dataset), {}, {}, set(), [])
    with noted() as notes:
        wanted = wanted_of(dataset, asked, column)
        for title, of_data in splits_of(dataset, split, wanted).items():
            opened, features, given = open_columns(dataset, of_data, wanted, reading)
            of_option = kind_asked(opened, features, column, data.name)
            data.asked.update({*of_option, *(kind for kind in ("text", LABEL) if asked.get(kind))} - {*opened.kinds})
            columns = columns_in(opened, features, {**given, **of_option}, data)
            data.sources[title] = Source(opened.data, columns, data.name, features, opened.files, opened.lost)
            data.others.update({name: type_name(features[name]) for name in features if name not in columns.values()})
            notes += [opened.note] if opened.note else []
    for modality in modality_classes({*NEEDING} & {*data.columns}).values():
        modality.check_packages()
    notes = [*data.notes, *(without_name(note, data.name) for note in notes)]
    return data._replace(notes=list(dict.fromkeys(notes)))


@contextmanager
def noted() -> Iterator[list[str]]:
    """Yields a list that gets the warnings of this package, in place of the log."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    notes: list[str] = []
    handler, logger = Notes(logging.WARNING), logging.getLogger(__package__.partition(".")[0])
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield notes
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def without_name(note: str, name: str) -> str:
    """Returns a note without the name of the data set at its start and the full stop at its end."""
    return note.removeprefix(f"{located(name)}: ").removeprefix(f"{name}: ").removesuffix(".")


def wanted_of(dataset: str, asked: Mapping[str, str | None], column: str | None) -> Wanted:
    """Returns what is read of a folder: its most frequent kind of media, and those with the same names.

    column: a kind of media, which comes first; or any other column."""
    path, media = Path(located(dataset)).expanduser(), {}
    if path.is_dir() and not any((path / name).exists() for name in SAVED):
        files = listing(str(path)).files
        if not any(kind_of(file) in SHARDS for file in files):
            media = media_of(files)
    if not media:
        return Wanted(("text",), asked)
    main = column if column in media else max(media, key=lambda kind: len(media[kind]))
    others = [
        kind for kind in media if kind != main and any(next_to([*media[main]], files, suffixes_of(kind)))
    ]  # where no file has the name of another, `open_media` raises
    return Wanted((main, *others), asked, ("text", "subtitles", LABEL))


def splits_of(dataset: str, split: str | None, wanted: Wanted) -> dict[str, str]:
    """Returns the names of the splits to open in the data, by the name that is shown."""
    if split is not None:
        return {split: split}
    names = usual_splits(dataset, wanted)
    if names["train"] is None and len(names) > 1:  # a folder of tests alone
        del names["train"]
    return {title: name or title for title, name in names.items()}


def columns_in(opened: Opened, features: Features, asked: Mapping[str, str | None], data: DataSet) -> dict[str, str]:
    """Returns `{kind: name of its column}` of all kinds that the data has.

    asked: names of columns. data: gets a note where training needs a choice. Raises `ValueError` if no column of any
    kind exists, and for a column that does not exist."""
    columns: dict[str, str] = {}
    kinds = kinds_of_strings(opened, features)
    for kind in (*KINDS, LABEL):
        some = Features({c: f for c, f in features.items() if kind not in PATHS or kinds.get(c, kind) == kind})
        typed, usual = candidates(some, kind)
        if asked.get(kind) is None and not (typed or usual or second_choice(some, kind)):
            continue
        try:
            columns[kind] = find_column(features if asked.get(kind) else some, kind, asked.get(kind), data.name)
        except ValueError as error:
            problem = with_our_options(str(error), kind)
            if asked.get(kind) is not None:
                raise ValueError(problem) from None
            columns[kind] = [*([c for c in typed if c in usual] or typed or usual), *second_choice(some, kind)][0]
            data.asked.add(kind)
            problem = problem.partition(" Columns: ")[0].removeprefix(f"{data.name} ")
            data.notes.append(f"the data {problem} This command looked at {columns[kind]!r}")
    if not {*columns} & {*KINDS}:
        raise ValueError(
            f"{data.name}: no column of images, texts, sounds or videos was detected. Name it with --column. Its "
            f"columns: {listed(features)}."
        )
    return columns


def listed(features: Features) -> str:
    """Returns the names and types of columns."""
    return ", ".join(f"{name} ({type_name(feature)})" for name, feature in features.items())


def with_our_options(message: str, kind: str) -> str:
    """Returns an error with the options of this command in place of those of training."""
    ours = f"--{OPTIONS.get(kind, 'column')}"
    return message.replace("--eval_label", ours).replace(f"--{kind}_column", ours)


def kind_asked(opened: Opened, features: Features, column: str | None, name: str) -> dict[str, str]:
    """Returns `{kind: column}` of --column: its kind by its type, the suffixes of its paths, else "text".

    name: of the data set. Raises `ValueError` for a column that does not exist."""
    if column is None or column in opened.kinds:
        return {}
    column = opened.data.named(column) if isinstance(opened.data, Tars) else column
    if column not in features:
        raise ValueError(f"{name} has no column {column!r} (--column). Its columns: {listed(features)}.")
    typed = next((kind for kind in PATHS if column in candidates(features, kind)[0]), None)
    return {typed or kinds_of_strings(opened, features, [column]).get(column) or "text": column}


def kinds_of_strings(opened: Opened, features: Features, columns: list[str] | None = None) -> dict[str, str | None]:
    """Returns the kind of media of each column of strings, by the suffixes of its first values; None for texts.

    columns: default: those with a usual name of media or of paths."""
    names = {name for kind in PATHS for name in (*USUAL_NAMES[kind], *PATHS[kind])}
    columns = [column for column in features if column.lower() in names] if columns is None else columns
    columns = [column for column in columns if holds_paths(features[column])]
    if not columns:
        return {}
    names = {f"column {i}": column for i, column in enumerate(columns)}  # no canonical names: paths are not followed
    source = Source(opened.data, names, features=features, files=opened.files)
    piece = next(piece for piece, count in enumerate(source.counts) if count)
    rows = source.read_rows(piece, 0, min(PROBED, source.counts[piece]))
    suffixes = kinds_by_suffix()
    kinds = {column: [media_kind(str(row.get(name)), suffixes) for row in rows] for name, column in names.items()}
    return {column: next(filter(None, of_rows), None) for column, of_rows in kinds.items()}
