"""Properties of images: what features may keep although no label asks for it.

pixels (n, 3, H, W) of train, validation, test -> {"mean_color", "object_size", "object_place"}: classes (n,)

Limits between classes are medians or quartiles of train, so that classes are about equally frequent there.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..modules.cues import foreground

IMAGE_PROPERTIES = ("mean_color", "object_size", "object_place")
AT_ONCE = 1024  # images


class Property(NamedTuple):
    """What a reader may read from features. classes: number of classes. labels: `(n,)` of each split, int64."""

    classes: int
    labels: dict[str, np.ndarray]


def of_images(pixels: Mapping[str, Tensor]) -> dict[str, Property]:
    """Returns the properties of images by name: `mean_color`, the mean red, green and blue, each below or above the
    median; `object_size`, the share of pixels in the foreground, in quartiles; `object_place`, the centre of the
    foreground, left or right, above or below the median. The foreground is what differs from the mean colour of the
    border.

    pixels: uint8 `(n, 3, H, W)` of train, validation and test."""
    numbers = {split: numbers_of(images) for split, images in pixels.items()}
    train = numbers["train"]

    def halves(columns: slice) -> dict[str, np.ndarray]:
        middle = np.median(train[:, columns], axis=0)
        powers = 2 ** np.arange(train[:, columns].shape[1])
        return {split: (values[:, columns] > middle) @ powers for split, values in numbers.items()}

    quartiles = np.quantile(train[:, 3], (0.25, 0.5, 0.75))
    scale = {split: np.searchsorted(quartiles, values[:, 3]) for split, values in numbers.items()}
    measured = (Property(8, halves(slice(0, 3))), Property(4, scale), Property(4, halves(slice(4, 6))))
    return dict(zip(IMAGE_PROPERTIES, measured, strict=True))


def numbers_of(images: Tensor) -> np.ndarray:
    """Returns for images, uint8 `(n, 3, H, W)`, the mean of each channel, the share of the foreground, and its centre,
    from -1 to 1, right and down; 0 without a foreground: `(n, 6)`."""
    return torch.cat([_numbers(some.float() / 255) for some in images.split(AT_ONCE)]).double().numpy()


def _numbers(images: Tensor) -> Tensor:
    mask = foreground(images)[:, 0]
    total = mask.sum((1, 2))
    down, right = (torch.linspace(-1, 1, size) for size in mask.shape[1:])
    centres = [(mask.sum(axis) * place).sum(1) / total.clamp(min=1) for axis, place in ((1, right), (2, down))]
    return torch.stack([*images.mean((2, 3)).unbind(1), mask.mean((1, 2)), *centres], dim=1)
