"""Random colour changes of images. All of them are linear, so a batch takes one matrix product.

pixels (B, 3, H, W), draws (B, 8) -> brightness, contrast, saturation, grey, hue, swapped channels -> (B, 3, H, W)
"""

import functools
import math

import torch
from torch import Tensor

GRAY = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow and torchvision
CROSS = ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))  # cross product with (1, 1, 1)
COLOR_DRAWS = 8


def change_colors(
    pixels: Tensor,
    draws: Tensor,
    jitter: float = 0.0,
    hue: float = 0.0,
    grayscale: float = 0.0,
    channel_shuffle: float = 0.0,
) -> Tensor:
    """Changes the colours of each image by its draws.

    pixels (`(B, 3, H, W)`, 0 to 255), draws (`(B, 8)`, uniform in [0, 1)). jitter: brightness, contrast and saturation
    are multiplied by factors in [1 - jitter, 1 + jitter]. hue: maximum rotation of hues, as a share of the colour
    circle. grayscale, channel_shuffle: probabilities of removing all colour and of swapping channels.
    Returns pixels, `(B, 3, H, W)`, clamped to 0 to 255.
    """
    gray = constant(GRAY, pixels.device)
    eye = torch.eye(3, device=pixels.device)
    brightness, contrast, saturation = (1 + jitter * (2 * draws[:, :3] - 1)).T
    saturation = torch.where(draws[:, 3] < grayscale, 0.0, saturation)
    matrix = hue_rotation((2 * draws[:, 4] - 1) * hue * 2 * math.pi)  # (B, 3, 3)
    matrix = torch.lerp(gray.expand(3, 3), eye, saturation[:, None, None]) @ matrix
    shuffled = eye[draws[:, 5:8].argsort(dim=1)]  # a permutation matrix for each image
    swaps = (draws[:, 5:8].sum(1) * 997 % 1 < channel_shuffle)[:, None, None]
    matrix = torch.where(swaps, shuffled @ matrix, matrix) * brightness[:, None, None]
    level = (pixels.mean((2, 3))[:, None] @ matrix.mT)[:, 0] @ gray  # mean grey before contrast, (B,)
    offset = ((1 - contrast) * level)[:, None, None].expand(-1, 3, 1)
    changed = torch.baddbmm(offset, matrix * contrast[:, None, None], pixels.flatten(2))
    return changed.clamp_(0, 255).view_as(pixels)


def hue_rotation(angle: Tensor) -> Tensor:
    """Returns rotations of RGB space about its grey axis, `(B, 3, 3)`, by Rodrigues' formula.

    angle (`(B,)`): in radians."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    eye, ones = torch.eye(3, device=angle.device), torch.full((3, 3), 1 / 3, device=angle.device)
    cross = constant(CROSS, angle.device) / math.sqrt(3)
    return cos * eye + (1 - cos) * ones + sin * cross


@functools.cache  # a copy to the device would wait for it
def constant(numbers: tuple, device: torch.device) -> Tensor:
    """Returns numbers as a tensor on a device."""
    return torch.tensor(numbers, device=device)
