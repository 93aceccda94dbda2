"""Cuts images into patches, and draws random patches: single ones, rectangles, or one square.

pixel_values (B, C, H, W) -> patches (B, N, C * size * size), row by row
"""

from math import isqrt, log

import torch
from torch import Tensor

from .draws import drawn_by

BLOCKS = 16  # rectangles that are drawn; usually a few of them suffice
LEAST_BLOCK = 16 / 196  # share of the patches: in BEiT, 16 of 14 x 14
ASPECT = 0.3  # least ratio of the sides of a rectangle, as in BEiT
EPSILON = 1e-6  # added to the variance of a patch, as in MAE


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


def check_square(pixel_values: Tensor) -> None:
    """Raises `ValueError` for images `(B, C, H, W)` that are not square."""
    height, width = pixel_values.shape[-2:]
    if height != width:
        raise ValueError(
            f"Square images are needed, but got {height}x{width} (height x width). Set a square crop in the image "
            "processor, or give --image_size."
        )


def unpatchify(patches: Tensor, size: int) -> Tensor:
    """Puts patches of `size` x `size` pixels of square images together, the inverse of `patchify`: `(B, N, C * size *
    size)` to `(B, C, S, S)`."""
    side = isqrt(patches.shape[1])
    grid = patches.reshape(len(patches), side, side, -1, size, size)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def selected(values: Tensor, index: Tensor) -> Tensor:
    """Returns the vectors of `values` (`(B, N, d)`) at indices `(B, M)`: `(B, M, d)`."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def blanked(pixel_values: Tensor, hidden: Tensor, size: int) -> Tensor:
    """Returns square images `(B, C, S, S)` whose hidden patches (`(B, M)`, indices) are 0."""
    patches = patchify(pixel_values, size)
    return unpatchify(patches.scatter(1, hidden[..., None].expand(-1, -1, patches.shape[2]), 0.0), size)


def normalised(patches: Tensor, softening: float = EPSILON) -> Tensor:
    """Returns patches `(..., d)` with mean 0 and variance 1 each. softening: added to the variance: patches of a much
    smaller variance stay nearly flat."""
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + softening).sqrt()


def mask_unit(mask_size: int, size: int, side: int) -> int:
    """Returns the side of the squares that are hidden, in patches. mask_size, size: of such a square and of a patch, in
    pixels. side: rows and columns of patches. Raises `ValueError` for patches that can't be divided into such
    squares."""
    if mask_size % size or side % (mask_size // size):
        raise ValueError(
            f"{side}x{side} patches of {size}x{size} pixels can't be hidden in squares of {mask_size}x{mask_size} "
            "pixels. Give a --mask_size that divides the side of the image and is a multiple of the patch size."
        )
    return mask_size // size


def random_patches(
    batch: int, patches: int, ratio: float, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draws a share `ratio` of the patches of each image, at least one: `(batch, patches)`, bool."""
    draw = torch.rand(batch, patches, device=device, **drawn_by(generator))
    return draw.argsort(1).argsort(1) < share_of(patches, ratio)


def share_of(patches: int, ratio: float) -> int:
    """Returns the number of patches in a share `ratio` of them, at least one."""
    return max(round(patches * ratio), 1)


def square_side(side: int, ratio: float) -> int:
    """Returns the side of a square that has about a share `ratio` of `side` x `side` patches, but not all of them."""
    return min(max(round(side * ratio**0.5), 1), side - 1)


def square_of_patches(
    batch: int, side: int, ratio: float, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draws the place of one square of patches with a share `ratio` of the area, as close as possible: `(batch, side *
    side)`, bool."""
    length = square_side(side, ratio)
    start = torch.randint(side - length + 1, (2, batch, 1), device=device, **drawn_by(generator))
    at = torch.arange(side, device=device)
    rows, columns = (at >= start) & (at < start + length)  # (batch, side) each
    return (rows[:, :, None] & columns[:, None]).flatten(1)


def blocks_of_patches(
    batch: int, side: int, ratio: float, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draws rectangles of patches, as in BEiT, until a share `ratio` of the patches is drawn: `(batch, side * side)`,
    bool. The number of patches is exact and the same in each row: the last rectangle lacks its last rows. If
    `BLOCKS` rectangles do not suffice, further patches are taken row by row.
    """
    patches = side * side
    count = share_of(patches, ratio)
    top, left, height, width = draw_blocks(batch, side, count, device, generator)
    at = torch.arange(side, device=device)
    rows = (at >= top[..., None]) & (at < (top + height)[..., None])  # (batch, BLOCKS, side)
    columns = (at >= left[..., None]) & (at < (left + width)[..., None])
    covered = (rows[..., None] & columns[:, :, None]).flatten(2)  # (batch, BLOCKS, patches)
    first = torch.where(covered.any(1), covered.int().argmax(1), BLOCKS)  # the first block that covers a patch
    order = first * patches + torch.arange(patches, device=device)
    return order.argsort(1).argsort(1) < count


def draw_blocks(
    batch: int, side: int, count: int, device: torch.device, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws `BLOCKS` rectangles in grids of `side` x `side` patches: an area of `LEAST_BLOCK` of the grid to `count`
    patches, a ratio of the sides from `ASPECT` to its inverse, and a place. Returns top, left, height and width,
    `(batch, BLOCKS)` each, in patches."""
    draws = torch.rand(4, batch, BLOCKS, device=device, **drawn_by(generator))
    least = min(max(round(LEAST_BLOCK * side * side), 1), count)
    area = least + draws[0] * (count - least)
    aspect = torch.exp((2 * draws[1] - 1) * -log(ASPECT))  # height / width
    height = (area * aspect).sqrt().round().clamp(1, side).long()
    width = (area / aspect).sqrt().round().clamp(1, side).long()
    top, left = ((draw * (side - length + 1)).long() for draw, length in ((draws[2], height), (draws[3], width)))
    return top, left, height, width
