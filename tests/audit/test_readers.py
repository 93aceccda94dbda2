"""What readers get of labels, and that they neither touch the random numbers of others nor depend on threads."""

import math

import numpy as np
import pytest
import torch
from known import gaussians, unrelated

from hf_pretext.audit.readers import (
    FLOOR,
    calibrated,
    linear_reader,
    log_marginal,
    marginal_scores,
    small_reader,
    standardised,
)

SMALL = {"train": 600, "validation": 200, "test": 300}
LEAST = math.log2(FLOOR) - 1e-9  # bits of a row
READERS = {"linear": linear_reader, "small": small_reader}
each_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


def exclusive_or():
    """A label that no linear reader gets: whether two features have one sign."""
    random = np.random.default_rng(0)
    features = {split: random.normal(size=(rows, 6)).astype(np.float32) for split, rows in SMALL.items()}
    return features, {split: (x[:, 0] * x[:, 1] > 0).astype(int) for split, x in features.items()}


@each_reader
def test_a_planted_label_is_read(reader):
    features, labels = unrelated(3, seed=0, channels=16, sizes=SMALL)
    planted = {split: np.concatenate([x, np.eye(3)[labels[split]]], axis=1) for split, x in features.items()}
    reading = reader(planted, labels, 3)
    assert reading.bits > 0.95 * reading.entropy and reading.accuracy == 1
    assert reading.bits == pytest.approx(reading.per_row.mean(), abs=1e-12)
    assert reading.entropy == pytest.approx(math.log2(3), abs=0.02)
    assert np.exp(reading.scores).sum(1) == pytest.approx(1) and reading.scores.shape == (SMALL["test"], 3)
    assert reading.validation_scores.shape == (SMALL["validation"], 3)


def test_only_the_small_reader_sees_products():
    features, labels = exclusive_or()
    assert abs(linear_reader(features, labels, 2).bits) < 0.02
    assert small_reader(features, labels, 2).bits > 0.3


@each_reader
def test_the_same_twice_on_any_number_of_threads_without_a_trace(reader):
    features, labels = gaussians(2, seed=0, sizes=SMALL)
    torch.manual_seed(1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = reader(features, labels, 2)
    torch.set_num_threads(3 - min(threads, 2))
    try:
        second = reader({split: torch.from_numpy(x) for split, x in features.items()}, labels, 2)
        assert torch.get_num_threads() == 3 - min(threads, 2)
    finally:
        torch.set_num_threads(threads)
    assert first.bits == second.bits and (first.scores == second.scores).all()
    assert (torch.get_rng_state() == state).all()


def test_the_seed_decides_the_small_reader():
    features, labels = gaussians(2, seed=0, sizes=SMALL)
    assert small_reader(features, labels, 2, seed=1).bits != small_reader(features, labels, 2).bits


@each_reader
def test_train_may_lack_a_class(reader):
    features, labels = gaussians(4, seed=0, channels=8, sizes=SMALL)
    labels = {"train": labels["train"], **{split: labels[split].copy() for split in ("validation", "test")}}
    labels["test"][:5] = 2
    reading = reader(features, labels, 4)
    assert reading.bits > 0.7 and reading.scores.shape[1] == 4
    assert np.isfinite(reading.per_row).all() and reading.per_row.min() >= LEAST
    if reader is linear_reader:  # keeps the marginal of a class that it was not fitted to
        assert np.abs(reading.per_row[:5]).max() < 2


@each_reader
def test_where_there_is_nothing_to_read(reader):
    """Constant features, or one label in train: 0 bits in each row, and the most frequent class is predicted."""
    features, labels = gaussians(4, seed=0, sizes=SMALL)
    constant = {split: np.full_like(x, 0.1) for split, x in features.items()}
    one_label = {"train": np.zeros(SMALL["train"], int), "validation": labels["validation"], "test": labels["test"]}
    for reading in (reader(constant, labels, 2), reader(features, one_label, 2)):
        assert reading.bits == 0 and (reading.per_row == 0).all()
        assert reading.scores.std(0) == pytest.approx(0)
    most = np.bincount(labels["train"]).argmax()
    assert reader(constant, labels, 2).accuracy == (labels["test"] == most).mean()


def test_a_constant_channel_is_left_out():
    """Its rounding errors aren't scaled to variance 1, also where other splits have another value."""
    features, labels = gaussians(2, seed=0, channels=8, sizes=SMALL)
    joined = {split: np.concatenate([x, np.full((len(x), 1), 5.0)], axis=1) for split, x in features.items()}
    joined["train"][::2, -1] += 1e-6
    joined["test"][:, -1] = 7
    scaled = standardised({split: x.astype(np.float32) for split, x in joined.items()})
    assert all((x[:, -1] == 0).all() for x in scaled.values())
    assert scaled["train"][:, :-1].std(0) == pytest.approx(1, abs=1e-5)
    assert linear_reader(joined, labels, 2).bits > 0.3


def test_a_reader_that_misleads_on_validation_is_not_used():
    labels = {split: np.arange(rows) % 2 for split, rows in SMALL.items()}
    base = marginal_scores(log_marginal(labels["train"], 2), labels)
    sure = {split: 5 * np.eye(2)[y] for split, y in labels.items()}
    wrong = {"validation": -sure["validation"], "test": sure["test"]}
    reading = calibrated([wrong], labels, base)
    assert reading.bits == 0 and (reading.scores == base["test"]).all()
    assert calibrated([wrong, sure], labels, base).bits > 0.95


def test_one_extreme_value_costs_a_limited_number_of_bits():
    features, labels = gaussians(4, seed=0, sizes=SMALL)
    features["test"][0, 0] = -1e9 if labels["test"][0] else 1e9
    reading = linear_reader(features, labels, 2)
    assert LEAST <= reading.per_row[0] < -5 and reading.bits > 0.7


def test_scores_that_are_too_sure_get_one_temperature():
    """Scores times 20 have the same bits as the scores, although their cross-entropy is above the entropy."""
    features, labels = gaussians(2, seed=0)
    base = marginal_scores(log_marginal(labels["train"], 2), labels)
    right = {split: np.stack([np.zeros(len(x)), 2.0 * x[:, 0]], axis=1) for split, x in features.items()}  # log odds
    readings = [calibrated([{split: x * factor for split, x in right.items()}], labels, base) for factor in (1, 20)]
    assert readings[1].bits == pytest.approx(readings[0].bits, abs=0.002)
    assert readings[0].bits == pytest.approx(0.486, abs=0.05)
    sure = 20 * right["test"] - np.logaddexp.reduce(20 * right["test"], axis=1, keepdims=True)
    assert -sure[np.arange(len(sure)), labels["test"]].mean() > math.log(2)


def test_a_softer_reader_keeps_the_marginal():
    """With labels of unequal counts, a reader that knows nothing is the marginal, not a uniform guess."""
    features, labels = unrelated(5, seed=0, channels=8)
    labels = {split: np.minimum(y, 1) for split, y in labels.items()}
    assert abs(linear_reader(features, labels, 2).bits) < 0.005
    assert linear_reader(features, labels, 2).entropy == pytest.approx(0.722, abs=0.04)


@each_reader
def test_what_does_not_fit_is_refused(reader):
    features, labels = gaussians(1, seed=0, sizes=SMALL)
    wrong = {
        "validation": ({"train": features["train"], "test": features["test"]}, labels, 2),
        "shape": ({**features, "test": features["test"][:-1]}, labels, 2),
        "0 to 0": (features, labels, 1),
        "different numbers": ({**features, "test": features["test"][:, 1:]}, labels, 2),
        "NaN": ({**features, "test": features["test"] * np.nan}, labels, 2),
    }
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=message):
            reader(*arguments)
