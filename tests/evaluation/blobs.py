"""Features with labels in them, for the tests of probes."""

import numpy as np
import torch

from hf_pretext.evaluation.transfer import Labels


def blobs(count: int, classes: int = 3, noise: float = 0.3, dim: int = 5, seed: int = 0):
    """Features (`(count, dim)`) around a centre for each class, and their labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    return torch.tensor(centres[labels] + noise * random.normal(size=(count, dim))).float(), labels


def split_blobs(**options):
    """The same in three splits: features by split, and `Labels`."""
    counts = {"train": 120, "validation": 60, "test": 80}
    splits = {split: blobs(n, seed=i, **options) for i, (split, n) in enumerate(counts.items())}
    return {s: x for s, (x, _) in splits.items()}, Labels({s: y for s, (_, y) in splits.items()}, ["a", "b", "c"])
