"""Readers: how many bits of a label a simple classifier gets from features, on rows that it was not fitted to.

features (n, d), labels (n,) of train, validation, test -> classifier -> calibrated log-probabilities -> bits per row

This is usable information (V-information, Xu et al. 2020, https://huggingface.co/papers/2002.10689): the entropy of
the label under a base distribution, minus the cross-entropy of the reader. It is a property of features and reader, and
no estimate of the mutual information, which no invertible encoder changes. All choices are made on validation, by
cross-entropy. The same inputs give the same bits, bit for bit: readers run in one thread, with random numbers of their
own.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..evaluation.health import dead_channels
from ..evaluation.knn import DIVERGED
from ..evaluation.linear_probe import STRENGTHS, fitted_probes
from ..evaluation.transfer import SPLITS

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Splits = Mapping[str, np.ndarray]  # {"train", "validation", "test"} -> features (n, d) or labels (n,)
UNSEEN = SPLITS[1:]
COLLAPSED = (
    "The features are the same for all rows: the encoder has collapsed, and what they say of a label is undefined."
)
FLOOR = 1e-3  # share of the base distribution in each prediction: no row costs more than 10 bits above the base
SMOOTHING = 0.5  # added to the count of each class: the marginal of Krichevsky and Trofimov
SHARPEST, SOFTEST = 16.0, 1 / 64  # limits of 1 / temperature
FARTHEST = 10.0  # standardised features are limited to this: one extreme value can't decide a row
HIDDEN, DROPOUT, EPOCHS, BATCH, RATE, DECAY = 128, 0.3, 16, 256, 2e-3, 0.1  # of the small reader


class Reading(NamedTuple):
    """What a reader gets of a label on test.

    bits: mean bits per row over the base distribution; 0 where the reader was worse than the base on validation.
    entropy: mean bits of the label under the base: the most that can be read, on average.
    accuracy: share of rows whose label has the largest score.
    per_row: bits of each row, `(n_test,)`; their mean is `bits`.
    scores, validation_scores: log-probabilities of test and validation in nats, `(n, classes)`."""

    bits: float
    entropy: float
    accuracy: float
    per_row: np.ndarray
    scores: np.ndarray
    validation_scores: np.ndarray


def linear_reader(features: Splits, labels: Splits, classes: int, base: Splits | None = None) -> Reading:
    """Reads a label by logistic regression on standardised features.

    features: `(n, d)` of train, validation and test. labels: `(n,)`, integers from 0 to `classes - 1`; train may lack
    classes. base: log-probabilities `(n, classes)` of validation and test, over which bits are counted; default: the
    marginal of train, smoothed. Strength and temperature are chosen on validation. Raises `ValueError` for features
    that are not finite and for shapes or labels that do not fit."""
    features, labels = checked(features, labels, classes)
    check_finite(features)
    prior = log_marginal(labels["train"], classes)
    with one_thread():
        if readable(features["train"], labels["train"]):
            inputs = standardised(features)
            fits = fitted_probes(inputs["train"], labels["train"], STRENGTHS)
            candidates = ({s: log_probabilities(model, inputs[s], prior) for s in UNSEEN} for _, model in fits)
        else:
            candidates = iter(())
        return calibrated(candidates, labels, base or marginal_scores(prior, labels))


def small_reader(features: Splits, labels: Splits, classes: int, seed: int = 0, base: Splits | None = None) -> Reading:
    """Reads a label by a network of one hidden layer on standardised features, which also sees products of features.

    Arguments, bits and errors: as of `linear_reader`. Epoch and temperature are chosen on validation. seed: of the
    initial weights, the order of rows and dropout."""
    features, labels = checked(features, labels, classes)
    check_finite(features)
    base = base or marginal_scores(log_marginal(labels["train"], classes), labels)
    with one_thread(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone: the generators of a GPU are not forked
        seen = readable(features["train"], labels["train"])
        return calibrated(_epochs(standardised(features), labels["train"], classes) if seen else (), labels, base)


def better(one: Reading, other: Reading, labels: Splits) -> Reading:
    """Returns the reading with the smaller cross-entropy on validation. labels: as of both. Of many classes with few
    rows, logistic regression gets more than the small network."""
    bits = (log_of(each.validation_scores, labels[UNSEEN[0]]).mean() for each in (one, other))
    return one if next(bits) >= next(bits) else other


def _epochs(inputs: Splits, labels: np.ndarray, classes: int) -> Iterator[dict[str, np.ndarray]]:
    """Trains a small network. Yields its scores `(n, classes)` of validation and test after each epoch."""
    tensors, targets = {split: torch.from_numpy(x) for split, x in inputs.items()}, torch.from_numpy(labels)
    width = tensors["train"].shape[1]
    net = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, classes))
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    for _ in range(EPOCHS):
        net.train()
        for rows in torch.randperm(len(targets)).split(BATCH):
            loss = F.cross_entropy(net(tensors["train"][rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            yield {split: net(tensors[split]).double().numpy() for split in UNSEEN}


def calibrated(candidates: Iterable[Splits], labels: Splits, base: Splits) -> Reading:
    """Chooses one of several classifiers and its temperature by the cross-entropy on validation; returns its reading.

    candidates: scores `(n, classes)` of validation and test, in nats up to a constant of the row. base:
    log-probabilities of the same shape. The temperature T scales what the scores say beyond the base:
    softmax(base + (scores - base) / T). Where no candidate is better than the base, bits are 0."""
    from scipy.optimize import minimize_scalar

    validation, test = (labels[split] for split in UNSEEN)

    def cost(log_sharpness: float, scores: np.ndarray) -> float:
        return -log_of(sharpened(scores, base["validation"], math.exp(log_sharpness)), validation).mean()

    least, chosen = -log_of(base["validation"], validation).mean(), base
    limits = (math.log(SOFTEST), math.log(SHARPEST))
    for candidate in candidates:
        best = minimize_scalar(cost, bounds=limits, args=(candidate["validation"],), method="bounded")
        if best.fun < least:
            least = best.fun
            chosen = {split: sharpened(candidate[split], base[split], math.exp(best.x)) for split in UNSEEN}
    per_row = (log_of(chosen["test"], test) - log_of(base["test"], test)) / math.log(2)
    return Reading(
        bits=float(per_row.mean()),
        entropy=float(-log_of(base["test"], test).mean() / math.log(2)),
        accuracy=float((chosen["test"].argmax(1) == test).mean()),
        per_row=per_row,
        scores=chosen["test"],
        validation_scores=chosen["validation"],
    )


def sharpened(scores: np.ndarray, base: np.ndarray, sharpness: float) -> np.ndarray:
    """Returns log-probabilities `(n, classes)` of scores at the temperature 1 / sharpness, with a share `FLOOR` of the
    base: see `calibrated`."""
    from scipy.special import log_softmax

    return floored(log_softmax(base + sharpness * (scores - base), axis=1), base)


def floored(scores: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Mixes log-probabilities with a share `FLOOR` of the base, so that no label costs without limit."""
    return np.logaddexp(scores + math.log1p(-FLOOR), base + math.log(FLOOR))


def log_of(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the score of the label of each row: `(n, classes)`, `(n,)` -> `(n,)`."""
    return np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]


def log_marginal(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns log-probabilities of the classes from their counts plus `SMOOTHING`, `(classes,)`."""
    counts = np.bincount(labels, minlength=classes) + SMOOTHING
    return np.log(counts / counts.sum())


def marginal_scores(prior: np.ndarray, labels: Splits) -> dict[str, np.ndarray]:
    """Returns the same log-probabilities for each row of validation and test."""
    return {split: np.broadcast_to(prior, (len(labels[split]), len(prior))) for split in UNSEEN}


def uniform_scores(classes: int, labels: Splits) -> dict[str, np.ndarray]:
    """Returns the log-probabilities of equally likely classes for each row of validation and test. It is the base of
    answers that are drawn uniformly: the marginal of few rows would be wrong by chance, and bits over it too large."""
    return marginal_scores(np.full(classes, -math.log(classes)), labels)


def log_probabilities(model: "LogisticRegression", features: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Returns log-probabilities of all classes, `(n, classes)`. Classes that the model was not fitted to have the
    probability of the prior, `(classes,)`."""
    from scipy.special import log_softmax

    decisions = model.decision_function(features).astype(np.float64)
    if decisions.ndim == 1:  # of two classes: the log-odds of the second
        decisions = np.stack([np.zeros_like(decisions), decisions], axis=1)
    scores = np.tile(prior, (len(features), 1))
    known = np.exp(prior[model.classes_]).sum()
    scores[:, model.classes_] = log_softmax(decisions, axis=1) + math.log(known)
    return scores


def readable(train: np.ndarray, labels: np.ndarray) -> bool:
    """Returns whether there is anything to fit: two classes, and features that are not constant."""
    return len(np.unique(labels)) > 1 and not constant(train)


def constant(features: np.ndarray) -> bool:
    """Returns whether features `(n, d)` are the same for all rows, up to rounding."""
    return bool(dead_channels(torch.as_tensor(features)).all())


def undefined(train: np.ndarray, *others: np.ndarray) -> str | None:
    """Returns why no measure of these features, `(n, d)`, is defined, as a sentence; None if it is defined."""
    if not all(np.isfinite(values).all() for values in (train, *others)):
        return DIVERGED
    return COLLAPSED if constant(train) else None


def standardised(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scales each feature to mean 0 and variance 1 on train, within `FARTHEST`; constant features become 0."""
    train = features["train"].astype(np.float64)
    mean, deviation = train.mean(0), train.std(0)
    scale = np.where(dead_channels(torch.from_numpy(train)).numpy(), 0, 1 / np.maximum(deviation, 1e-300))
    return {
        split: np.clip((values - mean) * scale, -FARTHEST, FARTHEST).astype(np.float32)
        for split, values in features.items()
    }


def checked(features: Splits, labels: Splits, classes: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns features as float32 and labels as int64, of all splits.

    Raises `ValueError` for splits that lack, shapes that do not fit, and labels that are not below `classes`."""
    for what, splits in (("features", features), ("labels", labels)):
        lacking = [split for split in SPLITS if split not in splits]
        if lacking:
            raise ValueError(f"The {what} lack {', '.join(lacking)}. Give train, validation and test.")
    features = {split: np.asarray(features[split], np.float32) for split in SPLITS}
    labels = {split: np.asarray(labels[split]).astype(np.int64) for split in SPLITS}
    for split, values in features.items():
        check_rows(split, values, labels[split], classes)
    widths = {split: values.shape[1] for split, values in features.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"The splits have different numbers of features: {widths}. Give features of one encoder.")
    return features, labels


def check_rows(name: str, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Raises `ValueError` unless features are `(n, d)`, n > 0, and labels `(n,)` are from 0 to `classes - 1`."""
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise ValueError(
            f"{name}: the features have the shape {features.shape} and the labels {labels.shape}. "
            "Give features (n, d) and labels (n,), with at least one row."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{name}: the labels are from {labels.min()} to {labels.max()}. Give 0 to {classes - 1}.")


def check_finite(features: Splits) -> None:
    """Raises `ValueError` for features that are not finite."""
    for split, values in features.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{split}: {DIVERGED}")


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs in one thread, so that sums have one order and the same bits on any number of cores."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
