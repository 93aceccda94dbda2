"""What a frozen encoder knows: bits of the label and of other properties, their code length, and what it ignores.

encoder, labelled set, properties -> features of one layer -> {metric: value}

The layer is the one with the best kNN of the label on validation, chosen for trained and random encoders alike.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..evaluation.health import of_features
from ..evaluation.health import warnings as warnings_of
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import METHODS, SPLITS, transfer
from ..features import Pooling, extract
from .changed_inputs import Clean, clean_batches, encoder_inputs
from .code import online_code
from .equivariance import Whitener, pair_invariance
from .information import usable_information
from .properties import Property
from .simple_cues import SimpleCues
from .transformations import INVARIANCE, Transformation, transformation_metrics

BITS, BEYOND, SAVED = "bits", "beyond_cues", "code_saved"  # begin of the names of metrics
ROWS_OF_RANK = 2000  # test rows whose rank is measured


class EncoderAudit(NamedTuple):
    """layer: that was measured, -1 for the last one. metrics: by name. entropy: the most bits of each property, by its
    name, and beyond the cues, by the name of the metric. per_row: bits of each test row, by the name of the metric that
    is their mean. warnings: why metrics are undefined, and what the rank and the dead channels of the features say.
    curve: of the online code of the label, see `Code`."""

    layer: int
    metrics: dict[str, float]
    entropy: dict[str, float]
    per_row: dict[str, np.ndarray]
    warnings: list[str]
    curve: list[tuple[int, float]]


def encoder_audit(
    encoder: PreTrainedModel,
    labelled: LabelledSet,
    kind: str,
    properties: Mapping[str, Property],
    transformations: Sequence[Transformation] = (),
    same: Mapping[str, np.ndarray] | None = None,
    pooling: Pooling = "mean",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    cues: SimpleCues | None = None,
) -> EncoderAudit:
    """Audits the encoder of one kind of data.

    properties: what is read from the features; the first one is the label, whose online code is measured, too.
    transformations: see `transformations_of`. same: by name, integers `(n,)`, equal for test rows of the same thing.
    dtype: of autocast for the features. cues: beyond which the bits of the label are measured, too. Returns `bits_NAME`
    for each property, `beyond_cues_NAME` and `code_saved_NAME` for the label, the metrics of `transformation_metrics`,
    and `invariance_NAME` for each of `same`. Undefined ones are NaN."""
    options = {"pooling": pooling, "device": device, "dtype": dtype, "description": None}
    by_split = {split: extract(encoder, labelled.batches(split, kind), "all", **options) for split in SPLITS}
    layers = {layer: {split: by_split[split][layer] for split in SPLITS} for layer in by_split["train"]}
    layer = transfer(layers, labelled.labels, {"knn": METHODS["knn"]})["knn"]["layer"]
    features = {split: values.numpy() for split, values in layers[layer].items()}
    metrics, per_row, limits, warnings, curve = {}, {}, {}, [], []
    for name, (classes, labels) in properties.items():
        read = usable_information(features, labels, classes)
        metrics[f"{BITS}_{name}"], per_row[f"{BITS}_{name}"], limits[name] = read.bits, read.per_row, read.entropy
        warnings += [read.warning.rstrip(".")] if read.warning else []
    if properties:
        label, (classes, labels) = next(iter(properties.items()))
        if cues is not None:
            beyond, name = cues.beyond(features), f"{BEYOND}_{label}"
            metrics[name], per_row[name], limits[name] = beyond.bits, beyond.per_row, beyond.entropy
        code = online_code(features["train"], labels["train"], classes)
        metrics[f"{SAVED}_{label}"], curve = code.saved, code.curve

    def embed(batch: Clean) -> Tensor:
        return extract(encoder, encoder_inputs(labelled, kind, batch), (layer,), **options)[layer]

    if transformations:
        metrics |= transformation_metrics(embed, clean_batches(labelled, kind), transformations)
    for name, keys in (same or {}).items():
        metrics[f"{INVARIANCE}_{name}"] = math.nan
        if not warnings:
            metrics[f"{INVARIANCE}_{name}"] = pair_invariance(Whitener(features["train"])(features["test"]), keys)
    warnings = list(dict.fromkeys(warnings)) or unhealthy(features["test"], kind)
    return EncoderAudit(layer, metrics, limits, per_row, warnings, curve)


def unhealthy(features: np.ndarray, kind: str) -> list[str]:
    """Returns what the effective rank and the dead channels of features `(n, d)` warn of, see `health.warnings`."""
    metrics = of_features(torch.from_numpy(features[:ROWS_OF_RANK]))
    return warnings_of({f"{name}_{kind}": value for name, value in metrics.items()}, {}, [kind])
