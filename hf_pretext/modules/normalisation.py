"""Normalisation of images: settings of objectives that need pixels in [0, 1] again.

image processor -> mean (3,), std (3,) -> settings -> saved in config.json
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar, TypeVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor

CHANNELS = 3
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation that map pixels to [-1, 1]


@strict
@dataclass
class NormalisationTask:
    """Settings of objectives that need the normalisation of images.

    image_mean, image_std: mean and standard deviation that pixels in [0, 1] are normalised with, one number per
        channel; a recipe takes them from the image processor.

    assumed: values that a model is built with if they are not set.
    """

    _argument_group_name: ClassVar[str] = "objective"
    assumed: ClassVar[Mapping[str, list[float]]] = MappingProxyType({"image_mean": [*HALF], "image_std": [*HALF]})

    image_mean: list[float] | None = None
    image_std: list[float] | None = None

    def validate_normalisation(self):
        mean, std = self.image_mean, self.image_std
        if (mean is None) != (std is None) or (
            mean and (len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0)
        ):
            raise ValueError(
                f"image_mean and image_std must be {CHANNELS} numbers each, with image_std above 0, but are {mean} and "
                f"{std}. Give both, or neither."
            )


Task = TypeVar("Task", bound=NormalisationTask)


def with_normalisation_of(task: Task, processor) -> Task:
    """Returns the settings with the image processor's mean and standard deviation, unless they are set already."""
    if task.image_mean is not None:
        return task
    mean, std = normalisation_of(processor)
    return dataclasses.replace(task, image_mean=mean, image_std=std)


def normalisation_of(processor) -> tuple[list[float], list[float]]:
    """Returns the mean and standard deviation, one number per channel, of an image processor for pixels in [0, 1].

    Returns 0 and 1 for a processor that does not normalise."""
    if not getattr(processor, "do_normalize", False):
        return [0.0] * CHANNELS, [1.0] * CHANNELS
    values = (processor.image_mean, processor.image_std)  # one per channel, or one for all
    return tuple(torch.as_tensor(value, dtype=torch.float64).expand(CHANNELS).tolist() for value in values)


def per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    """Returns one number per channel for images on a device, `(C, 1, 1)`, float32. It is made once: a copy of Python
    numbers to a GPU waits for all of its kernels. Do not change it in place."""
    return _per_channel(tuple(values), device)


@lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
