"""Features and labels whose information is known."""

import numpy as np

SIZES = {"train": 3361, "validation": 431, "test": 658}
GAUSSIANS = {0: 0.0, 1: 0.161, 2: 0.486, 4: 0.913}  # distance of two equally likely Gaussians: bits, by integration


def gaussians(distance: float, seed: int, channels: int = 64, sizes: dict[str, int] = SIZES):
    """Rows around one of two means, of variance 1, in three splits: features and labels. A linear reader is optimal."""
    random = np.random.default_rng(seed)
    labels = {split: random.integers(0, 2, rows) for split, rows in sizes.items()}
    features = {split: random.normal(size=(rows, channels)) for split, rows in sizes.items()}
    for split, values in features.items():
        values[:, 0] += (labels[split] - 0.5) * distance
    return {split: values.astype(np.float32) for split, values in features.items()}, labels


def unrelated(classes: int, seed: int, channels: int = 256, sizes: dict[str, int] = SIZES):
    """Features and labels that are independent, in three splits."""
    random = np.random.default_rng(seed)
    features = {split: random.normal(size=(rows, channels)).astype(np.float32) for split, rows in sizes.items()}
    return features, {split: random.integers(0, classes, rows) for split, rows in sizes.items()}
