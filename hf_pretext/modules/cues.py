"""Cues: what is so simple in an input that it may reveal the answer of a pretext task without any understanding.

what the encoder sees (N, ..., 3, H, W) in [0, 1] -> numbers that a small reader gets (N, d)

An objective lists its cues, and asks its question (`Question`). The audit reads the answers from each cue alone, and
gives the model inputs in which a cue is that of another example.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FILE = "file"  # kind of cues in files
STRIP = 16  # the border and the corners are 1/16 of the side, at least one pixel
CELLS = 16  # of each side of the border
LEVELS = 4  # of each channel of a colour histogram
CONTRAST = 0.1  # from which a pixel differs from the background
CENTRE = 4  # number of (0, 0) among the nine moves by up to one pixel
LEAST_VARIANCE = 1e-4
LAPLACIAN = ((0.0, -1.0, 0.0), (-1.0, 4.0, -1.0), (0.0, -1.0, 0.0))


class Question(NamedTuple):
    """What an objective asks of a batch.

    inputs: what the model sees, with pixel_values `(N, ..., 3, H, W)`, or input_ids `(N, L)` of texts. labels: the
    right answers, `(N,)`; of texts `(N, L)` and of the cells of a grid over images `(N, g, g)`, `masking.IGNORED` for
    tokens and cells that are not asked; or values, float, `(N, M, d)` of hidden patches. classes: number of possible
    answers; 0 for values. kind: of the data that the model sees, for models of several kinds; inputs then are those of
    its encoder, and are not changed by the task. unmasked: of texts in which tokens are masked, the ids before, and the
    labels if all tokens that may be masked were, `(N, L)` each."""

    inputs: dict[str, Tensor]
    labels: Tensor
    classes: int
    kind: str | None = None
    unmasked: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Cue:
    """A cue in images.

    name: in tables. read: images in [0, 1], `(N, ..., 3, H, W)` -> `(N, d)`. exchanged: (images, images of other
    examples) -> the former with the cue of the latter; None for a cue that can't be exchanged. kind: of the data in
    which the cue is. In place of images, "text" reads token ids `(N, L)`, -1 where there is no token; "audio" waves
    `(N, T)`; "video" frames in [0, 1], `(N, F, 3, H, W)`; `FILE` the bytes of N files of images."""

    name: str
    read: Callable[[Tensor], Tensor]
    exchanged: Callable[[Tensor, Tensor], Tensor] | None = None
    kind: str = "image"


def flat(read: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns `read`, of images `(M, 3, H, W)` -> `(M, ...)`, for inputs of several images each: `(N, ..., 3, H, W)` ->
    `(N, d)`."""

    def of_each(images: Tensor) -> Tensor:
        return read(images.reshape(-1, *images.shape[-3:])).reshape(len(images), -1)

    return of_each


def low(images: Tensor, side: int) -> Tensor:
    """Returns images `(..., 3, H, W)` without what a thumbnail of `side` x `side` pixels does not show."""
    size, shape = images.shape[-2:], images.shape
    return F.interpolate(pooled(images.reshape(-1, *shape[-3:]), side), size=size, mode="nearest").view(shape)


def pooled(images: Tensor, side: int) -> Tensor:
    """Returns thumbnails `(M, C, side, side)` of images `(M, C, H, W)`, by the mean of the pixels."""
    return F.adaptive_avg_pool2d(images, min(side, images.shape[-1]))


def thumbnail(side: int) -> Cue:
    """Returns the cue of a thumbnail of `side` x `side` pixels, in colour."""
    return Cue(
        f"thumbnail {side}x{side}",
        flat(lambda images: pooled(images, side)),
        lambda images, others: images - low(images, side) + low(others, side),
    )


def histogram(images: Tensor) -> Tensor:
    """Returns the shares of colours of images `(M, 3, H, W)`, in `LEVELS` levels of each channel, `(M, LEVELS**3)`."""
    levels = (images.clamp(0, 1) * LEVELS).long().clamp(max=LEVELS - 1)
    colours = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    counts = torch.zeros(len(images), LEVELS**3, device=images.device)
    ones = torch.ones_like(colours.flatten(1), dtype=counts.dtype)
    return counts.scatter_add_(1, colours.flatten(1), ones) / ones.shape[1]


def with_values_of(images: Tensor, others: Tensor) -> Tensor:
    """Returns images `(..., H, W)` with the values of others in each channel: the darkest pixel gets their darkest
    value, and so on."""
    order = images.flatten(-2).argsort(dim=-1, stable=True)
    values = others.flatten(-2).sort(-1).values
    return torch.empty_like(values).scatter_(-1, order, values).view(images.shape)


def foreground(images: Tensor) -> Tensor:
    """Returns which pixels of images `(M, 3, H, W)` differ from the mean colour of their border, `(M, 1, H, W)`, 0 or
    1."""
    strip = border_mask(images)
    background = (images * strip).sum((2, 3), keepdim=True) / strip.sum()
    return ((images - background).abs() > CONTRAST).any(1, keepdim=True).float()


def silhouette(images: Tensor) -> Tensor:
    """Returns the foreground of images `(M, 3, H, W)`, as 8x8 shares."""
    return pooled(foreground(images), 8)


def edges(images: Tensor) -> Tensor:
    """Returns the strength of edges of images `(M, 3, H, W)`, as 8x8 means of the absolute Laplacian of their grey."""
    kernel = torch.tensor(LAPLACIAN, device=images.device)[None, None]
    gray = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return pooled(F.conv2d(gray, kernel).abs(), 8)


def strip_of(images: Tensor) -> int:
    """Returns the width of the border of images `(..., H, W)` in pixels."""
    return max(1, images.shape[-1] // STRIP)


def border_mask(images: Tensor) -> Tensor:
    """Returns which pixels of images `(..., H, W)` are on the border, `(H, W)`."""
    mask, wide = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device), strip_of(images)
    for rows in (mask, mask.T):
        rows[:wide], rows[-wide:] = True, True
    return mask


def corner_mask(images: Tensor) -> Tensor:
    """Returns which pixels of images `(..., H, W)` are in the corners, `(H, W)`."""
    mask, wide = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device), strip_of(images)
    for rows in ends(wide):
        mask[rows, :wide], mask[rows, -wide:] = True, True
    return mask


def border(images: Tensor) -> Tensor:
    """Returns the mean colours of `CELLS` parts of each side of the border of images `(M, 3, H, W)`, `(M, 4, 3,
    CELLS)`."""
    wide, turned = strip_of(images), images.mT
    sides = (images[..., :wide, :], images[..., -wide:, :], turned[..., :wide, :], turned[..., -wide:, :])
    return torch.stack([F.adaptive_avg_pool1d(side.mean(-2), CELLS) for side in sides], dim=1)


def corners(images: Tensor) -> Tensor:
    """Returns the mean colours of the corners of images `(M, 3, H, W)`, `(M, 4, 3)`."""
    wide = strip_of(images)
    parts = [images[..., rows, columns] for rows in ends(wide) for columns in ends(wide)]
    return torch.stack([each.mean((-2, -1)) for each in parts], dim=1)


def ends(wide: int) -> tuple[slice, slice]:
    """Returns the first and the last `wide` places."""
    return slice(None, wide), slice(-wide, None)


def part(name: str, read: Callable[[Tensor], Tensor], mask_of: Callable[[Tensor], Tensor]) -> Cue:
    """Returns the cue of a part of the pixels. read: see `flat`. mask_of: images `(..., H, W)` -> `(H, W)`, bool."""
    return Cue(
        name,
        flat(read),
        lambda images, others: torch.where(mask_of(images), others, images),
    )


def mean_color(images: Tensor) -> Tensor:
    """Returns the mean colours of images `(..., 3, H, W)`, `(..., 3)`."""
    return images.mean((-2, -1))


def with_mean_of(images: Tensor, others: Tensor) -> Tensor:
    """Returns images `(..., 3, H, W)` with the mean colours of others."""
    return images + (mean_color(others) - mean_color(images))[..., None, None]


def aberration(images: Tensor) -> Tensor:
    """Returns how well the red and the blue channel of images `(M, 3, H, W)` fit the green one when they are moved by
    up to one pixel, `(M, 18)`: a lens moves the colours outwards from the middle of a photo."""
    inner = images[..., 1:-1, 1:-1]
    contrast = inner.var((2, 3)).clamp(min=LEAST_VARIANCE)
    fits = []
    for down in range(3):
        for right in range(3):
            moved = images[..., down : down + inner.shape[-2], right : right + inner.shape[-1]]
            fits += [(moved[:, c] - inner[:, 1]).square().mean((1, 2)) / contrast[:, 1] for c in (0, 2)]
    fits = torch.stack(fits, dim=1).view(len(images), 9, 2)
    return (fits - fits[:, CENTRE, None]).flatten(1)


THUMBNAIL, SMALL_THUMBNAIL = thumbnail(8), thumbnail(4)
COLOR_HISTOGRAM = Cue("colour histogram", flat(histogram), with_values_of)
SILHOUETTE = Cue("silhouette 8x8", flat(silhouette))
EDGES = Cue("edges 8x8", flat(edges), lambda images, others: low(images, 8) + others - low(others, 8))
BORDER = part("border", border, border_mask)
CORNERS = part("corners", corners, corner_mask)
MEAN_COLORS = Cue("mean colours", lambda images: mean_color(images).flatten(1), with_mean_of)
ABERRATION = Cue("colour fringes", flat(aberration))
