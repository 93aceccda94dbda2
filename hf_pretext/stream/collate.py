"""Examples to a batch; the only collator.

[{"pixel_values": (C, H, W), "input_ids": (T,)}, ...] -> {"pixel_values": (B, C, H, W), "input_ids": (B, longest)}
[{"input_ids": (K, T)}, ...] -> {"input_ids": (B, K, longest)}
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Room = Callable[[str, Sequence[int], torch.dtype], Tensor]
TIME_AXES = (0, 1)  # of an example: the second of several views, `(K, T)`, or of frames by channels


def collate(
    examples: list[dict[str, Tensor | float | int]], room: Room | None = None, fills: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Stacks each column. Raises `ValueError` for examples of different shapes, which names the column.

    room: `(column, shape, dtype) -> tensor` to stack into; else memory is allocated. fills: columns that are padded
    along time to the longest of the batch, and with what.
    """
    batch = {}
    for name, first in examples[0].items():
        values = [example[name] for example in examples]
        if not isinstance(first, Tensor):
            values = torch.as_tensor(values)
            batch[name] = values if room is None else room(name, values.shape, values.dtype).copy_(values)
            continue
        if any(value.shape != first.shape for value in values):
            values = padded(name, values, (fills or {}).get(name))
        out = None if room is None else room(name, (len(values), *values[0].shape), first.dtype)
        batch[name] = torch.stack(values, out=out)
    return batch


def padded(name: str, values: Sequence[Tensor], fill: float | None) -> list[Tensor]:
    """Returns tensors of one shape: each filled up at the end of the axis in which they differ, which is time.

    Raises `ValueError`, which names the column, where there is no fill or they differ in more than their length.
    """
    shapes = {tuple(value.shape) for value in values}
    same_rank = len({len(shape) for shape in shapes}) == 1
    differing = [axis for axis, sizes in enumerate(zip(*shapes, strict=False)) if len(set(sizes)) > 1]
    if fill is None or not same_rank or len(differing) != 1 or differing[0] not in TIME_AXES:
        raise ValueError(f"{name} differs in shape within a batch: {', '.join(map(str, sorted(shapes)[:4]))}.")
    (axis,) = differing
    longest, after = max(shape[axis] for shape in shapes), [0, 0] * (values[0].ndim - 1 - axis)
    return [F.pad(value, (*after, 0, longest - value.shape[axis]), value=fill) for value in values]
