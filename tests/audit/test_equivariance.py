"""Invariance and equivariance where both are known."""

import math

import numpy as np
import pytest
import torch

from hf_pretext.audit.equivariance import Whitener, equivariance, invariance, pair_invariance

ROWS = {"train": 1000, "validation": 200, "test": 400}
CHANNELS = 32


def normal(seed: int, channels: int = CHANNELS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {split: random.normal(size=(rows, channels)).astype(np.float32) for split, rows in ROWS.items()}


def orthogonal(size: int = CHANNELS) -> np.ndarray:
    """An orthogonal matrix of trace 0, so that features and mapped features are uncorrelated on average."""
    basis = np.linalg.qr(np.random.default_rng(5).normal(size=(size, size)))[0]
    return (basis @ np.roll(np.eye(size), 1, axis=0) @ basis.T).astype(np.float32)


def half(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([values[:, : CHANNELS // 2], other[:, CHANNELS // 2 :]], axis=1)


CLEAN, OTHER = normal(0), normal(1)
CHANGED = {  # invariance, R2, changed features
    "equivariant": (0, 1, {split: values @ orthogonal() for split, values in CLEAN.items()}),
    "invariant": (1, 1, CLEAN),
    "unrelated": (0, 0, OTHER),
    "half": (0.5, 0.5, {split: half(values, OTHER[split]) for split, values in CLEAN.items()}),
}


def measured(clean, changed) -> tuple[float, float]:
    whiten = Whitener(clean["train"])
    return invariance(whiten(clean["test"]), whiten(changed["test"])), equivariance(clean, changed)


@pytest.mark.parametrize("case", CHANGED)
def test_known_maps(case):
    *known, changed = CHANGED[case]
    assert measured(CLEAN, changed) == pytest.approx(known, abs=0.05)


@pytest.mark.parametrize("case", CHANGED)
def test_the_scale_and_the_mean_of_a_channel_do_not_count(case):
    scales = 10.0 ** np.linspace(-1, 1, CHANNELS, dtype=np.float32)
    *known, changed = CHANGED[case]
    scaled = [{split: values * scales + 3 for split, values in each.items()} for each in (CLEAN, changed)]
    whiten = Whitener(scaled[0]["train"], share=1.0)
    assert invariance(*(whiten(each["test"]) for each in scaled)) == pytest.approx(known[0], abs=0.05)
    assert equivariance(*scaled) == pytest.approx(known[1], abs=0.05)


def test_a_map_may_need_directions_of_little_variance():
    """A channel of the changed features that is a small difference of two clean ones."""
    clean = {split: np.stack([x[:, 0], x[:, 0] + 0.01 * x[:, 1]], axis=1) for split, x in CLEAN.items()}
    changed = {split: x[:, :1] - x[:, 1:] for split, x in clean.items()}
    assert equivariance(clean, changed) > 0.99


def test_features_that_go_farther_than_another_example_have_negative_invariance():
    opposite = {split: -values for split, values in CLEAN.items()}
    assert measured(CLEAN, opposite) == pytest.approx((-1, 1), abs=0.05)


def test_few_rows_and_many_channels_do_not_count_as_a_map():
    """The strength of the ridge is chosen on validation: without one, the map would fit the noise of train."""
    few = [{split: values[:200] for split, values in normal(seed, channels=256).items()} for seed in (0, 1)]
    assert abs(measured(*few)[1]) < 0.05


def test_the_same_twice_whatever_the_seed():
    first = [measured(CLEAN, changed) for *_, changed in CHANGED.values()]
    np.random.seed(7)
    torch.manual_seed(7)
    assert [measured(CLEAN, changed) for *_, changed in CHANGED.values()] == first


def test_whitening_keeps_the_directions_that_vary():
    random = np.random.default_rng(0)
    train = random.normal(size=(3000, 16)) @ random.normal(size=(16, 64)) + 7
    whiten = Whitener(train, share=1 - 1e-9)
    white = whiten(train)
    assert white.shape == (3000, 16)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(16), atol=1e-9)
    isotropic = random.normal(size=(3000, 16)) @ np.linalg.qr(random.normal(size=(64, 16)))[0].T
    assert Whitener(isotropic).directions.shape == (64, 16)


def test_whitening_leaves_out_what_hardly_varies():
    scales = np.array([1.0, 1.0, 0.05], np.float32)
    assert Whitener(normal(0, channels=3)["train"] * scales).directions.shape == (3, 2)


@pytest.mark.parametrize("value", [0.0, 3.3])
def test_constant_features_are_undefined(value):
    constant = {split: np.full((rows, 8), value, np.float32) for split, rows in ROWS.items()}
    assert all(map(math.isnan, measured(constant, constant)))
    assert math.isnan(equivariance(CLEAN, constant)) and math.isnan(equivariance(constant, CLEAN))
    assert math.isnan(invariance(constant["test"], constant["test"] + 1))


def test_constant_channels_are_left_out():
    def with_constant(features, value):
        return {split: np.insert(values, 0, value, axis=1) for split, values in features.items()}

    changed = CHANGED["half"][-1]
    assert equivariance(with_constant(CLEAN, 0), with_constant(changed, 2.5)) == equivariance(CLEAN, changed)


@pytest.mark.filterwarnings("error")
def test_one_row_is_undefined():
    whiten = Whitener(CLEAN["train"])
    assert math.isnan(invariance(whiten(CLEAN["test"][:1]), whiten(CLEAN["test"][:1])))


def test_features_that_are_not_finite_are_refused():
    broken = CLEAN["train"].copy()
    broken[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        Whitener(broken)
    with pytest.raises(ValueError, match="NaN or infinity"):
        Whitener(CLEAN["train"])(broken)


def drawings(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Three drawings each of 400 things, of which `share` of the variance is common, and things that are drawn once."""
    random = np.random.default_rng(0)
    things, styles = random.normal(size=(400, 1, CHANNELS)), random.normal(size=(400, 3, CHANNELS))
    drawn = share**0.5 * things + (1 - share) ** 0.5 * styles
    alone = 5 * random.normal(size=(50, CHANNELS))
    keys = np.concatenate([np.repeat(np.arange(400), 3), np.arange(400, 450)])
    order = random.permutation(len(keys))
    return np.concatenate([drawn.reshape(-1, CHANNELS), alone])[order], keys[order]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pairs_of_one_key_share_what_is_common(share):
    features, keys = drawings(share)
    assert pair_invariance(features, keys) == pytest.approx(share, abs=0.02)


def test_pairs_of_two_are_measured_as_a_change():
    """Two rows of each key, once as pairs and once as an example and its changed version."""
    first, second = CLEAN["test"].astype(float), half(CLEAN["test"], OTHER["test"]).astype(float)
    keys = np.tile(np.arange(len(first)), 2)
    as_pairs = pair_invariance(np.concatenate([first, second]), keys)
    assert as_pairs == pytest.approx(invariance(first, second), abs=0.02)


def test_keys_without_a_second_row_are_undefined():
    assert math.isnan(pair_invariance(CLEAN["test"], np.arange(ROWS["test"])))
    assert math.isnan(pair_invariance(np.ones((10, 4)), np.arange(10) // 2))
