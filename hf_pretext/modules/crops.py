"""Random crops of images: where they lie, and how they come to their size.

image (3, H, W) uint8, four draws -> box (top, left, height, width) -> (3, S, S) uint8
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

RATIO = (3 / 4, 4 / 3)  # of a random crop's sides, as everywhere
CROP_DRAWS = 4


def random_box(size: Sequence[int], smallest: float, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of a random part of an image, at least `smallest` of its area.

    size: height and width in pixels. draws: `CROP_DRAWS` numbers, uniform in [0, 1), for its area, the ratio of its
    sides, its top and its left.
    """
    height, width = size
    area = height * width * (smallest + (1 - smallest) * draws[0])
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** draws[1] if smallest < 1 else width / height
    w = min(max(round(math.sqrt(area * ratio)), 1), width)
    h = min(max(round(math.sqrt(area / ratio)), 1), height)
    return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w


def scaled_box(box: Sequence[int], size: Sequence[int], new: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns the same part of an image that has the height and width `new` instead of `size`."""
    top, bottom = (round(at * new[0] / size[0]) for at in (box[0], box[0] + box[2]))
    left, right = (round(at * new[1] / size[1]) for at in (box[1], box[1] + box[3]))
    return top, left, max(bottom - top, 1), max(right - left, 1)


def crop_and_resize(image: Tensor, box: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Returns a part of an image (uint8 `(3, H, W)`) at another size, as uint8 `(3, *size)`."""
    top, left, h, w = box
    return resize(image[:, top : top + h, left : left + w], size)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns an image (uint8 `(3, H, W)`) at another size, as uint8 `(3, *size)`."""
    if image.shape[1:] == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
