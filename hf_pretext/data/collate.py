"""Examples to a batch; the only collator.

[{"pixel_values": (C, H, W)}, ...] -> {"pixel_values": (B, C, H, W)}
"""

import torch
from torch import Tensor
from torch.utils.data import default_collate


def collate(examples: list[dict[str, Tensor | float | int]]) -> dict[str, Tensor]:
    """Stacks each column. Raises `ValueError` for examples of different shapes, which name the column."""
    batch = {}
    for name, first in examples[0].items():
        values = [example[name] for example in examples]
        if not isinstance(first, Tensor):
            batch[name] = torch.as_tensor(values)
            continue
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise ValueError(f"{name} differs in shape within a batch: {', '.join(map(str, sorted(shapes)[:4]))}.")
        batch[name] = default_collate(values)  # in a loader's worker it stacks straight into shared memory
    return batch
