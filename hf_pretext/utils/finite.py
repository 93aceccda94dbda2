"""Checks that weights are finite: of a model, on its device, and of files, a part of a tensor at a time."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

SHOWN = 3  # names in an error message
READ_TOGETHER = 2**24  # most numbers of a file in memory
NOT_OF_THE_MODEL = ("checkpoint-", "seed-", ".")  # starts of names of sub-folders


def largest(values: Iterable[Tensor]) -> Tensor:
    """Returns the largest absolute value of all floating-point tensors, `()`: NaN or infinite if any is.

    It stays on the device, so nothing waits for it."""
    floats = [value for value in values if value.is_floating_point() and value.numel()]
    return torch.nn.utils.get_total_norm(floats, float("inf"))


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of the tensors with values that are NaN or infinite. Waits once if all are finite."""
    if largest(state.values()).isfinite():
        return []
    return [name for name, value in state.items() if not largest([value]).isfinite()]


def not_finite_in(path: str | os.PathLike) -> list[str]:
    """Returns the names of the tensors of a safetensors file with values that are NaN or infinite.

    Raises safetensors' errors for a damaged file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = file.keys()
        return [name for name in names if not all(part.isfinite().all() for part in parts(file, name))]


def parts(file, name: str) -> Iterator[Tensor]:
    """Yields the rows of a floating-point tensor of an open safetensors file, some at a time; nothing for integers."""
    values = file.get_slice(name)
    shape = values.get_shape()
    if not values.get_dtype().startswith(("F", "BF")) or 0 in shape:
        return
    if not shape:
        yield file.get_tensor(name)
        return
    rows = max(1, READ_TOGETHER * shape[0] // torch.Size(shape).numel())
    for first in range(0, shape[0], rows):
        part = values[first : first + rows]
        yield part.float() if part.element_size() == 1 else part  # 8-bit floats have no isfinite


def check_finite_weights(folder: str | os.PathLike) -> None:
    """Raises `ValueError` if a weight of a saved model is NaN or infinite, in its folder or those of its encoders."""
    nested = sorted(Path(folder).glob("*/*.safetensors"))
    nested = [path for path in nested if not path.parent.name.startswith(NOT_OF_THE_MODEL)]
    for path in [*sorted(Path(folder).glob("*.safetensors")), *nested]:
        check_finite(path)


def check_finite(path: str | os.PathLike) -> None:
    """Raises `ValueError` if a safetensors file has values that are NaN or infinite."""
    if names := not_finite_in(path):
        raise ValueError(
            f"{path} has weights that are NaN or infinite: {listed(names)}. The training diverged. Train again with a "
            "lower --learning_rate, from the start or from a checkpoint before it."
        )


def listed(names: list[str]) -> str:
    """Joins the first names with commas, with the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
