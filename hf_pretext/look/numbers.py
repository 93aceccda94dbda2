"""Hashes of contents, and minimum, median and maximum."""

import hashlib
from collections.abc import Sequence

import numpy as np


def digest(content: bytes) -> bytes:
    """Returns a hash of 16 bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the minimum, the median and the maximum. The values are not empty."""
    array = np.array(values)
    ends = {"min": array.min(), "median": np.median(array), "max": array.max()}
    return {name: value.item() for name, value in ends.items()}
