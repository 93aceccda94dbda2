"""Dense predictions: a vector for each cell of a grid over the image, from several levels of any image encoder.

hidden states of L levels -> maps (B, C, h, w) -> each to the grid (B, dim, *grid) -> sum -> (B, outputs, *grid)
"""

from math import isqrt

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..encoders import image_sides, noise, tried
from ..features import CLASS_TOKENS, last_hidden, prefix_tokens

GROUPS = 8  # of the group norm: the width of a head is a multiple of it
RESOLUTIONS = 4  # maximum number of resolutions that are read


class DenseHead(nn.Module):
    """Predicts a vector for each cell of a grid (hypercolumns: Hariharan et al. 2015).

    Each level has its own 1 x 1 convolution; their results are resized to the grid and added. So cells smaller than
    those of the encoder's last map can be predicted, for which the first levels have the detail.

    encoder: any image encoder. outputs: length of the predicted vectors. dim: width of the head, a multiple of
    `GROUPS`. layers: number of levels of an encoder of one resolution, evenly spaced. Other encoders have a level for
    the last layer of each resolution, at most `RESOLUTIONS`.
    """

    def __init__(self, encoder: PreTrainedModel, outputs: int, dim: int = 128, layers: int = 1):
        super().__init__()
        with tried(encoder):
            height, width = image_sides(encoder)[0]
            pixels = noise(encoder, 1, 3, height, width)
            maps = maps_of(encoder, encoder(pixel_values=pixels, output_hidden_states=True))
        self.levels = chosen([tuple(each.shape[1:]) for each in maps], layers)
        self.projections = nn.ModuleList([nn.Conv2d(maps[level].shape[1], dim, 1) for level in self.levels])
        self.predict = nn.Sequential(nn.GroupNorm(GROUPS, dim), nn.ReLU(), nn.Conv2d(dim, outputs, 1))

    def forward(self, encoder: PreTrainedModel, outputs, grid: tuple[int, int]) -> Tensor:
        """Returns the predictions `(B, outputs, *grid)` from the outputs of the encoder with hidden states."""
        maps = maps_of(encoder, outputs)
        projected = [layer(maps[level]) for layer, level in zip(self.projections, self.levels, strict=True)]
        return self.predict(sum(resized(each, grid) for each in projected))


def resized(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes a map `(B, C, h, w)` to `(B, C, *grid)`: bilinear to more cells, else the mean of each cell."""
    if values.shape[2:] == grid:
        return values
    if values.shape[2] > grid[0] or values.shape[3] > grid[1]:
        return F.adaptive_avg_pool2d(values, grid)
    return F.interpolate(values, size=grid, mode="bilinear")


def maps_of(encoder: PreTrainedModel, outputs) -> list[Tensor]:
    """Returns all hidden states as maps `(B, C, h, w)`; the last one is the encoder's output, after its last norm. For
    tokens see `as_map`."""
    states = getattr(outputs, "reshaped_hidden_states", None) or outputs.hidden_states
    channels_last = getattr(getattr(encoder, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
    maps = [each.permute(0, 3, 1, 2) if each.ndim == 4 and channels_last else as_map(encoder, each) for each in states]
    return [*maps[:-1], as_map(encoder, last_hidden(encoder, outputs))]


def as_map(encoder: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Returns the tokens of an encoder, `(B, T, C)`, as a square map of patches `(B, C, n, n)`, without class and
    register tokens. Maps stay as they are. Raises `ValueError` for patches of images that are not square."""
    if hidden.ndim == 4:
        return hidden
    tokens = hidden.shape[1]
    side = isqrt(tokens - prefix_tokens(encoder))
    if tokens - prefix_tokens(encoder) - side * side > CLASS_TOKENS:
        raise ValueError(
            f"{type(encoder).__name__} gives {tokens} tokens, which are no square map of patches. Give square images "
            "(--image_size)."
        )
    return hidden[:, tokens - side * side :].mT.unflatten(2, (side, side))


def chosen(shapes: list[tuple[int, ...]], layers: int) -> list[int]:
    """Chooses levels from the shapes of an encoder's maps (see `DenseHead`). Returns negative indices; -1 is the
    encoder's output, which is always among them."""
    last = len(shapes) - 1
    levels = [at for at in range(len(shapes)) if at == last or shapes[at] != shapes[at + 1]][-RESOLUTIONS:]
    if len(levels) == 1:
        layers = min(layers, last)
        levels = sorted(last - round(last * at / layers) for at in range(layers))
    return [at - len(shapes) for at in levels]
