"""Usable information: how many bits of a label a linear reader gets from features, on rows that it was not fitted to.

features (n, d), labels (n,) of train, validation, test -> bits of the label, of at most its entropy

Usable information (V-information, Xu et al. 2020, https://huggingface.co/papers/2002.10689) counts what a reader can
use. It grows when an encoder makes a label easier to read, and is no estimate of the mutual information. Bits beyond a
cue are what a reader of cue and features gets more than a reader of the cue alone (conditional V-information, Hewitt et
al. 2021, https://huggingface.co/papers/2109.09234). Bits of pairs are those of InfoNCE (van den Oord et al. 2018,
https://huggingface.co/papers/1807.03748) with one temperature; N candidates show at most log2 N bits.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation.health import STILL
from ..evaluation.retrieval import TIE
from .readers import (
    UNSEEN,
    Reading,
    Splits,
    calibrated,
    check_rows,
    checked,
    linear_reader,
    log_marginal,
    log_of,
    marginal_scores,
    one_thread,
    undefined,
)

SHARPEST, SOFTEST = 2.0**10, 2.0**-6  # limits of 1 / temperature, for scores of standard deviation 1
SAME_SCORES = "All pairs have the same score: the model has collapsed, and the bits of the scores are undefined."
NOT_FINITE = "The scores contain NaN or infinity: the model has diverged, and their bits are undefined."


class Information(NamedTuple):
    """Bits of a label that features hold, per row of test.

    bits: mean over the rows; NaN if undefined. entropy: the most that can be read, on average. accuracy: share of rows
    whose label has the largest score. per_row: bits of each row, `(n_test,)`, to compare two encoders on the same rows.
    warning: why the bits are undefined, as a sentence; None if they are defined."""

    bits: float
    entropy: float
    accuracy: float
    per_row: np.ndarray
    warning: str | None = None

    @property
    def share(self) -> float:
        """Bits as a share of the entropy; NaN if that is 0."""
        return self.bits / self.entropy if self.entropy > 0 else math.nan


def usable_information(features: Splits, labels: Splits, classes: int) -> Information:
    """Measures the bits of a label that a linear reader gets from features.

    features: `(n, d)` of train, validation and test. labels: `(n,)`, integers from 0 to `classes - 1`. Undefined, with
    a warning, for features that are not finite or are the same for all rows. Raises `ValueError` for shapes or labels
    that do not fit."""
    features, labels = checked(features, labels, classes)
    warning = undefined(*features.values())
    if warning:
        return _without(labels, classes, warning)
    return _of(linear_reader(features, labels, classes))


def conditional_information(
    features: Splits, cue: Splits, labels: Splits, classes: int, known: Reading | None = None
) -> Information:
    """Measures the bits of a label that features add to a cue: those of a linear reader of cue and features, over those
    of a linear reader of the cue alone.

    cue: `(n, c)` of the same rows. known: what `linear_reader` gets from the cue; default: it is read here. The entropy
    is that of the label for the reader of the cue. 0 bits where the reader of cue and features is worse on validation.
    The rest is as in `usable_information`."""
    (features, labels), (cue, _) = checked(features, labels, classes), checked(cue, labels, classes)
    warning = undefined(*features.values())
    if warning:
        return _without(labels, classes, warning)
    known = known or linear_reader(cue, labels, classes)
    joined = {split: np.concatenate([cue[split], features[split]], axis=1) for split in labels}
    base = {"validation": known.validation_scores, "test": known.scores}
    return _of(linear_reader(joined, labels, classes, base))


def logit_information(logits: Splits, labels: Splits, classes: int, base: Splits | None = None) -> Information:
    """Measures the bits of a label in the logits of a model, at one temperature chosen on validation.

    logits: `(n, classes)` of validation and test, as those of the head of a pretext task. labels: `(n,)` of train, for
    the marginal, and of validation and test. base: as in `linear_reader`. A model that is too sure of itself has a
    larger cross-entropy than the entropy less these bits. Undefined, with a warning, for logits that are not finite."""
    scores = {split: np.asarray(logits[split], np.float64) for split in UNSEEN}
    labels = {split: np.asarray(values).astype(np.int64) for split, values in labels.items()}
    for split, values in scores.items():
        check_rows(split, values, labels[split], classes)
        if values.shape[1] != classes:
            raise ValueError(f"{split}: the logits are of {values.shape[1]} classes. Give those of {classes} classes.")
    if not all(np.isfinite(values).all() for values in scores.values()):
        return _without(labels, classes, NOT_FINITE)
    base = base or marginal_scores(log_marginal(labels["train"], classes), labels)
    return _of(calibrated([scores], labels, base))


def pair_information(
    validation_scores: np.ndarray, test_scores: np.ndarray, groups: Mapping[str, np.ndarray]
) -> Information:
    """Measures the bits of InfoNCE: how much likelier a softmax over all candidates finds the right one than chance.

    validation_scores, test_scores: score of each query with each candidate, `(N, N)`, of any scale; row i and column i
    are one pair. groups: integers `(N,)` of validation and test; pairs of one group are duplicates, and any of them is
    right. Rows and columns are the queries in turn, and bits are the mean of both directions. One temperature is chosen
    on validation. With N candidates there are at most log2 N bits, less for duplicates: that is the `entropy`. A query
    is counted as right if no wrong candidate has as large a score. Undefined, with a warning, for scores that are not
    finite or are all equal. Raises `ValueError` for shapes that do not fit."""
    given = zip(UNSEEN, (validation_scores, test_scores), strict=True)
    scores = {split: torch.as_tensor(values).double() for split, values in given}
    pairs = {split: _same(values, torch.as_tensor(groups[split]), split) for split, values in scores.items()}
    entropy = -chance_of(pairs["test"])
    warning = _undefined_scores(*scores.values())
    if warning:
        lost = np.full(len(entropy), math.nan)
        return Information(math.nan, float(entropy.mean()), math.nan, lost, warning)
    with one_thread():
        scale = scores["validation"].std()
        validation, test = (values / scale for values in scores.values())
        sharpness = _sharpness(validation, pairs["validation"])
        per_row = pair_bits(test * sharpness, pairs["test"]) if sharpness else torch.zeros_like(entropy)
    accuracy = (_right(test, pairs["test"]) + _right(test.T, pairs["test"])) / 2
    return Information(float(per_row.mean()), float(entropy.mean()), accuracy, per_row.numpy())


def pair_bits(scores: Tensor, same: Tensor) -> Tensor:
    """Returns the bits of each pair over chance, `(N,)`, as the mean of both directions.

    scores (`(N, N)`), in nats. same (`(N, N)`, bool): which candidates are right, symmetric."""
    directions = [side.masked_fill(~same, -math.inf).logsumexp(1) - side.logsumexp(1) for side in (scores, scores.T)]
    return sum(directions) / 2 / math.log(2) - chance_of(same)


def chance_of(same: Tensor) -> Tensor:
    """Returns the log2 of the probability of a right candidate by chance: `(N, N)` -> `(N,)`."""
    return same.double().mean(1).log2()


def _sharpness(scores: Tensor, same: Tensor) -> float:
    """Chooses 1 / temperature by the bits on validation; 0 where none is better than chance."""
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        lambda log_sharpness: -float(pair_bits(scores * math.exp(log_sharpness), same).mean()),
        bounds=(math.log(SOFTEST), math.log(SHARPEST)),
        method="bounded",
    )
    return math.exp(best.x) if best.fun < 0 else 0.0


def _same(scores: Tensor, groups: Tensor, split: str) -> Tensor:
    if not len(groups) or scores.shape != (len(groups), len(groups)):
        raise ValueError(
            f"{split}: scores have the shape {tuple(scores.shape)} and groups {tuple(groups.shape)}. "
            "Give scores (N, N) and groups (N,), with at least one pair."
        )
    return groups[:, None] == groups[None]


def _undefined_scores(*scores: Tensor) -> str | None:
    if not all(values.isfinite().all() for values in scores):
        return NOT_FINITE
    same = (values.max() - values.min() <= STILL * values.abs().max() for values in scores)
    return SAME_SCORES if any(same) else None


def _right(scores: Tensor, same: Tensor) -> float:
    """Returns the share of rows whose best right candidate is above all wrong ones, by more than rounding."""
    right, wrong = (scores.masked_fill(mask, -math.inf).amax(1) for mask in (~same, same))
    return float((right > wrong + TIE).double().mean())


def _of(reading: Reading) -> Information:
    return Information(reading.bits, reading.entropy, reading.accuracy, reading.per_row)


def _without(labels: Splits, classes: int, warning: str) -> Information:
    """Returns undefined information. Only the entropy of the label is known."""
    base = marginal_scores(log_marginal(labels["train"], classes), labels)
    entropy = -log_of(base["test"], labels["test"]).mean() / math.log(2)
    return Information(math.nan, float(entropy), math.nan, np.full(len(labels["test"]), math.nan), warning)
