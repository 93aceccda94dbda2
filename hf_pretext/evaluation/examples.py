"""Decoded examples of one kind of data: as a list, or stacked if all have the same shape.

[{name: (...)}, ...] -> {name: (n, ...)} and back; in memory, and between processes
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..modalities import Batch, Example
from ..stream.collate import collate

Examples = list[Example] | Batch  # of one kind: a list, or stacked if all have the same shape


def same_shapes(examples: Sequence[Example]) -> bool:
    """True if all examples have the same shapes, so that they can be stacked."""
    return len({tuple((name, torch.as_tensor(v).shape) for name, v in one.items()) for one in examples}) == 1


def stacked(examples: list[Example]) -> Examples:
    """Stacks examples of one kind if all have the same shape; otherwise returns the list unchanged."""
    return collate(examples) if examples and same_shapes(examples) else examples


def packed(examples: list[Example]) -> Examples:
    """Packs examples for the transfer between processes: stacked, or as NumPy arrays. Single tensors would each need a
    file descriptor."""
    together = stacked(examples)
    if isinstance(together, dict):
        return together
    return [{name: np.asarray(value) for name, value in one.items()} for one in together]


def separate(examples: Examples) -> list[Example]:
    """Splits packed examples into a list of examples of tensors."""
    if isinstance(examples, list):
        return [{name: torch.as_tensor(value) for name, value in one.items()} for one in examples]
    count = len(next(iter(examples.values())))
    return [{name: value[i] for name, value in examples.items()} for i in range(count)]


def part(examples: Examples, first: int, end: int) -> Examples:
    """Returns examples `first` to `end` (exclusive) of one kind."""
    return {k: v[first:end] for k, v in examples.items()} if isinstance(examples, dict) else examples[first:end]


def chosen(examples: Examples, order: Sequence[int]) -> Examples:
    """Returns the examples `order` of one kind."""
    if isinstance(examples, dict):
        index = torch.as_tensor(np.asarray(order, dtype=np.int64))
        return {name: value[index] for name, value in examples.items()}
    return [examples[i] for i in order]
