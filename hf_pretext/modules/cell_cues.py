"""Cues of the cells of a grid over a grey image: what may reveal the colour of a cell without any understanding.

images that are shown in grey (N, 3, H, W) in [0, 1], side g of the grid -> integers of each cell (N, g, g)

An objective that asks about cells lists its cues, and asks its question (`cues.Question`). The audit reads the answers
from each cue alone, by counts, and gives the model images in which cells have the cue of those of another image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .cues import corner_mask, corners, with_mean_of

GRAYS, CORNER_GRAYS = 32, 8  # levels of grey; of the mean of a corner


@dataclass(frozen=True)
class CellCue:
    """A cue of the cells of an image.

    name: in tables. read: images in [0, 1], `(N, 3, H, W)`, and the side g of the grid -> one or two integers of each
    cell, `(N, g, g)` each. exchanged: (images, images of other examples, cells `(N, g, g)`, bool) -> the former, in
    which these cells have the cue of the latter; None for a cue that can't be exchanged."""

    name: str
    read: Callable[[Tensor, int], tuple[Tensor, ...]]
    exchanged: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


def level(values: Tensor, levels: int = GRAYS) -> Tensor:
    """Returns the number of the level of values in [0, 1]."""
    return (values * levels).long().clamp(0, levels - 1)


def gray_of_cells(images: Tensor, side: int) -> Tensor:
    """Returns the mean grey of the cells of images `(N, 3, H, W)`, `(N, side, side)`."""
    return F.adaptive_avg_pool2d(images.mean(1), side)


def spread(values: Tensor, side: int) -> Tensor:
    """Gives a value of each image, `(N,)`, to all of its cells, `(N, side, side)`."""
    return values[:, None, None].expand(-1, side, side)


def grays(images: Tensor, side: int) -> Tensor:
    """Returns the level of grey of each cell, `(N, side, side)`."""
    return level(gray_of_cells(images, side))


def places(images: Tensor, side: int) -> Tensor:
    """Returns the number of each cell in its image, row by row, `(N, side, side)`."""
    return torch.arange(side * side, device=images.device).view(1, side, side).expand(len(images), -1, -1)


def corner_grays(images: Tensor, side: int) -> Tensor:
    """Returns one number for the levels of grey of the four corners of each image, `(N, side, side)`."""
    levels = level(corners(images).mean(2), CORNER_GRAYS)  # (N, 4)
    return spread((levels * CORNER_GRAYS ** torch.arange(4, device=levels.device)).sum(1), side)


def with_grays_of(images: Tensor, others: Tensor, cells: Tensor) -> Tensor:
    """Returns images `(N, 3, H, W)` in which cells (`(N, g, g)`, bool) have the mean grey of the same cells of others.
    What a cell shows beyond its mean stays."""
    side = cells.shape[1]
    change = (gray_of_cells(others, side) - gray_of_cells(images, side)) * cells
    return images + F.interpolate(change[:, None], images.shape[-2:], mode="nearest")


GRAY = CellCue("grey of the cell", lambda images, side: (grays(images, side),), with_grays_of)
PLACE = CellCue("place in the image", lambda images, side: (places(images, side),))
GRAY_AND_PLACE = CellCue("grey and place", lambda images, side: (grays(images, side), places(images, side)))
MEAN_GRAY = CellCue(
    "mean grey of the image",
    lambda images, side: (spread(level(images.mean((1, 2, 3))), side),),
    lambda images, others, cells: with_mean_of(images, others),
)
CORNER_GRAY = CellCue(
    "grey of the corners",
    lambda images, side: (corner_grays(images, side),),
    lambda images, others, cells: torch.where(corner_mask(images), others, images),
)
