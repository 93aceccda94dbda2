"""Reader of pairs: groups that both sides name are read, and nothing is read where a side says nothing."""

import math

import numpy as np
import pytest
import torch

from hf_pretext.audit.pair_reader import pair_reader

GROUPS, SIZES = 8, {"train": 512, "validation": 160, "test": 240}


def sides(seed: int = 0, unrelated: bool = False):
    """Features that name one of 8 groups, amid noise; token ids of which one names it; and the groups."""
    random = np.random.default_rng(seed)
    groups = {split: random.integers(0, GROUPS, count) for split, count in SIZES.items()}
    shown = {split: random.permutation(x) if unrelated else x for split, x in groups.items()}
    features = {
        split: np.concatenate([np.eye(GROUPS)[x], random.normal(size=(len(x), 4))], axis=1).astype(np.float32)
        for split, x in shown.items()
    }
    others = {split: random.integers(100, 120, (len(x), 2)) for split, x in groups.items()}
    tokens = {split: np.column_stack([others[split], x, np.full(len(x), -1)]) for split, x in groups.items()}
    return features, tokens, groups


def test_what_both_sides_name_is_read():
    features, tokens, groups = sides()
    for given in ((features, tokens), (tokens, features), (features, features), (tokens, tokens)):
        reading = pair_reader(*given, groups)
        assert reading.accuracy > 0.95
        assert 2.6 < reading.bits <= reading.entropy + 1e-9
        assert reading.entropy == pytest.approx(3, abs=0.05)
        assert reading.bits == pytest.approx(reading.per_row.mean())


def test_words_that_train_lacks_are_ignored():
    features, tokens, groups = sides()
    unseen = {**tokens, "test": np.where(tokens["test"] >= 100, tokens["test"] + 1000, tokens["test"])}
    assert pair_reader(features, unseen, groups).accuracy > 0.95
    nameless = {**tokens, "test": np.full_like(tokens["test"], 5000)}
    assert pair_reader(features, nameless, groups).bits == 0


def test_unrelated_sides_say_nothing():
    bits = [pair_reader(*sides(seed, unrelated=True)).bits for seed in range(3)]
    assert abs(np.mean(bits)) < 0.01


def test_a_side_that_is_always_the_same_says_nothing():
    features, tokens, groups = sides()
    for given in (
        (features, {split: np.zeros_like(ids) for split, ids in tokens.items()}),
        ({split: np.zeros((len(x), 0), np.float32) for split, x in features.items()}, tokens),
    ):
        reading = pair_reader(*given, groups)
        assert reading.bits == 0 and (reading.per_row == 0).all()
        assert reading.accuracy == pytest.approx(1 / GROUPS, abs=0.02)
        assert reading.entropy == pytest.approx(math.log2(GROUPS), abs=0.05)


def test_features_that_are_not_finite_are_refused():
    features, tokens, groups = sides()
    features["test"][3, 1] = np.nan
    with pytest.raises(ValueError, match="test: .*NaN"):
        pair_reader(tokens, features, groups)


def test_the_same_twice_and_other_seeds_differ():
    features, tokens, groups = sides()
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second, third = (pair_reader(features, tokens, groups, seed) for seed in (0, 0, 1))
    assert (first.per_row == second.per_row).all()
    assert (first.per_row != third.per_row).any()
    assert torch.equal(torch.get_rng_state(), state)
