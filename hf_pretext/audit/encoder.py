"""What a frozen encoder knows: bits of the label and of other properties, their code length, and what it ignores.

encoder, labelled set, properties -> features of one layer -> {metric: value}

The layer is the one with the best kNN of the label on validation, chosen for trained and random encoders alike.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..evaluation.labelled_set import LabelledSet, TextBatches
from ..evaluation.measure import TEXTS_AT_ONCE
from ..evaluation.transfer import METHODS, SPLITS, transfer
from ..features import Pooling, extract
from ..modalities import Batch
from ..modalities.text import Text
from .code import online_code
from .equivariance import Whitener, pair_invariance
from .information import usable_information
from .properties import Property
from .text_changes import beginning
from .transformations import INVARIANCE, ROWS, Transformation, evenly, transformation_metrics

BITS, SAVED = "bits", "code_saved"  # begin of the names of metrics
WORDS = 32  # of a text whose changes are measured: 30 s on one core for a ModernBERT of width 256 and 2 layers
Changeable = Tensor | list[str]


class EncoderAudit(NamedTuple):
    """layer: that was measured, -1 for the last one. metrics: by name. entropy: the most bits of each property, by its
    name. per_row: bits of each test row, by the name of
    the metric that is their mean. warnings: why metrics are undefined."""

    layer: int
    metrics: dict[str, float]
    entropy: dict[str, float]
    per_row: dict[str, np.ndarray]
    warnings: list[str]


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
) -> EncoderAudit:
    """Audits the encoder of one kind of data.

    properties: what is read from the features; the first one is the label, whose online code is measured, too.
    transformations: of what `changeable` returns. same: by name, integers `(n,)` that equal for test rows of the same
    thing. dtype: of autocast for the features. Returns `bits_NAME` for each property, `code_saved_NAME` for the label,
    the metrics of `transformation_metrics`, and `invariance_NAME` for each of `same`. Undefined ones are NaN."""
    options = {"pooling": pooling, "device": device, "dtype": dtype, "description": None}
    by_split = {split: extract(encoder, labelled.batches(split, kind), "all", **options) for split in SPLITS}
    layers = {layer: {split: by_split[split][layer] for split in SPLITS} for layer in by_split["train"]}
    layer = transfer(layers, labelled.labels, {"knn": METHODS["knn"]})["knn"]["layer"]
    features = {split: values.numpy() for split, values in layers[layer].items()}
    metrics, per_row, limits, warnings = {}, {}, {}, []
    for name, (classes, labels) in properties.items():
        read = usable_information(features, labels, classes)
        metrics[f"{BITS}_{name}"], per_row[f"{BITS}_{name}"], limits[name] = read.bits, read.per_row, read.entropy
        warnings += [read.warning.rstrip(".")] if read.warning else []
    if properties:
        label, (classes, labels) = next(iter(properties.items()))
        metrics[f"{SAVED}_{label}"] = online_code(features["train"], labels["train"], classes).saved

    def embed(inputs: Changeable) -> Tensor:
        return extract(encoder, encoder_inputs(labelled, kind, inputs), (layer,), **options)[layer]

    if transformations:
        metrics |= transformation_metrics(embed, changeable(labelled, kind), transformations)
    for name, keys in (same or {}).items():
        metrics[f"{INVARIANCE}_{name}"] = math.nan
        if not warnings:
            metrics[f"{INVARIANCE}_{name}"] = pair_invariance(Whitener(features["train"])(features["test"]), keys)
    return EncoderAudit(layer, metrics, limits, per_row, list(dict.fromkeys(warnings)))


def changeable(labelled: LabelledSet, kind: str) -> dict[str, list[Changeable]]:
    """Returns batches of what transformations change, of `ROWS` evenly spaced rows of each split: clean encoder inputs,
    or texts of at most `WORDS` words. A longer text would be cut by the tokenizer after the change, so that deleted
    words would be replaced by later ones."""
    modality = labelled.inputs.by_name[kind]

    def batches(split: str) -> Iterable[Changeable]:
        if isinstance(modality, Text):
            return [[beginning(text, WORDS) for text in labelled.texts(split)]]
        return (batch[modality.encoder_input] for batch in labelled.batches(split, kind))

    return {split: list(evenly(batches(split), len(labelled.rows(split)), rows)) for split, rows in ROWS.items()}


def encoder_inputs(labelled: LabelledSet, kind: str, inputs: Changeable) -> Iterable[Batch]:
    """Returns batches of encoder inputs, as `labelled.batches` has them. inputs: of one batch, or texts."""
    modality = labelled.inputs.by_name[kind]
    if isinstance(inputs, Tensor):
        return [{modality.encoder_input: inputs}]
    if labelled.texts_alone:
        return TextBatches([*modality.documents(inputs)], modality.tokenizer.pad_token_id, ("input_ids",))
    return (modality.batch(inputs[first : first + TEXTS_AT_ONCE]) for first in range(0, len(inputs), TEXTS_AT_ONCE))
