"""Rows of a labelled set in three splits, undecoded. Rows that can't be used are left out and counted.

--eval_dataset, --eval_label -> train / validation / test: place of each row, its label, its caption
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from datasets import ClassLabel, Value

from ..data.corpus import text_or_none
from ..data.decoding import UNREADABLE, content_of
from ..data.lines import Reading
from ..data.sources import Source, open_splits
from .transfer import Labels

if TYPE_CHECKING:
    from .timed_films import TimedFilms

CUT_SEED, TEST_SHARE, VALIDATION_SHARE = 0, 0.2, 0.1  # of splits that are cut from train
SPLITS = ("train", "validation", "test")
ONLY_RETRIEVAL = "unlabelled rows, which only the retrieval metrics use"
EVALUATION = "eval_"  # prefix of the options of the labelled set
OR_SKIP = ", or skip the evaluation with --eval_dataset none"  # end of errors, for runs


class Row(NamedTuple):
    """One row. place: (piece, index in the piece). label: None if the row has none. text: the caption, or None.
    by_kind: labels that only one kind of data has, by kind."""

    source: Source
    place: tuple[int, int]
    label: object
    text: str | None
    by_kind: Mapping[str, object]


class LabelledRows:
    """Rows with labels in three splits: train, validation and test.

    Missing splits are cut from train, always the same rows. Without a test split, the validation split becomes the test
    split; without either, the test split is a fifth of train. A missing validation split is a tenth of the remaining
    train rows.

    Rows without a label are left out and counted in `left_out`, and so are rows that can't be read. A class label of -1
    is no label: hidden test splits have it. With captions, rows without a caption are left out, too. Unlabelled rows of
    validation and test then form additional splits (see `without_labels`).

    opened_with: columns by kind, limit, encoding, separator and kind_labels that were given, to open the same rows
    again.
    cut_from_train: the splits that were cut from train. timed: films for temporal localization, which need no label;
    None without.
    """

    timed: "TimedFilms | None" = None

    def __init__(
        self,
        dataset,
        needed: Sequence[str | tuple[str, ...]],
        label: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        limit: int | None = None,
        captions: bool = False,
        reading: Reading | None = None,
        kind_labels: Mapping[str, str] | None = None,
    ):
        """needed: canonical columns of the inputs (see `open_source`). label: column of the labels; default: detected.
        columns: canonical names to names in the data; default: detected. limit: maximum number of rows of each split,
        evenly spaced. captions: keeps the captions of the rows. reading: how files are read. kind_labels: columns of
        labels by which the encoder of one kind of data is measured instead, by kind. A row needs all labels.

        Raises `ValueError` for a set without rows, for missing columns, for splits whose labels are in different
        columns, and for a label column whose values are no single labels."""
        self.keeps_captions = captions
        kinds = [kind for kind in needed if not (captions and "text" in (kind, *kind))]  # captions have no times
        columns_of_kinds = {kind_label(kind): column for kind, column in (kind_labels or {}).items()}
        asked = {**(columns or {}), "label": label, **columns_of_kinds}
        needed = (*kinds, "label", *columns_of_kinds, *(["text"] if captions else []))
        sources = open_splits(dataset, asked, needed, reading, EVALUATION)
        self._dataset, self._reading, self._sources = dataset, reading, sources
        train = sources["train"]
        check_columns(sources)
        self.name, self.revision, self.label = train.name, train.revision, train.columns["label"]
        self.kind_labels = dict(kind_labels or {})
        given = {**(columns or {}), "limit": limit, "encoding": None, "separator": None}
        given |= {name: getattr(reading, name) for name in ("encoding", "separator") if reading}
        self.opened_with = {name: value for name, value in given.items() if value is not None}
        self.opened_with |= {"kind_labels": self.kind_labels} if self.kind_labels else {}
        for name, column, option in (
            ("label", self.label, "eval_label"),
            *((kind_label(kind), column, f"eval_{kind}_label") for kind, column in self.kind_labels.items()),
        ):
            feature = train.features[name]
            check_single(self.name, column, feature, option)
        self.left_out: Counter[str] = Counter()
        self._rows: dict[str, list[Row]] = {}
        self._split({split: self._usable(source, limit) for split, source in sources.items()})

    def __len__(self) -> int:
        """Number of rows in all splits."""
        return sum(len(rows) for rows in self._rows.values())

    def _usable(self, source: Source, limit: int | None) -> list[Row]:
        places = [(piece, i) for piece, count in enumerate(source.counts) for i in range(count)]
        if limit is not None and limit < len(places):
            places = [places[i * len(places) // limit] for i in range(limit)]
        rows = []
        for place, row in zip(places, source.take(places), strict=True):
            text = text_or_none(row, "text") if self.keeps_captions and UNREADABLE not in row else None
            if self.keeps_captions and text is None and UNREADABLE not in row:
                self.left_out["rows without a text"] += 1
            else:
                labels = {kind: label_of(row, source.features, kind_label(kind)) for kind in self.kind_labels}
                label = None if None in labels.values() else label_of(row, source.features)
                rows.append(Row(source, place, label, text, labels))
        return rows

    def _split(self, usable: dict[str, list[Row]]) -> None:
        rows = {split: [row for row in some if row.label is not None] for split, some in usable.items()}
        rows = {split: some for split, some in rows.items() if some or split == "train"}
        self.cut_from_train = {"test", "validation"} - validation_as_test(rows).keys()
        self._rows = cut(rows)
        if self.keeps_captions:
            others = {split: [row for row in usable[split] if row.label is None] for split in rows if split != "train"}
            self._rows |= {without_labels(split): some for split, some in validation_as_test(others).items() if some}
        self.left_out["rows without a label"] = sum(map(len, usable.values())) - len(self)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits: `SPLITS`, then those of rows without a label (see `without_labels`)."""
        return tuple(self._rows)

    def rows(self, split: str) -> list[Row]:
        """Returns the rows of a split, in the order of `batches`."""
        return self._rows[split]

    def column(self, name: str, option: str = "audit_nuisance", apart: bool = False) -> Labels:
        """Returns another column of the labelled rows as labels. Rows without a value have one class, or with `apart` a
        class each. option: that named the column, for errors. Raises `ValueError` for a column that the data lacks, and
        for one whose values are no single labels."""
        opened = open_splits(self._dataset, {"label": name}, ("label",), self._reading, EVALUATION)
        labels = {}
        for split in SPLITS:
            rows = self._rows[split]
            source = next(opened[key] for key, of_rows in self._sources.items() if of_rows is rows[0].source)
            check_single(self.name, name, source.features["label"], option)
            values = [label_of(row, source.features) for row in source.take([row.place for row in rows])]
            missing = [f"no value in row {i} of {split}" if apart else "no value" for i in range(len(values))]
            labels[split] = [none if v is None else str(v) for v, none in zip(values, missing, strict=True)]
        return self._classes(labels, name, option)

    def _undecoded(self, split: str) -> Iterator[dict]:
        rows = self._rows[split]
        return rows[0].source.take([row.place for row in rows])

    def contents(self, split: str, column: str) -> Iterator[bytes]:
        """Yields the bytes of the files in a column of the labelled rows of a split, in the order of `batches`. Raises
        `BadSample` for values that are no files, such as Pillow images."""
        yield from (content_of(row[column], column) for row in self._undecoded(split))

    def _keep(self, split: str, problems: Sequence[str | None], what: str) -> None:
        """Leaves out rows that can't be read. problems: for each row the name of the unreadable data, or None.

        Raises `ValueError` if no labelled row of the split is readable."""
        rows = self._rows[split]
        self.left_out.update(f"{problem} that can't be read" for problem in problems if problem is not None)
        self._rows[split] = [row for row, problem in zip(rows, problems, strict=True) if problem is None]
        if not self._rows[split] and split not in SPLITS:
            del self._rows[split]
        elif not self._rows[split]:
            raise ValueError(
                f"The {split} split of {rows[0].source.name} has no {what} that can be read. Check its files, or give "
                "another set with --eval_dataset."
            )

    def _numbered(self) -> Labels:
        """Returns the labels of the remaining rows. Raises `ValueError` for fewer than two classes."""
        labels = {split: [row.label for row in self._rows[split]] for split in SPLITS}
        if self.keeps_captions:
            self.left_out[ONLY_RETRIEVAL] = len(self) - sum(map(len, labels.values()))
        self.left_out = +self.left_out
        return self._classes(labels, self.label, "eval_label")

    def _numbered_kinds(self) -> dict[str, Labels]:
        """Returns the labels of single kinds of data. Raises `ValueError` like `_numbered`."""
        return {
            kind: self._classes(
                {split: [row.by_kind[kind] for row in self._rows[split]] for split in SPLITS},
                column,
                f"eval_{kind}_label",
            )
            for kind, column in self.kind_labels.items()
        }

    def _classes(self, labels: Mapping[str, Sequence], column: str, option: str) -> Labels:
        names = sorted({label for of_split in labels.values() for label in of_split}, key=str)
        if len(names) < 2:
            raise ValueError(
                f"{self.name}: the column {column!r} has {len(names)} classes, but classification needs 2 or more. "
                f"Give another column with --{option}{OR_SKIP}."
            )
        number = {name: i for i, name in enumerate(names)}
        splits = {split: np.array([number[label] for label in of_split]) for split, of_split in labels.items()}
        return Labels(splits, [str(name) for name in names])

    def _parts(self, split: str) -> list[str]:
        return [part for part in (split, without_labels(split)) if part in self._rows]

    def texts(self, split: str) -> list[str]:
        """Texts of the labelled rows of a split, in the order of `batches`."""
        return [row.text for row in self._rows[split]]

    def captions(self, split: str) -> list[str]:
        """Captions of a split, in the order of `all_batches`: first of labelled rows, then of unlabelled rows."""
        return [text for part in self._parts(split) for text in self.texts(part)]


def check_single(dataset: str, column: str, feature, option: str) -> None:
    """Raises `ValueError` for a column whose values are no single labels. option: that names the column."""
    if not isinstance(feature, (ClassLabel, Value)):
        raise ValueError(
            f"{dataset}: the column {column!r} contains {type(feature).__name__} values instead of one label per row. "
            f"Give another column with --{option}."
        )


def check_columns(sources: Mapping[str, Source]) -> None:
    """Raises `ValueError` for splits whose labels were detected in different columns."""
    columns = {split: source.columns["label"] for split, source in sources.items()}
    if len(set(columns.values())) > 1:
        places = ", ".join(f"{column!r} ({split})" for split, column in columns.items())
        raise ValueError(
            f"{sources['train'].name}: the labels of the splits are in different columns: {places}. Give one column "
            f"that all splits have with --eval_label{OR_SKIP}."
        )


def without_labels(split: str) -> str:
    """Name of the additional split with the unlabelled rows of a split."""
    return f"{split} without labels"


def kind_label(kind: str) -> str:
    """Canonical column of the label that only one kind of data has."""
    return f"label_of_{kind}"


def label_of(row: dict, features: Mapping, name: str = "label"):
    """Returns a label of a row, or None. A class label is returned as the name of its class."""
    label, feature = row.get(name), features[name]
    if label is None or label == "" or label != label:  # NaN
        return None
    if isinstance(feature, ClassLabel):
        return feature.int2str(label) if label >= 0 else None
    return label


def cut(rows: dict[str, list]) -> dict[str, list]:
    """Returns train, validation and test. Missing splits are cut from train.

    Raises `ValueError` if a split is empty.
    """
    rows = validation_as_test(rows)
    for split, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        if split not in rows:
            shuffled = np.random.default_rng(CUT_SEED).permutation(len(rows["train"]))
            first = int(len(shuffled) * share)
            rows[split] = [rows["train"][i] for i in sorted(shuffled[:first])]
            rows["train"] = [rows["train"][i] for i in sorted(shuffled[first:])]
    empty = [split for split in SPLITS if not rows[split]]
    if empty:
        counts = ", ".join(f"{split}: {len(rows[split])}" for split in SPLITS)
        raise ValueError(
            f"The labelled set has no rows for {' and '.join(empty)} (rows with a label: {counts}). Give more "
            f"rows{OR_SKIP}."
        )
    return {split: rows[split] for split in SPLITS}


def validation_as_test(rows: dict[str, list]) -> dict[str, list]:
    """Returns the splits; renames validation to test if the set has no test split."""
    alone = "validation" in rows and "test" not in rows
    return {"test" if alone and split == "validation" else split: some for split, some in rows.items()}
