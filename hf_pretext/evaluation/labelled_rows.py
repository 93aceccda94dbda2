"""Rows with labels in three splits: which ones they are and what is left out, before anything is decoded.

--eval_dataset, --eval_label -> train / validation / test: where each row lies, its label, its caption
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Value

from ..data.corpus import text_or_none
from ..data.decoding import UNREADABLE
from ..data.sources import Source, open_splits
from .transfer import Labels

CUT_SEED, TEST_SHARE, VALIDATION_SHARE = 0, 0.2, 0.1  # where a set brings no such split
SPLITS = ("train", "validation", "test")
EVALUATION = "eval_"  # what the names of its options begin with


class Row(NamedTuple):
    """Where a row lies (piece, index), its label or None, its text or None."""

    source: Source
    place: tuple[int, int]
    label: object
    text: str | None


class LabelledRows:
    """Rows with labels in three splits.

    What a set lacks is cut from its train split, always in the same way: a test split (a fifth; where there is
    validation, that becomes test) and a validation split (a tenth). Rows without a label (also -1 of a class label, as
    of hidden test splits) are left out and counted in `left_out`, and so is what can't be read. Where captions are
    kept, rows without one are left out, and rows without a label of validation and test are splits of their own (see
    `without_labels`).

    split_by_us: whether the test split was cut from train.
    """

    def __init__(
        self,
        dataset,
        needed: Sequence[str | tuple[str, ...]],
        label: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        limit: int | None = None,
        captions: bool = False,
    ):
        """needed: canonical columns of the inputs (see `open_source`). columns: their names in the data, where they are
        given. limit: rows of each split at most, spread over it.

        Raises `ValueError` for a set without rows or such columns, and for a column that holds no labels."""
        self.keeps_captions = captions
        kinds = [kind for kind in needed if not (captions and kind == "text")]
        asked = {**(columns or {}), "label": label}
        sources = open_splits(dataset, asked, (*kinds, "label", *(["text"] if captions else [])), option=EVALUATION)
        train = sources["train"]
        self.name, self.revision, self.label = train.name, train.revision, train.columns["label"]
        feature = train.features["label"]
        if not isinstance(feature, (ClassLabel, Value)):
            raise ValueError(
                f"{self.name}: the column {self.label!r} holds {type(feature).__name__} values, not one label a row. "
                "Choose another with --eval_label."
            )
        self.left_out: Counter[str] = Counter()
        self._rows: dict[str, list[Row]] = {}
        self._split({split: self._usable(source, limit) for split, source in sources.items()})

    def __len__(self) -> int:
        """Rows in all splits."""
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
                rows.append(Row(source, place, label_of(row, source.features["label"]), text))
        return rows

    def _split(self, usable: dict[str, list[Row]]) -> None:
        rows = {split: [row for row in some if row.label is not None] for split, some in usable.items()}
        rows = {split: some for split, some in rows.items() if some or split == "train"}
        self.split_by_us = "test" not in rows and "validation" not in rows
        self._rows = cut(rows)
        if self.keeps_captions:
            others = {split: [row for row in usable[split] if row.label is None] for split in rows if split != "train"}
            self._rows |= {without_labels(split): some for split, some in validation_as_test(others).items() if some}
        self.left_out["rows without a label"] = sum(map(len, usable.values())) - len(self)

    def _undecoded(self, split: str) -> Iterator[dict]:
        rows = self._rows[split]
        return rows[0].source.take([row.place for row in rows])

    def _keep(self, split: str, problems: Sequence[str | None], what: str) -> None:
        """Leaves out what can't be read. problems: for each row what of it can't be, or None.

        Raises `ValueError` where no row with a label is left."""
        rows = self._rows[split]
        self.left_out.update(f"{problem} that can't be read" for problem in problems if problem is not None)
        self._rows[split] = [row for row, problem in zip(rows, problems, strict=True) if problem is None]
        if not self._rows[split] and split not in SPLITS:
            del self._rows[split]
        elif not self._rows[split]:
            raise ValueError(f"The {split} split of {rows[0].source.name} has no {what} that can be read.")

    def _numbered(self) -> Labels:
        """The labels of the rows that are left. Raises `ValueError` for less than two classes."""
        names = sorted({row.label for split in SPLITS for row in self._rows[split]}, key=str)
        if len(names) < 2:
            raise ValueError(
                f"{self.name}: the column {self.label!r} has {len(names)} classes, and classification needs two. "
                "Choose another with --eval_label, or leave the metrics out with --eval_dataset none."
            )
        number = {name: i for i, name in enumerate(names)}
        splits = {split: np.array([number[row.label] for row in self._rows[split]]) for split in SPLITS}
        if self.keeps_captions:
            unlabelled = len(self) - sum(map(len, splits.values()))
            self.left_out["rows without a label, but for retrieval within their split"] = unlabelled
        self.left_out = +self.left_out
        return Labels(splits, [str(name) for name in names])

    def _parts(self, split: str) -> list[str]:
        return [part for part in (split, without_labels(split)) if part in self._rows]

    def texts(self, split: str) -> list[str]:
        """The texts of a split's labelled rows, in the order of `batches`."""
        return [row.text for row in self._rows[split]]

    def captions(self, split: str) -> list[str]:
        """The captions of a split, in the order of `all_batches`: of rows with a label, then of those without."""
        return [text for part in self._parts(split) for text in self.texts(part)]


def without_labels(split: str) -> str:
    """The name that the rows of a split without a label go by."""
    return f"{split} without labels"


def label_of(row: dict, feature: ClassLabel | Value):
    """A row's label, by its name where it has one; None where it has none."""
    label = row.get("label")
    if label is None or label == "" or label != label:  # NaN
        return None
    if isinstance(feature, ClassLabel):
        return feature.int2str(label) if label >= 0 else None
    return label


def cut(rows: dict[str, list]) -> dict[str, list]:
    """Train, validation and test, those that are missing cut from train.

    Raises `ValueError` when a split would be empty.
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
            f"The labelled set has no rows for {' and '.join(empty)} (rows with a label: {counts}). Give more, or "
            "leave the metrics out with --eval_dataset none."
        )
    return {split: rows[split] for split in SPLITS}


def validation_as_test(rows: dict[str, list]) -> dict[str, list]:
    """The same splits; validation is the test split of a set that brings no other."""
    alone = "validation" in rows and "test" not in rows
    return {"test" if alone and split == "validation" else split: some for split, some in rows.items()}
