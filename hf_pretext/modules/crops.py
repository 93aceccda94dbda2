"""Random crops of images and videos: drawing their boxes, and resizing their pixels.

image (3, H, W) uint8, four draws -> box (top, left, height, width) -> (3, S, S) uint8
video (F, 3, H, W) uint8, four draws -> one box for all frames -> (F, 3, S, S) uint8
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

RATIO = (3 / 4, 4 / 3)  # width / height of a random crop, as in torchvision's RandomResizedCrop
CROP_DRAWS = 4


def random_box(size: Sequence[int], smallest: float, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of a random box in an image, in pixels.

    The area of the box is a random share of the image's area, from `smallest` to 1. Then its sides are rounded to
    pixels and clipped to the image. So in elongated images the box can have less than `smallest` of the area.

    size: height and width of the image in pixels. smallest: smallest share of the area; 1 always gives the whole image.
    draws: `CROP_DRAWS` numbers, uniform in [0, 1), for the area, the ratio of the sides, top and left.
    """
    height, width = size
    area = height * width * (smallest + (1 - smallest) * draws[0])
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** draws[1] if smallest < 1 else width / height
    w = min(max(round(math.sqrt(area * ratio)), 1), width)
    h = min(max(round(math.sqrt(area / ratio)), 1), height)
    return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w


def scaled_box(box: Sequence[int], size: Sequence[int], new: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns the box of the same part of an image after it is resized from `size` to `new` (height and width)."""
    top, bottom = (round(at * new[0] / size[0]) for at in (box[0], box[0] + box[2]))
    left, right = (round(at * new[1] / size[1]) for at in (box[1], box[1] + box[3]))
    return top, left, max(bottom - top, 1), max(right - left, 1)


def crop_and_resize(image: Tensor, box: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Crops an image or frames (uint8 `(..., 3, H, W)`) to a box (top, left, height, width) and resizes the crop: uint8
    `(..., 3, *size)`."""
    top, left, h, w = box
    return resize(image[..., top : top + h, left : left + w], size)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes an image (uint8 `(3, H, W)`) or frames (`(F, 3, H, W)`) with antialiased bilinear interpolation: uint8
    `(..., 3, *size)`."""
    if image.shape[-2:] == size:
        return image
    images = image if image.ndim == 4 else image[None]
    resized = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return resized if image.ndim == 4 else resized[0]
