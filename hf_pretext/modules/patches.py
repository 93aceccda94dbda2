"""Pictures as grids of patches.

pixel_values (B, C, H, W) -> patches (B, N, C * size * size), row by row; some of the N, drawn
"""

import torch
from torch import Tensor


def patchify(pixel_values: Tensor, size: int) -> Tensor:
    """Patches of `size` x `size` pixels, row by row, their pixels as a patch embedding's kernel has them (channel, row,
    column): `(B, C, H, W)` to `(B, N, C * size * size)`. Raises `ValueError` for sides that are no multiples of it."""
    batch, channels, height, width = pixel_values.shape
    if height % size or width % size:
        raise ValueError(f"Pictures of {height}x{width} pixels can't be cut into patches of {size}x{size}.")
    grid = pixel_values.reshape(batch, channels, height // size, size, width // size, size)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def random_patches(
    batch: int, patches: int, ratio: float, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """A share of each picture's patches, drawn anew for each, at least one: `(batch, patches)`, bool."""
    draw = torch.rand(batch, patches, device=device, generator=generator)
    return draw.argsort(1).argsort(1) < max(round(patches * ratio), 1)
