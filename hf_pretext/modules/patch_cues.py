"""Cues of hidden patches: what may reveal their pixels without any understanding of the image.

images (N, 3, H, W) in [0, 1], which pixels are known (N, 1, H, W) -> images whose unknown pixels are filled in

An objective that asks for the pixels of hidden patches lists its cues, and asks its question (`cues.Question`). The
audit takes what is filled in for the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SWEEPS = 16  # at each size of the image, from the smallest one


@dataclass(frozen=True)
class PatchCue:
    """A cue of hidden patches.

    name: in tables. fill: images in [0, 1], `(N, 3, H, W)`, which of their pixels are known, `(N, 1, H, W)`, bool, and
    the number of rows and columns of patches -> images, in which unknown pixels are filled in by the cue; values of
    unknown pixels are not used. exchanged: (images, known, images of other examples, which of their pixels are known)
    -> the former with the cue of the latter; None for a cue that can't be exchanged."""

    name: str
    fill: Callable[[Tensor, Tensor, int], Tensor]
    exchanged: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None


def mean_of_known(images: Tensor, known: Tensor) -> Tensor:
    """Returns the mean colour of the known pixels of images, `(N, 3, 1, 1)`."""
    return (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)


def filled_by_mean(images: Tensor, known: Tensor, side: int = 1) -> Tensor:
    """Fills images with the mean colour of their known pixels."""
    return torch.where(known, images, mean_of_known(images, known))


def with_known_mean_of(images: Tensor, known: Tensor, others: Tensor, known_of_others: Tensor) -> Tensor:
    """Returns images with the mean colour of the known pixels of others."""
    return images + mean_of_known(others, known_of_others) - mean_of_known(images, known)


def filled_by_near(images: Tensor, known: Tensor, side: int) -> Tensor:
    """Fills each patch with the mean colour of the known ones among its eight neighbours, or else of those that are
    filled already, from near to far."""
    size, given = images.shape[-2:], F.adaptive_avg_pool2d(known.to(images.dtype), side) == 1
    colours = F.adaptive_avg_pool2d(images, side)
    for _ in range(side):
        share, total = (
            F.avg_pool2d(each, 3, stride=1, padding=1) for each in (given.to(images.dtype), colours * given)
        )
        colours = torch.where(given, colours, total / share.clamp(min=1 / 9))
        given = share > 0
    return torch.where(known, images, F.interpolate(colours, size, mode="nearest"))


def filled_by_mirror(images: Tensor, known: Tensor, side: int = 1) -> Tensor:
    """Fills images with their pixels on the other side, right for left; with their mean colour where these are not
    known either."""
    return torch.where(known, images, filled_by_mean(images, known).flip(-1))


def filled_smoothly(images: Tensor, known: Tensor, side: int = 1) -> Tensor:
    """Fills images so that each filled pixel is about the mean of its four neighbours (harmonic interpolation), from
    coarse to fine: images of half the size are filled first, enlarged, and smoothed by `SWEEPS` steps."""
    height, width = images.shape[-2:]
    if min(height, width) < 2 or height % 2 or width % 2:
        result = filled_by_mean(images, known)
    else:
        share = F.avg_pool2d(known.to(images.dtype), 2)
        coarse = F.avg_pool2d(images * known, 2) / share.clamp(min=1 / 4)
        start = F.interpolate(filled_smoothly(coarse, share > 0), (height, width), mode="bilinear")
        result = torch.where(known, images, start)
    for _ in range(SWEEPS):
        result = torch.where(known, images, mean_of_neighbours(result))
    return result


def mean_of_neighbours(images: Tensor) -> Tensor:
    """Returns the mean of the four neighbours of each pixel; beyond an edge is the pixel at the edge."""
    wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return (wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1] + wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2]) / 4


VISIBLE_MEAN = PatchCue("mean of visible pixels", filled_by_mean, with_known_mean_of)
NEAR_MEAN = PatchCue("mean of near patches", filled_by_near)
MIRROR = PatchCue("mirrored image", filled_by_mirror)
SMOOTH = PatchCue("smooth fill", filled_smoothly)
