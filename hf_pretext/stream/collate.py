"""Collates examples into a batch. The package has no other collator.

[{"pixel_values": (C, H, W), "input_ids": (T,)}, ...] -> {"pixel_values": (B, C, H, W), "input_ids": (B, longest)}
[{"input_ids": (K, T)}, ...] -> {"input_ids": (B, K, longest)}
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Room = Callable[[str, Sequence[int], torch.dtype], Tensor]
TIME_AXES = (0, 1)  # possible time axes of an example: 0 for `(T,)` and `(T, channels)`, 1 for views `(K, T)`


def collate(
    examples: list[dict[str, Tensor | float | int]], room: Room | None = None, fills: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Stacks each column of the examples. Returns `{column: (B, ...)}`.

    room: `(column, shape, dtype) -> tensor` to stack into; default: new memory. fills: `{column: padding value}` of the
    columns that are padded along time to the longest example of the batch. Raises `ValueError`, with the name of the
    column, if examples differ in shape and the column can't be padded.
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
    """Pads tensors at the end of the time axis to the longest. Returns tensors of one shape.

    The time axis is the only axis in which the shapes differ. Raises `ValueError`, with the name of the column, if
    `fill` is None or the shapes differ in anything but their length in time.
    """
    shapes = {tuple(value.shape) for value in values}
    same_rank = len({len(shape) for shape in shapes}) == 1
    differing = [axis for axis, sizes in enumerate(zip(*shapes, strict=False)) if len(set(sizes)) > 1]
    if fill is None or not same_rank or len(differing) != 1 or differing[0] not in TIME_AXES:
        raise ValueError(
            f"{name} differs in shape within a batch: {', '.join(map(str, sorted(shapes)[:4]))}. Give all samples one "
            "shape; only columns with a padding value may differ, and only in their length in time."
        )
    (axis,) = differing
    longest, after = max(shape[axis] for shape in shapes), [0, 0] * (values[0].ndim - 1 - axis)
    return [F.pad(value, (*after, 0, longest - value.shape[axis]), value=fill) for value in values]
