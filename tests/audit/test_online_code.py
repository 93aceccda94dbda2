"""The online code of labels: known answers, its bounds, and that no label is used before it is sent."""

import math

import numpy as np
import pytest
from known import GAUSSIANS, gaussians, unrelated

from hf_pretext.audit.code import EXPERTS, SHARE, block_ends, first_epoch_code, online_code

SMALL = {"train": 600, "validation": 1, "test": 1}


def of_train(splits, classes: int, **options):
    features, labels = splits
    return online_code(features["train"], labels["train"], classes, **options)


@pytest.mark.parametrize("distance", GAUSSIANS)
def test_two_gaussians(distance):
    """The mean of 3 draws of the rows. The code is longer than the information, as readers learn from few labels."""
    saved = [of_train(gaussians(distance, seed), 2, seed=seed).saved for seed in range(3)]
    assert np.mean(saved) == pytest.approx(GAUSSIANS[distance], abs=0.1)


@pytest.mark.parametrize("classes", [9, 99])
def test_random_labels_save_nothing(classes):
    code = of_train(unrelated(classes, seed=0), classes)
    assert code.saved < 0.01 and code.saved >= -longest_loss(3361, classes)
    assert code.uniform == math.log2(classes)


def longest_loss(count: int, classes: int) -> float:
    """What the mixture costs in bits per label at most, over the expert that ignores the features."""
    blocks = len(block_ends(count, classes)) - 1
    return (math.log2(EXPERTS) - (blocks - 1) * math.log2(1 - SHARE + SHARE / EXPERTS)) / count


def test_the_adaptive_code_is_that_of_krichevsky_and_trofimov():
    """Its length depends on the counts alone: log of a Dirichlet-multinomial with all parameters 1/2."""
    labels = np.random.default_rng(0).choice(4, size=500, p=[0.6, 0.3, 0.1, 0])
    code = online_code(np.random.default_rng(1).normal(size=(500, 3)), labels, 4)
    counts = np.bincount(labels, minlength=4)
    nats = math.lgamma(500 + 2) - math.lgamma(2) - sum(math.lgamma(n + 0.5) - math.lgamma(0.5) for n in counts)
    assert code.adaptive == pytest.approx(nats / 500 / math.log(2), abs=1e-9)
    assert code.saved == pytest.approx(code.adaptive - code.bits)


def test_no_label_is_used_before_it_is_sent():
    """Other labels in the last block change its bits, and those of no block before."""
    features, labels = gaussians(2, seed=0, sizes=SMALL)
    order = np.random.default_rng(3).permutation(600)
    changed = labels["train"].copy()
    changed[order[400:]] = 1 - changed[order[400:]]
    first, second = (online_code(features["train"], y, 2, seed=3) for y in (labels["train"], changed))
    assert [seen for seen, _ in first.curve] == [9, 14, 22, 34, 52, 78, 118, 177, 266, 400]
    assert first.curve[:-1] == second.curve[:-1]
    assert first.curve[-1][1] < 0.8 < 1 < second.curve[-1][1]


def test_blocks_add_up_and_get_shorter():
    code = of_train(gaussians(4, seed=0), 2)
    ends = [*(seen for seen, _ in code.curve), 3361]
    sent = sum(bits * (end - start) for (start, bits), end in zip(code.curve, ends[1:], strict=True))
    first = code.bits * 3361 - sent  # the first block has no features: about a bit a label
    assert first == pytest.approx(ends[0], abs=4)
    assert code.curve[-1][1] < 0.2 < code.curve[0][1]


def test_the_same_twice_and_another_order():
    first, second = (of_train(gaussians(2, seed=0, sizes=SMALL), 2) for _ in range(2))
    assert first == second
    other = of_train(gaussians(2, seed=0, sizes=SMALL), 2, seed=1)
    assert other.bits != first.bits and other.adaptive == pytest.approx(first.adaptive)


def test_blocks_of_little_data():
    assert block_ends(100, 9) == [12, 19, 29, 44, 66, 100]
    assert block_ends(3361, 99)[0] == 130 and block_ends(12, 99) == [12] and block_ends(1, 2) == [1]
    code = online_code(np.eye(12), np.arange(12) % 3, 99)
    assert code.curve == [] and code.saved == 0


@pytest.mark.parametrize("broken", ["constant", "nan"])
def test_a_broken_encoder_is_undefined_and_warns(broken):
    features, labels = gaussians(4, seed=0, sizes=SMALL)
    code = online_code(np.full_like(features["train"], np.nan if broken == "nan" else 0.3), labels["train"], 2)
    assert math.isnan(code.bits) and math.isnan(code.saved) and code.curve == []
    assert code.adaptive == pytest.approx(1, abs=0.02)
    assert ("diverged" if broken == "nan" else "collapsed") in code.warning


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="shape"):
        online_code(np.zeros((5, 2)), np.zeros(4, int), 2)
    with pytest.raises(ValueError, match="0 to 1"):
        online_code(np.zeros((5, 2)), np.full(5, 2), 2)


def entry(seen: int, bits: float) -> dict:
    return {"samples_seen": seen, "loss": bits * math.log(2), "epoch": seen / 100}


def test_the_code_of_the_first_epoch_is_the_area_under_the_logged_means():
    assert first_epoch_code([entry(50, 2), entry(100, 2)], 100) == pytest.approx(2)
    assert first_epoch_code([entry(25, 2), entry(100, 1)], 100) == pytest.approx(1.25)
    # an entry that ends in the second epoch counts with its part, and later ones do not
    assert first_epoch_code([entry(75, 2), entry(125, 1), entry(200, 0)], 100) == pytest.approx(1.75)
    assert first_epoch_code([entry(40, 2), entry(60, 1)], 100) == pytest.approx(100 / 60)  # a run that ends early


def test_a_first_epoch_without_a_code():
    diverged = [entry(50, 2), {"samples_seen": 100}]
    assert math.isnan(first_epoch_code(diverged, 100)) and first_epoch_code(diverged, 50) == pytest.approx(2)
    for history, samples in (([], 100), ([entry(50, 1)], 0), ([entry(50, 1), entry(40, 1)], 100)):
        with pytest.raises(ValueError, match="ascending"):
            first_epoch_code(history, samples)
