"""A labelled set of pictures, as encoders want it: read and decoded once, then handed out as often as needed.

--eval_dataset, --eval_label -> train / validation / test -> batches {"pixel_values"}, labels
"""

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from datasets import ClassLabel
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.decoding import UNREADABLE, BadSample
from ..data.processing import ImageProcessing
from ..data.sources import Source, open_splits
from .transfer import Labels

KEPT_BYTES = 2**30  # sets up to this size stay in memory between passes
CUT_SEED, TEST_SHARE, VALIDATION_SHARE = 0, 0.2, 0.1  # where a set brings no such split
SPLITS = ("train", "validation", "test")


class LabelledImages:
    """Pictures with labels in three splits.

    What a set lacks is cut from its train split, always in the same way: a test split (a fifth; where there is
    validation, that becomes test) and a validation split (a tenth). Rows without a label and pictures that can't be
    read are left out and counted in `left_out`.

    labels: `transfer.Labels`. pixels: `{split: uint8 (n, 3, H, W)}`, or None where they would not fit in memory.
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
    ):
        """limit: rows of each split at most, for smoke runs. Raises `ValueError` for a set without rows, without
        such columns, or with less than two classes."""
        self.processing, self.batch_size, self.workers = processing, batch_size, workers
        sources = open_splits(dataset, {"image": image_column, "label": label}, ("image", "label"))
        self.name = sources["train"].name
        self.label = sources["train"].columns["label"]
        self.left_out: Counter[str] = Counter()
        self._rows = cut({split: self._labelled(source, limit) for split, source in sources.items()})
        height, width = processing.size
        pictures = sum(len(rows) for rows in self._rows.values())
        self.pixels = {} if pictures * 3 * height * width <= KEPT_BYTES else None
        self._read()
        names = sorted({label for rows in self._rows.values() for _, _, label in rows}, key=str)
        if len(names) < 2:
            raise ValueError(
                f"{sources['train'].name}: the column {self.label!r} has {len(names)} classes, and telling them apart "
                "needs two. Choose another with --eval_label, or leave the figures out with --eval_dataset none."
            )
        number = {name: i for i, name in enumerate(names)}
        splits = {split: np.array([number[label] for _, _, label in rows]) for split, rows in self._rows.items()}
        self.labels = Labels(splits, [str(name) for name in names])

    def __len__(self) -> int:
        """Pictures in all splits."""
        return sum(len(rows) for rows in self._rows.values())

    def batches(self, split: str) -> "Batches":
        """The pictures of a split as model inputs, in order: an iterable of `{"pixel_values": (B, 3, H, W)}`."""
        return Batches(self, split)

    def _labelled(self, source: Source, limit: int | None) -> list[tuple[Source, tuple[int, int], object]]:
        feature = source.features["label"]
        places = [(piece, i) for piece, count in enumerate(source.counts) for i in range(count)]
        if limit is not None and limit < len(places):  # spread over the split, not its beginning
            places = [places[i * len(places) // limit] for i in range(limit)]
        rows = []
        for place, row in zip(places, source.take(places), strict=True):
            label = row.get("label")
            if label is None or label == "":
                self.left_out["rows without a label"] += 1
            else:
                rows.append((source, place, feature.int2str(label) if isinstance(feature, ClassLabel) else label))
        return rows

    def _read(self) -> None:
        """One pass over everything, to find the pictures that can't be read and to keep the others if they fit."""
        bar = tqdm(total=len(self), desc="reading the labelled pictures", leave=False)
        for split, rows in self._rows.items():
            parts, good = [], []
            for pixels, kept in self.decoded(split):
                good += kept
                bar.update(len(kept))
                if self.pixels is not None:
                    parts.append(pixels)
            self.left_out["pictures that can't be read"] += sum(not ok for ok in good)
            self._rows[split] = [row for row, ok in zip(rows, good, strict=True) if ok]
            if not self._rows[split]:
                raise ValueError(f"The {split} split of {rows[0][0].name} has no picture that can be read.")
            if self.pixels is not None:
                self.pixels[split] = torch.cat(parts)
        bar.close()
        self.left_out = +self.left_out

    def decoded(self, split: str) -> Iterator[tuple[Tensor, list[bool]]]:
        """uint8 pictures of a split in batches, and which of the rows could be read."""
        loader = DataLoader(
            Decoder(self.processing),
            batch_sampler=self._undecoded(split),
            num_workers=self.workers,
            collate_fn=stack_good,
            generator=torch.Generator(),
        )
        return iter(loader)

    def _undecoded(self, split: str) -> Iterator[list[dict]]:
        rows = self._rows[split]
        source = rows[0][0]
        taken = source.take([place for _, place, _ in rows])
        while batch := list(itertools.islice(taken, self.batch_size)):
            yield batch


class Batches:
    """What `LabelledImages.batches` gives: can be gone through again, knows its length."""

    def __init__(self, labelled: LabelledImages, split: str):
        self.labelled, self.split = labelled, split

    def __len__(self) -> int:
        return -(-len(self.labelled.labels.splits[self.split]) // self.labelled.batch_size)

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


def cut(rows: dict[str, list]) -> dict[str, list]:
    """Train, validation and test, those that are missing cut from train.

    Raises `ValueError` when a split would be empty.
    """
    rows = dict(rows)
    if "test" not in rows and "validation" in rows:
        rows["test"] = rows.pop("validation")
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
