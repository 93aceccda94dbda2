"""Bits against known answers: Gaussians, labels of chance, a cue and what is beyond it, pairs of Gaussians."""

import math

import numpy as np
import pytest
import torch
from known import GAUSSIANS, gaussians, unrelated

from hf_pretext.audit.information import (
    conditional_information,
    logit_information,
    pair_information,
    usable_information,
)

SMALL = {"train": 600, "validation": 200, "test": 300}


@pytest.mark.parametrize("distance", GAUSSIANS)
def test_two_gaussians(distance):
    """The mean of 3 draws of the rows: one test set alone varies by 0.02 bits."""
    bits = [usable_information(*gaussians(distance, seed), 2).bits for seed in range(3)]
    assert np.mean(bits) == pytest.approx(GAUSSIANS[distance], abs=0.05)


@pytest.mark.parametrize("classes", [9, 99])
def test_random_labels_have_no_bits(classes):
    information = usable_information(*unrelated(classes, seed=0), classes)
    assert -0.03 < information.bits < 0.01
    assert information.entropy == pytest.approx(math.log2(classes), abs=0.05)
    assert information.warning is None


def test_the_same_twice():
    first, second = (usable_information(*gaussians(1, seed=0), 2) for _ in range(2))
    assert first.bits == second.bits and (first.per_row == second.per_row).all()
    assert first.share == first.bits / first.entropy


@pytest.mark.parametrize("broken", ["constant", "rounding", "nan"])
def test_a_broken_encoder_is_undefined_and_warns(broken):
    features, labels = gaussians(4, seed=0, sizes=SMALL)
    if broken == "nan":
        features["test"][0, 0] = np.nan
    else:
        noise = 1e-7 * (broken == "rounding")
        features = {split: np.ones_like(x) + noise * np.sign(x) for split, x in features.items()}
    for information in (
        usable_information(features, labels, 2),
        conditional_information(features, gaussians(1, seed=1, sizes=SMALL)[0], labels, 2),
    ):
        assert math.isnan(information.bits) and math.isnan(information.share) and math.isnan(information.accuracy)
        assert np.isnan(information.per_row).all() and len(information.per_row) == SMALL["test"]
        assert information.entropy == pytest.approx(1, abs=0.01)
        assert ("diverged" if broken == "nan" else "collapsed") in information.warning


def cue_and_rest(seed: int):
    """A label of 4 classes: a bit that a cue shows, and a bit of which features hold 0.486 bits. Returns features that
    hold both, features with the cue alone, the cue and the labels."""
    rest, bits = gaussians(2, seed)
    random = np.random.default_rng(100 + seed)
    shown = {split: random.integers(0, 2, len(y)) for split, y in bits.items()}
    cue = {split: np.eye(2, dtype=np.float32)[y] for split, y in shown.items()}
    noise = {split: random.normal(size=x.shape).astype(np.float32) for split, x in rest.items()}
    joined = {split: np.concatenate([cue[split], x], axis=1) for split, x in rest.items()}
    alone = {split: np.concatenate([cue[split], x], axis=1) for split, x in noise.items()}
    return joined, alone, cue, {split: 2 * shown[split] + bits[split] for split in bits}


def test_bits_beyond_a_cue():
    of_joined, of_alone, beyond, nothing = [], [], [], []
    for seed in range(3):
        joined, alone, cue, labels = cue_and_rest(seed)
        of_joined.append(usable_information(joined, labels, 4).bits)
        of_alone.append(usable_information(alone, labels, 4).bits)
        beyond.append(conditional_information(joined, cue, labels, 4))
        nothing.append(conditional_information(alone, cue, labels, 4).bits)
    assert np.mean(of_joined) == pytest.approx(1.486, abs=0.05) and np.mean(of_alone) == pytest.approx(1, abs=0.05)
    assert np.mean([each.bits for each in beyond]) == pytest.approx(0.486, abs=0.05)
    assert np.abs(nothing).max() < 0.01
    assert np.mean([each.entropy for each in beyond]) == pytest.approx(1, abs=0.01)  # the bit that the cue leaves


def test_a_cue_that_says_nothing_leaves_all_bits():
    features, labels = gaussians(2, seed=0)
    cue = {split: np.zeros((len(x), 3)) for split, x in features.items()}
    conditional = conditional_information(features, cue, labels, 2)
    assert conditional.bits == pytest.approx(usable_information(features, labels, 2).bits, abs=1e-3)


def test_logits_of_a_model_that_is_too_sure():
    features, labels = gaussians(2, seed=0)
    logits = {split: np.stack([np.zeros(len(x)), 2 * x[:, 0]], axis=1) for split, x in features.items()}
    right = logit_information(logits, labels, 2)
    sure = logit_information({split: torch.tensor(20 * x) for split, x in logits.items()}, labels, 2)
    assert right.bits == pytest.approx(0.486, abs=0.05) and sure.bits == pytest.approx(right.bits, abs=0.002)
    broken = logit_information({**logits, "test": np.full_like(logits["test"], np.inf)}, labels, 2)
    assert math.isnan(broken.bits) and "diverged" in broken.warning
    with pytest.raises(ValueError, match="2 classes"):
        logit_information(logits, labels, 3)


def gaussian_pairs(count: int, channels: int, correlation: float, seed: int) -> np.ndarray:
    """The log density ratio of each x with each y, `(count, count)`, whose pairs have this correlation in each channel.

    log p(x, y) / p(x) p(y) = sum over channels of -1/2 log(1 - r^2) + (r x y - r^2 (x^2 + y^2) / 2) / (1 - r^2)"""
    random = np.random.default_rng(seed)
    x, other = random.normal(size=(2, count, channels))
    y = correlation * x + math.sqrt(1 - correlation**2) * other
    squares = correlation**2 / 2 * ((x**2).sum(1)[:, None] + (y**2).sum(1)[None])
    return (correlation * x @ y.T - squares) / (1 - correlation**2) - channels / 2 * math.log(1 - correlation**2)


def bits_of_pairs(channels: int, correlation: float) -> float:
    return -channels / 2 * math.log2(1 - correlation**2)


def of_pairs(count: int, channels: int, correlation: float, factor: float = 1.0, seed: int = 0):
    given = (factor * gaussian_pairs(count, channels, correlation, 2 * seed + i) for i in range(2))
    return pair_information(*given, dict.fromkeys(("validation", "test"), np.arange(count)))


@pytest.mark.parametrize(("channels", "correlation"), [(4, 0.3), (2, 0.8), (8, 0.5)])
def test_pairs_of_gaussians(channels, correlation):
    """With 400 candidates, up to 1.7 bits of at most 8.6. Draws of the pairs vary by 0.1 bits, so the mean of 8 is
    compared with the information, and each draw with the log density ratio of its own pairs."""
    draws = [of_pairs(400, channels, correlation, seed=seed).bits for seed in range(8)]
    tests = [gaussian_pairs(400, channels, correlation, 2 * seed + 1) for seed in range(8)]
    assert np.mean(draws) == pytest.approx(bits_of_pairs(channels, correlation), abs=0.1)
    assert draws == pytest.approx([scores.diagonal().mean() / math.log(2) for scores in tests], abs=0.07)


def test_few_candidates_limit_the_bits_of_pairs():
    """Pairs of 38 bits show at most log2 N, for N candidates."""
    information = of_pairs(256, 32, 0.9)
    assert bits_of_pairs(32, 0.9) > 38
    assert 7.9 < information.bits <= information.entropy == 8 and information.accuracy > 0.99


def test_pairs_have_one_temperature_of_any_scale():
    right = of_pairs(300, 4, 0.6)
    for factor in (1e-3, 30):
        assert of_pairs(300, 4, 0.6, factor).bits == pytest.approx(right.bits, abs=1e-3)
    assert right.bits == of_pairs(300, 4, 0.6).bits


def test_duplicates_are_right():
    """Three pairs of each group, with the same scores: chance is 3 of N, and all bits are read."""
    groups = np.repeat(np.arange(50), 3)
    scores = (groups[:, None] == groups[None]) * 1.0
    information = pair_information(scores, scores, {"validation": groups, "test": groups})
    assert information.entropy == pytest.approx(math.log2(50))
    assert information.bits == pytest.approx(math.log2(50), abs=1e-3) and information.accuracy == 1
    alone = pair_information(scores, scores, dict.fromkeys(("validation", "test"), np.arange(150)))
    assert alone.bits == pytest.approx(math.log2(50), abs=1e-2) and alone.accuracy == 0  # ties are wrong


def test_pairs_whose_scores_say_nothing():
    groups = dict.fromkeys(("validation", "test"), np.arange(80))
    validation, test = np.random.default_rng(0).normal(size=(2, 80, 80))
    assert abs(pair_information(validation, test, groups).bits) < 0.05
    against = pair_information(-np.eye(80), np.eye(80), groups)  # validation says that scores mislead
    assert against.bits == 0 and (against.per_row == 0).all()
    for scores, word in ((np.full((80, 80), 0.9), "collapsed"), (np.full((80, 80), np.nan), "diverged")):
        information = pair_information(scores, test, groups)
        assert math.isnan(information.bits) and word in information.warning
    with pytest.raises(ValueError, match=r"Give scores \(N, N\)"):
        pair_information(validation[:, 1:], test, groups)
