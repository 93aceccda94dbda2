"""Invariance and equivariance: what a change of the input does to the features.

features of clean and of changed examples (n, d) -> whitened by the clean ones (n, k) -> invariance
features of clean and of changed examples (n, d) -> linear map from the former to the latter -> equivariance

- Invariance is 1 if the change leaves the features as they are. It is 0 if the features of an example and of its
  changed version are as far apart as those of two different examples, and negative if they are farther apart.
- Equivariance is the share of the variance of the changed features that a linear map of the clean features predicts on
  held-out rows (R2): 1 if the map is exact, 0 if it is no better than the mean. Lenc and Vedaldi 2015,
  https://huggingface.co/papers/1411.5908. Invariant features have 1, too, since the identity is such a map: read it
  next to the invariance.

Both are NaN (undefined) where the features are constant.
"""

import math

import numpy as np
import torch

from ..evaluation.health import dead_channels
from ..evaluation.knn import DIVERGED
from ..evaluation.transfer import SPLITS
from .readers import Splits, constant, one_thread

KEPT = 0.99  # share of the variance that whitening keeps; the remaining directions are mostly noise, which it amplifies
STRENGTHS = tuple(10.0**power for power in range(-9, 3))  # ridge, relative to the variance 1 of a channel
ROUNDING = 1e-8  # variance of whitened features up to which they are constant


class Whitener:
    """Whitens features by a PCA of clean train features, so that no channel counts more because of its scale.

    The components of the largest variance are kept, as few as have `share` of the variance together. Attributes: mean
    (`(d,)`), directions (`(d, k)`). k is 0 for constant features."""

    def __init__(self, train: np.ndarray, share: float = KEPT):
        """train: `(n, d)`. Raises `ValueError` for features that are not finite."""
        values = finite(train)
        self.mean = values.mean(0)
        if constant(values):
            self.directions = np.zeros((values.shape[1], 0))
            return
        with one_thread():
            _, scales, axes = np.linalg.svd(values - self.mean, full_matrices=False)
        shares = np.cumsum(scales**2) / np.sum(scales**2)
        kept = int(np.sum(shares < share)) + 1
        self.directions = axes[:kept].T / scales[:kept] * math.sqrt(len(values))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns whitened features: `(n, d)` to `(n, k)`, float64. Raises `ValueError` for features that are not
        finite."""
        with one_thread():
            return (finite(features) - self.mean) @ self.directions


def finite(features: np.ndarray) -> np.ndarray:
    """Returns features in float64. Raises `ValueError` if any is NaN or infinite."""
    if not np.isfinite(features).all():
        raise ValueError(DIVERGED)
    return features.astype(np.float64)


def invariance(features: np.ndarray, changed: np.ndarray) -> float:
    """Returns 1 minus the mean squared distance of each example from its changed version, divided by that of two
    different examples. NaN for constant features and for fewer than two rows.

    features, changed: whitened, of the same rows in one order, `(n, k)`."""
    spread = variance(features)
    if math.isnan(spread):
        return math.nan
    return float(1 - np.square(features - changed).sum(1).mean() / (2 * spread))


def pair_invariance(features: np.ndarray, keys: np.ndarray) -> float:
    """Returns 1 minus the mean squared distance of each row from the other rows of its key, divided by that of two
    different rows: the invariance to the difference between several versions of one thing, such as its drawing style.

    features: whitened, `(n, k)`. keys (`(n,)`): integers; rows whose key no other row has are left out. Unrelated keys
    have 0. NaN if no two rows share a key, and for constant features."""
    _, groups, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    used = sizes[groups] > 1
    spread = variance(features[used])
    if math.isnan(spread):
        return math.nan
    means = np.stack([np.bincount(groups, column) / sizes for column in features.T], axis=1)
    count = sizes[groups[used]]
    within = np.square(features - means[groups])[used].sum(1) * count / (count - 1)  # unbiased variance of a key
    return float(1 - within.mean() / spread)


def variance(features: np.ndarray) -> float:
    """Returns the sum of the variances of whitened features `(n, k)`, which is half of the mean squared distance of two
    rows; NaN if they are constant, up to rounding."""
    if len(features) < 2 or not features.size:
        return math.nan
    total = float(features.var(0, ddof=1).sum())
    return total if total > ROUNDING * features.shape[1] else math.nan


def equivariance(clean: Splits, changed: Splits) -> float:
    """Returns the R2 on test of the best linear map from clean to changed features: a ridge regression on train whose
    strength is chosen on validation. NaN if either features are constant.

    clean, changed: features of the same rows in one order, `{split: (n, d)}`. They are standardised, not whitened: the
    map may need directions of little variance. All channels of the changed features count alike; constant ones are left
    out."""
    inputs, targets = standardised(clean), standardised(changed)
    if not inputs["train"].size or not targets["train"].size:
        return math.nan
    with one_thread():
        covariance, products = (inputs["train"].T @ x["train"] / len(x["train"]) for x in (inputs, targets))
        variances, axes = np.linalg.eigh(covariance)  # one decomposition for all strengths
        along = {split: values @ axes for split, values in inputs.items()}
        loads = axes.T @ products

        def r2(split: str, strength: float) -> float:
            rest = targets[split] - along[split] / (variances + strength) @ loads
            return 1 - float(np.square(rest).sum() / np.square(targets[split]).sum())

        return r2("test", max(STRENGTHS, key=lambda strength: r2("validation", strength)))


def standardised(features: Splits) -> dict[str, np.ndarray]:
    """Scales channels to mean 0 and variance 1 on train, without limits, and leaves out the ones that are constant
    there: `(n, d)` to `(n, k)`, float64. Raises `ValueError` for features that are not finite."""
    values = {split: finite(features[split]) for split in SPLITS}
    live = ~dead_channels(torch.from_numpy(values["train"])).numpy()
    mean, deviation = values["train"].mean(0)[live], values["train"].std(0)[live]
    return {split: (x[:, live] - mean) / deviation for split, x in values.items()}
