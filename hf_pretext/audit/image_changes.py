"""Changes of images whose level is known: rotation, flip, shift, crop, hue, grey, blur and JPEG.

normalised images (B, 3, H, W), level -> images (B, 3, H, W) of the same dtype, on the same device

No change draws random numbers, and none leaves a border: a shift fills in the background, or mirrors the image.
"""

import io
import math
from collections.abc import Callable

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor

from ..modules.colors import hue_rotation
from ..modules.crops import crop_and_resize
from ..modules.lab import gray_of
from ..objectives.rotation import rotate

PLAIN, TOLERANCE = 0.5, 2.0  # share of the border that has the colour of the background; its distance, of 255


def rotated(images: Tensor, degrees: int) -> Tensor:
    """Rotates square images counter-clockwise by a multiple of 90 degrees. Raises `ValueError` for other images."""
    return rotate(images)[0].unflatten(0, (4, len(images)))[degrees // 90]


def flipped(images: Tensor, flip: bool) -> Tensor:
    """Mirrors images horizontally, or not."""
    return images.flip(-1) if flip else images


def cropped(images: Tensor, share: float) -> Tensor:
    """Keeps the middle of images, `share` of each side, and enlarges it to the size of the image."""
    height, width = images.shape[-2:]
    h, w = round(share * height), round(share * width)
    return crop_and_resize(images, ((height - h) // 2, (width - w) // 2, h, w), (height, width))


def blurred(images: Tensor, share: float) -> Tensor:
    """Blurs images by a Gaussian whose standard deviation is `share` of their width. Borders are mirrored."""
    from torchvision.transforms.v2.functional import gaussian_blur

    deviation = share * images.shape[-1]
    radius = min(math.ceil(3 * deviation), *(side - 1 for side in images.shape[-2:]))
    return gaussian_blur(images, [2 * radius + 1] * 2, [deviation] * 2) if radius else images


def shifted(pixels: Tensor, share: float) -> Tensor:
    """Moves images to the right by `share` of their width, or to the left if it is negative.

    The part that comes in has the colour of the background. Images without a background (see `background`) are mirrored
    there. pixels: `(B, 3, H, W)`, 0 to 255."""
    width = pixels.shape[-1]
    step = round(share * width)
    left, right = max(step, 0), max(-step, 0)
    moved = F.pad(pixels, (left, right, 0, 0), mode="reflect")[..., right : right + width]
    column = torch.arange(width, device=pixels.device)
    color, has_background = background(pixels)
    new = ((column < left) | (column >= width - right)) & has_background[:, None, None, None]
    return torch.where(new, color[..., None, None], moved)


def background(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the median colour of the border of images, `(B, 3)`, and whether it is a background, bool `(B,)`: whether
    at least half of the border has this colour. pixels: `(B, 3, H, W)`, 0 to 255."""
    border = torch.cat([pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]], dim=-1)
    color = border.median(-1).values
    near = ((border - color[..., None]).abs() <= TOLERANCE).all(1)
    return color, near.float().mean(1) >= PLAIN


def hue_rotated(pixels: Tensor, degrees: float) -> Tensor:
    """Rotates colours about the grey axis. Multiples of 120 degrees permute the channels, so that no colour is clipped.

    pixels: `(B, 3, H, W)`, 0 to 255."""
    matrix = hue_rotation(torch.tensor([math.radians(degrees)], device=pixels.device))[0].to(pixels.dtype)
    return torch.einsum("dc,bchw->bdhw", matrix, pixels).clamp(0, 255)


def grayed(pixels: Tensor, gray: bool) -> Tensor:
    """Replaces colours by the grey of the same lightness, or not. pixels: `(B, 3, H, W)`, 0 to 255."""
    return (255 * gray_of(pixels.clamp(0, 255) / 255)).expand_as(pixels) if gray else pixels


def compressed(pixels: Tensor, quality: int | None) -> Tensor:
    """Encodes images as JPEG and decodes them, by Pillow. quality: of Pillow, 1 to 95; None leaves images unchanged.

    pixels: `(B, 3, H, W)`, 0 to 255."""
    if quality is None:
        return pixels
    bytes_ = pixels.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
    decoded = torch.from_numpy(np.stack([by_jpeg(image, quality) for image in bytes_]))
    return decoded.movedim(-1, 1).to(pixels)


def by_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encodes and decodes one image, uint8 `(H, W, 3)`."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "jpeg", quality=quality)
    return np.array(PIL.Image.open(file))


def of_pixels(change: Callable, mean: Tensor, std: Tensor) -> Callable:
    """Returns a change of normalised images from one of pixels from 0 to 255. mean, std (`(3,)`): the normalisation of
    pixels from 0 to 255."""

    def changed(images: Tensor, level) -> Tensor:
        shift, scale = (values.to(images)[:, None, None] for values in (mean, std))
        return (change(images * scale + shift, level) - shift) / scale

    return changed
