"""Cuts images into patches, and draws random patches.

pixel_values (B, C, H, W) -> patches (B, N, C * size * size), row by row
"""

import torch
from torch import Tensor

from .draws import drawn_by


def patchify(pixel_values: Tensor, size: int) -> Tensor:
    """Cuts images into patches of `size` x `size` pixels, row by row: `(B, C, H, W)` to `(B, N, C * size * size)`.

    The values of a patch are in the order of a patch embedding's kernel: channel, row, column. Raises `ValueError` for
    sides that are not multiples of `size`."""
    batch, channels, height, width = pixel_values.shape
    if height % size or width % size:
        raise ValueError(
            f"Images of {height}x{width} pixels can't be cut into patches of {size}x{size}. Give images whose sides "
            "are multiples of the patch size."
        )
    grid = pixel_values.reshape(batch, channels, height // size, size, width // size, size)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def random_patches(
    batch: int, patches: int, ratio: float, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draws a share `ratio` of the patches of each image, at least one: `(batch, patches)`, bool."""
    draw = torch.rand(batch, patches, device=device, **drawn_by(generator))
    return draw.argsort(1).argsort(1) < max(round(patches * ratio), 1)
