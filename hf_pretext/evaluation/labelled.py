"""A labelled set, as encoders want it: read once, then handed out as often as needed.

--eval_dataset, --eval_label -> train / validation / test -> batches of the encoder's inputs, labels
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from datasets import ClassLabel, Value
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.corpus import text_or_none
from ..data.decoding import UNREADABLE, BadSample
from ..data.sources import Source, open_splits
from ..modalities.image import Image as ImageProcessing
from .transfer import Labels

KEPT_BYTES = 2**30  # sets up to this size stay in memory between passes
CUT_SEED, TEST_SHARE, VALIDATION_SHARE = 0, 0.2, 0.1  # where a set brings no such split
SPLITS = ("train", "validation", "test")
EVALUATION = "eval_"  # what the names of its options begin with
Row = tuple[Source, tuple[int, int], object, dict]  # where it lies, its label or None, its further columns


class Labelled:
    """Rows with labels in three splits.

    What a set lacks is cut from its train split, always in the same way: a test split (a fifth; where there is
    validation, that becomes test) and a validation split (a tenth). Rows without a label (also -1 of a class label, as
    of hidden test splits) are left out and counted in `left_out`, and so is what can't be read. Where a kind of set has
    a use for rows without a label, those of validation and test are splits of their own (see `without_labels`).

    labels: `transfer.Labels`. split_by_us: whether the test split was cut from train.
    """

    def __init__(
        self,
        dataset,
        kind: str,
        label: str | None = None,
        column: str | None = None,
        limit: int | None = None,
        also: Mapping[str, str | None] | None = None,
        unlabelled: bool = False,
    ):
        """kind: "image" or "text". limit: rows of each split at most, spread over it. also: further columns of texts,
        which rows must have (see `open_source`). unlabelled: whether rows without a label are kept, of the validation
        and test splits that the set brings.

        Raises `ValueError` for a set without rows or such columns, and for a column that holds no labels."""
        self.also = dict(also or {})
        columns = {kind: column, "label": label, **self.also}
        sources = open_splits(dataset, columns, tuple(columns), option=EVALUATION)
        self.name, self.revision = sources["train"].name, sources["train"].revision
        self.label = sources["train"].columns["label"]
        feature = sources["train"].features["label"]
        if not isinstance(feature, (ClassLabel, Value)):
            raise ValueError(
                f"{self.name}: the column {self.label!r} holds {type(feature).__name__} values, not one label a row. "
                "Choose another with --eval_label."
            )
        self.left_out: Counter[str] = Counter()
        found = {split: self._usable(source, limit) for split, source in sources.items()}
        rows = {split: [row for row in some if row[2] is not None] for split, some in found.items()}
        rows = {split: some for split, some in rows.items() if some or split == "train"}
        self.split_by_us = "test" not in rows and "validation" not in rows
        self._rows = cut(rows)
        if unlabelled:
            others = {split: [row for row in found[split] if row[2] is None] for split in rows if split != "train"}
            self._rows |= {without_labels(split): some for split, some in validation_as_test(others).items() if some}
        self.left_out["rows without a label"] = sum(map(len, found.values())) - len(self)

    def __len__(self) -> int:
        """Rows in all splits."""
        return sum(len(rows) for rows in self._rows.values())

    def _usable(self, source: Source, limit: int | None) -> list[Row]:
        places = [(piece, i) for piece, count in enumerate(source.counts) for i in range(count)]
        if limit is not None and limit < len(places):
            places = [places[i * len(places) // limit] for i in range(limit)]
        rows = []
        for place, row in zip(places, source.take(places), strict=True):
            label = label_of(row, source.features["label"])
            lacking = [name for name in self.also if UNREADABLE not in row and text_or_none(row, name) is None]
            if lacking:
                self.left_out[f"rows without a {lacking[0]}"] += 1
            else:
                rows.append((source, place, label, {name: row.get(name) for name in self.also}))
        return rows

    def _numbered(self) -> Labels:
        """The labels of the rows that are left. Raises `ValueError` for less than two classes."""
        names = sorted({label for split in SPLITS for _, _, label, _ in self._rows[split]}, key=str)
        if len(names) < 2:
            raise ValueError(
                f"{self.name}: the column {self.label!r} has {len(names)} classes, and telling them apart needs two. "
                "Choose another with --eval_label, or leave the figures out with --eval_dataset none."
            )
        self.left_out = +self.left_out
        number = {name: i for i, name in enumerate(names)}
        splits = {split: np.array([number[label] for _, _, label, _ in self._rows[split]]) for split in SPLITS}
        return Labels(splits, [str(name) for name in names])

    def _undecoded(self, split: str) -> Iterator[dict]:
        rows = self._rows[split]
        return rows[0][0].take([place for _, place, _, _ in rows])

    def _keep(self, split: str, good: list[bool], what: str) -> None:
        """Leaves out what can't be read. Raises `ValueError` where no row with a label is left."""
        rows = self._rows[split]
        self.left_out[f"{what} that can't be read"] += sum(not ok for ok in good)
        self._rows[split] = [row for row, ok in zip(rows, good, strict=True) if ok]
        if not self._rows[split] and split not in SPLITS:
            del self._rows[split]
        elif not self._rows[split]:
            raise ValueError(f"The {split} split of {rows[0][0].name} has no {what} that can be read.")


class LabelledImages(Labelled):
    """Pictures with labels (see `Labelled`).

    pixels: `{split: uint8 (n, 3, H, W)}`, or None where they would not fit in memory.
    """

    def __init__(
        self,
        dataset,
        processing: ImageProcessing,
        label: str | None = None,
        image_column: str | None = None,
        batch_size: int = 256,
        workers: int = 0,
        limit: int | None = None,
        also: Mapping[str, str | None] | None = None,
        unlabelled: bool = False,
    ):
        """Raises `ValueError` as `Labelled` does, and for less than two classes."""
        super().__init__(dataset, "image", label, image_column, limit, also, unlabelled)
        self.processing, self.batch_size, self.workers = processing, batch_size, workers
        height, width = processing.size
        self.pixels = {} if len(self) * 3 * height * width <= KEPT_BYTES else None
        self._read()
        self.labels = self._numbered()

    def batches(self, split: str) -> "Batches":
        """The pictures of a split as model inputs, in order: an iterable of `{"pixel_values": (B, 3, H, W)}`."""
        return Batches(self, split)

    def _read(self) -> None:
        """One pass over everything, to find the pictures that can't be read and to keep the others if they fit."""
        bar = tqdm(total=len(self), desc="reading the labelled pictures", leave=False)
        for split in list(self._rows):
            parts, good = [], []
            for pixels, kept in self.decoded(split):
                good += kept
                bar.update(len(kept))
                if self.pixels is not None:
                    parts.append(pixels)
            self._keep(split, good, "pictures")
            if self.pixels is not None and split in self._rows:
                self.pixels[split] = torch.cat(parts)
        bar.close()

    def decoded(self, split: str) -> Iterator[tuple[Tensor, list[bool]]]:
        """uint8 pictures of a split in batches, and which of the rows could be read."""
        loader = DataLoader(
            Decoder(self.processing),
            batch_sampler=self._in_batches(split),
            num_workers=self.workers,
            collate_fn=stack_good,
            generator=torch.Generator(),
        )
        return iter(loader)

    def _in_batches(self, split: str) -> Iterator[list[dict]]:
        rows = self._undecoded(split)
        while batch := list(itertools.islice(rows, self.batch_size)):
            yield batch

    def pretext_batches(self, split: str) -> "Batches":
        """The same as a picture objective wants them."""
        return self.batches(split)


class Batches:
    """What `LabelledImages.batches` gives: can be gone through again, knows its length."""

    def __init__(self, labelled: LabelledImages, split: str):
        self.labelled, self.split = labelled, split

    def __len__(self) -> int:
        return -(-len(self.labelled._rows[self.split]) // self.labelled.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.labelled.pixels is not None:
            parts = self.labelled.pixels[self.split].split(self.labelled.batch_size)
        else:
            parts = (pixels for pixels, _ in self.labelled.decoded(self.split))
        for pixels in parts:
            yield self.labelled.processing.finish({"pixel_values": pixels})


class Decoder(Dataset):
    """Runs in the workers: undecoded rows to pictures; None for what can't be read."""

    def __init__(self, processing: ImageProcessing):
        self.processing = processing

    def __getitems__(self, rows: list[dict]) -> list[Tensor | None]:
        return [self._try(row) for row in rows]

    def _try(self, row: dict) -> Tensor | None:
        if UNREADABLE in row:
            return None
        try:
            return self.processing(row, None)["pixel_values"]
        except BadSample:
            return None


def stack_good(examples: list[Tensor | None]) -> tuple[Tensor, list[bool]]:
    """The examples that are there, stacked, and which those are."""
    good = [example for example in examples if example is not None]
    return torch.stack(good) if good else torch.empty(0, dtype=torch.uint8), [e is not None for e in examples]


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
        told = ", ".join(f"{split}: {len(rows[split])}" for split in SPLITS)
        raise ValueError(
            f"The labelled set has no rows for {' and '.join(empty)} (rows with a label: {told}). Give more, or leave "
            "the figures out with --eval_dataset none."
        )
    return {split: rows[split] for split in SPLITS}


def validation_as_test(rows: dict[str, list]) -> dict[str, list]:
    """The same splits; validation is the test split of a set that brings no other."""
    alone = "validation" in rows and "test" not in rows
    return {"test" if alone and split == "validation" else split: some for split, some in rows.items()}
