"""Examples to a batch; the only collator.

[{"pixel_values": (C, H, W), "input_ids": (l,)}, ...] -> {"pixel_values": (B, C, H, W), "input_ids": (B, longest)}
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Room = Callable[[str, Sequence[int], torch.dtype], Tensor]


def collate(
    examples: list[dict[str, Tensor | float | int]], room: Room | None = None, fills: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """Stacks each column. Raises `ValueError` for examples of different shapes, which names the column.

    room: `(column, shape, dtype) -> tensor` to stack into; else memory is taken anew. fills: columns of sequences that
    are padded to the longest of the batch, and with what.
    """
    batch = {}
    for name, first in examples[0].items():
        values = [example[name] for example in examples]
        if not isinstance(first, Tensor):
            values = torch.as_tensor(values)
            batch[name] = values if room is None else room(name, values.shape, values.dtype).copy_(values)
            continue
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1 and name in (fills or {}):
            longest = max(shapes)[0]
            values = [F.pad(value, (0, longest - len(value)), value=fills[name]) for value in values]
            first = values[0]
        elif len(shapes) > 1:
            raise ValueError(f"{name} differs in shape within a batch: {', '.join(map(str, sorted(shapes)[:4]))}.")
        out = None if room is None else room(name, (len(values), *first.shape), first.dtype)
        batch[name] = torch.stack(values, out=out)
    return batch
