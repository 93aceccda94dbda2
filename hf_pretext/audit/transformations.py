"""What an encoder makes of changed inputs: which changes it ignores, which it shows, and which act as linear maps.

batches of train, validation, test -> each transformation at each level -> encoder -> features (n, d) of each level
 -> invariance, bits of the level that a linear reader gets from one view, equivariance

It is often said that a pretext task teaches an invariance. Here it is measured, for every objective alike, next to an
untrained encoder. For a transformation with L equally frequent levels, a reader gets at most log2(L) bits.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from ..evaluation.transfer import SPLITS
from ..utils.places import evenly
from .equivariance import Whitener, equivariance, invariance
from .image_changes import blurred, compressed, cropped, flipped, grayed, hue_rotated, of_pixels, rotated, shifted
from .readers import Splits, linear_reader, undefined
from .sound_changes import amplified, delayed, noisy, pitched
from .text_changes import cased, reordered, shortened

ROWS = {"train": 1000, "validation": 200, "test": 400}  # 15 s on one core for a small ResNet at 64 pixels
OF_COLOURS = ("hue", "gray")  # transformations that do not change grey images
INVARIANCE, PARAMETER, EQUIVARIANCE = "invariance", "parameter_bits", "equivariance"  # begin of metrics' names
log = logging.get_logger(__name__)
Batch = Any  # normalised images (B, 3, H, W), texts, waves (B, T), or {column: (B, ...)}


@dataclass(frozen=True)
class Transformation:
    """One change of inputs.

    name: in metrics. levels: of its parameter; the first one leaves inputs unchanged. change: (batch, level) -> batch
    of the same size. It is deterministic, and what it makes of a row does not depend on the other rows."""

    name: str
    levels: Sequence[Any]
    change: Callable[[Batch, Any], Batch]


def image_transformations(mean: Tensor, std: Tensor) -> tuple[Transformation, ...]:
    """Returns the transformations of normalised images, `(B, 3, S, S)`.

    mean, std (`(3,)`): the normalisation of pixels from 0 to 255, as of `modalities.image.Image`. Levels are degrees
    (rotation, hue), shares of the width (shift, crop, blur) and the quality of JPEG. Raises `ValueError` for images
    that have no three channels."""
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(
            f"Images need 3 channels, but mean and std are of {len(mean)} and {len(std)}. Give RGB images."
        )
    return (
        Transformation("rotation", (0, 90, 180, 270), rotated),
        Transformation("flip", (False, True), flipped),
        Transformation("shift", (0.0, -1 / 8, 1 / 8), of_pixels(shifted, mean, std)),
        Transformation("crop", (1.0, 0.75), cropped),
        Transformation("hue", (0, 120, 240), of_pixels(hue_rotated, mean, std)),
        Transformation("gray", (False, True), of_pixels(grayed, mean, std)),
        Transformation("blur", (0.0, 1 / 64), blurred),
        Transformation("jpeg", (None, 20), of_pixels(compressed, mean, std)),
    )


def text_transformations() -> tuple[Transformation, ...]:
    """Returns the transformations of texts, before the tokenizer. Levels are cases, and shares of the words."""
    return (
        Transformation("casing", ("unchanged", "lower", "upper"), cased),
        Transformation("word_order", (0.0, 0.5, 1.0), reordered),
        Transformation("deletion", (0.0, 0.25, 0.5), shortened),
    )


def sound_transformations() -> tuple[Transformation, ...]:
    """Returns the transformations of waves, `(B, T)`, before log-mel. Levels are dB (gain; noise, relative to the
    wave), semitones and shares of the length."""
    return (
        Transformation("gain", (0.0, -6.0, -12.0), amplified),
        Transformation("noise", (-math.inf, -20.0, -10.0), noisy),
        Transformation("pitch", (0.0, -2.0, 2.0), pitched),
        Transformation("shift", (0.0, 1 / 8, 1 / 4), delayed),
    )


def transformation_metrics(
    embed: Callable[[Batch], Tensor],
    batches_by_split: Mapping[str, Iterable[Batch]],
    transformations: Sequence[Transformation],
) -> dict[str, float]:
    """Measures the features of an encoder under each transformation.

    embed: batch -> features `(B, D)`, in evaluation mode. batches_by_split: clean batches of train, validation and
    test; each is read once. `ROWS` of them, see `spaced_rows`, take seconds.

    Returns for each transformation `invariance_NAME` and `equivariance_NAME`, means over the levels but the first (see
    `audit.equivariance`), and `parameter_bits_NAME`. All are NaN (undefined) for features that are constant or not
    finite, with a warning. Raises `ValueError` for two transformations of one name and for a split without rows."""
    names = [each.name for each in transformations]
    if len(set(names)) < len(names):
        raise ValueError(f"Two transformations have the same name: {', '.join(names)}. Give each another name.")
    if not transformations:
        return {}
    features = level_features(embed, batches_by_split, transformations)
    measured = {f"{metric}_{name}": math.nan for name in names for metric in (INVARIANCE, PARAMETER, EQUIVARIANCE)}
    if warning := undefined(*(values for levels in features for level in levels for values in level.values())):
        log.warning(warning)
        return measured
    whiten = Whitener(features[0][0]["train"])
    for name, levels in zip(names, features, strict=True):
        clean, *changed = levels
        white, *others = (whiten(level["test"]) for level in levels)
        measured[f"{INVARIANCE}_{name}"] = mean(invariance(white, other) for other in others)
        measured[f"{PARAMETER}_{name}"] = parameter_bits(levels)
        measured[f"{EQUIVARIANCE}_{name}"] = mean(equivariance(clean, each) for each in changed)
    return measured


def parameter_bits(levels: Sequence[Splits]) -> float:
    """Returns the bits of the level that a linear reader gets from the features of one view, held out.

    levels: features of the same rows at each level, `{split: (n, d)}`."""
    features = {split: np.concatenate([level[split] for level in levels]) for split in SPLITS}
    labels = {split: np.repeat(np.arange(len(levels)), len(levels[0][split])) for split in SPLITS}
    return linear_reader(features, labels, len(levels)).bits


@torch.no_grad()
def level_features(
    embed: Callable[[Batch], Tensor],
    batches_by_split: Mapping[str, Iterable[Batch]],
    transformations: Sequence[Transformation],
) -> list[list[dict[str, np.ndarray]]]:
    """Returns the features of all rows, `{split: (n, d)}`, for each transformation at each level. Each clean batch is
    encoded once. Raises `ValueError` for a split without rows."""
    collected = [[{split: [] for split in SPLITS} for _ in each.levels] for each in transformations]
    for split in SPLITS:
        for batch in batches_by_split[split]:
            clean = as_array(embed(batch))
            for transformation, levels in zip(transformations, collected, strict=True):
                levels[0][split].append(clean)
                for level, parts in zip(transformation.levels[1:], levels[1:], strict=True):
                    parts[split].append(as_array(embed(transformation.change(batch, level))))
    if lacking := [split for split in SPLITS if not collected[0][0][split]]:
        raise ValueError(
            f"No rows of {' and '.join(lacking)} to measure transformations on. Give batches of each split."
        )
    return [[{s: np.concatenate(parts[s]) for s in SPLITS} for parts in levels] for levels in collected]


def as_array(features: Tensor) -> np.ndarray:
    """Returns features on any device as float32."""
    return features.float().cpu().numpy()


def mean(values: Iterable[float]) -> float:
    """Returns the mean of metrics; NaN if one is undefined."""
    return float(np.mean(list(values)))


def spaced_rows(batches: Iterable[Batch], total: int, count: int) -> Iterator[Batch]:
    """Yields `count` of the `total` rows of batches, evenly spaced, or all rows if there are fewer; empty batches are
    left out."""
    places = np.array(evenly(total, count))
    first = 0
    for batch in batches:
        size = len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)
        rows = places[(places >= first) & (places < first + size)] - first
        first += size
        if len(rows):
            yield rows_of(batch, rows)


def rows_of(batch: Batch, rows: np.ndarray) -> Batch:
    """Returns some rows of a batch. rows: their places, `(n,)`."""
    if isinstance(batch, Mapping):
        return {name: values[torch.from_numpy(rows)] for name, values in batch.items()}
    return batch[torch.from_numpy(rows)] if isinstance(batch, Tensor) else [batch[row] for row in rows]
