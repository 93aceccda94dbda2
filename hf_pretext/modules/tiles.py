"""Tiles of images: objectives that cut an image into tiles encode each tile separately.

images (B, C, S, S) -> a tile at a random place of each cell (B, n * n, C, t, t) -> encoder -> (B * n * n, D)
"""

from dataclasses import dataclass
from inspect import signature
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import PreTrainedModel

from ..encoders import TRIED, image_sides, noise, patch_side, refusal
from ..features import last_hidden, pool
from .draws import drawn_by

LEAST_DEVIATION = 1e-2  # of the pixels of a tile; a constant tile has 0
LIMITS = (
    "Tiles are encoded separately, so the encoder does not learn what is larger than a tile.",
    "If objects are in the middle of the images, the background reveals the place of a tile, and the encoder learns "
    "less from the task than its accuracy suggests.",
)
_sides: WeakKeyDictionary[PreTrainedModel, set[int]] = WeakKeyDictionary()  # sides of tiles that an encoder takes


@strict
@dataclass
class TileTask:
    """Settings of objectives that cut images into tiles.

    gap: number of pixels by which the side of a tile is shorter than the side of its cell, so that edges and colours
        seldom continue from one tile into the next; default: as a share of the cell, about as in the paper. Tiles of
        neighbouring cells are up to two gaps apart, and in jigsaw puzzles they may touch. In relative position they are
        at least about two fifths of a tile apart, or one gap if it is smaller.
    tile_size: side to which tiles are resized for the encoder, in pixels; default: tiles are not resized.
    """

    _argument_group_name: ClassVar[str] = "objective"

    gap: int | None = None
    tile_size: int | None = None

    def validate_tiles(self):
        if self.gap is not None and self.gap < 0:
            raise ValueError(f"gap must be 0 or more pixels, but is {self.gap}.")
        if self.tile_size is not None and self.tile_size < 1:
            raise ValueError(f"tile_size must be at least 1 pixel, but is {self.tile_size}.")


def tile_side(encoder: PreTrainedModel, pixel_values: Tensor, grid: int, task: TileTask, share: int) -> int:
    """Returns the side of the tiles of images `(B, C, S, S)` in pixels.

    Without `task.gap`, the gap is 1 / `share` of a cell, or more: the side of tiles that are not resized is a multiple
    of the encoder's patch size. Raises `ValueError` for images that are not square, and for a gap that leaves no
    tile."""
    height, width = pixel_values.shape[-2:]
    if height != width:
        raise ValueError(
            f"Tiles need square images, but got {height}x{width} (height x width). Set a square crop in the image "
            "processor, or give --image_size."
        )
    cell, patch = width // grid, patch_side(encoder) or 1
    gap = round(cell / share) if task.gap is None else task.gap
    side = cell - gap
    if task.gap is None and task.tile_size is None and side >= patch:
        side -= side % patch
    if side < 1:
        raise ValueError(
            f"Cells of {cell}x{cell} pixels have no room for a tile with a gap of {gap} pixels. Give a smaller --gap "
            "or a larger --image_size."
        )
    return side


def cut_tiles(
    pixel_values: Tensor,
    grid: int,
    side: int,
    channel_shift: int = 0,
    generator: torch.Generator | None = None,
    apart: int = 0,
) -> Tensor:
    """Cuts one tile of `side` x `side` pixels at a random place of each of `grid` x `grid` cells.

    pixel_values: `(B, C, S, S)`. channel_shift: each channel of a tile is moved by up to this number of pixels, as by
    chromatic aberration; it stays in its cell. apart: least number of pixels between tiles of neighbouring cells, which
    limits the places to the middle of the cell; as many as there is room for. Returns `(B, grid * grid, C, side,
    side)`, row by row.
    """
    batch, channels, size, _ = pixel_values.shape
    cell, cells, options = size // grid, grid * grid, {"device": pixel_values.device, **drawn_by(generator)}
    edge = min(apart, cell - side)
    room = cell - side - edge
    place = torch.randint(room + 1, (2, batch, cells, 1), **options)
    if channel_shift:
        shift = torch.randint(-channel_shift, channel_shift + 1, (2, batch, cells, channels), **options)
        place = (place + shift).clamp(0, room)
    number = torch.arange(cells, device=pixel_values.device)
    corner = torch.stack([number // grid, number % grid]) * cell + edge // 2  # (2, cells)
    place = (place + corner[:, None, :, None]).expand(2, batch, cells, channels)
    rows, columns = place[..., None] + torch.arange(side, device=pixel_values.device)  # (B, cells, C, side)
    image = torch.arange(batch, device=pixel_values.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(channels, device=pixel_values.device).view(-1, 1, 1)
    return pixel_values[image, channel, rows[..., :, None], columns[..., None, :]]


def standardized(tiles: Tensor) -> Tensor:
    """Returns tiles `(..., C, t, t)` with mean 0 and standard deviation 1 each, so that brightness and contrast do not
    reveal that two tiles are neighbours. Constant tiles become 0."""
    pixels = (-3, -2, -1)
    return (tiles - tiles.mean(pixels, keepdim=True)) / tiles.std(pixels, keepdim=True).clamp(min=LEAST_DEVIATION)


def encode_tiles(encoder: PreTrainedModel, tiles: Tensor, tile_size: int | None = None) -> Tensor:
    """Encodes each tile separately. Encoders of one image size interpolate their position embeddings.

    tiles: `(N, C, t, t)`. tile_size: side to which tiles are resized first. Returns pooled features `(N, D)`. Raises
    `ValueError` for an encoder that does not take images of this size.
    """
    if tile_size is not None and tile_size != tiles.shape[-1]:
        tiles = F.interpolate(tiles, size=(tile_size, tile_size), mode="bilinear", antialias=True)
    takes = signature(encoder.forward).parameters
    options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
    check_takes(encoder, tiles.shape[-1], options)
    return pool(last_hidden(encoder, encoder(pixel_values=tiles, **options)))


def check_takes(encoder: PreTrainedModel, side: int, options: dict) -> None:
    """Raises `ValueError` for an encoder that does not take images of `side` x `side` pixels, or ignores some of them.
    Each side is tried once, on noise, and never on a compiled encoder."""
    sides = _sides.setdefault(encoder, set())
    if side in sides or encoder._compiled_call_impl is not None:
        return
    patch = patch_side(encoder) or 1
    reason = f"{side} is not a multiple of its patch size {patch}" if side % patch else None
    reason = reason or refusal(encoder, [{"pixel_values": noise(encoder, TRIED, 3, side, side), **options}])
    if reason is not None:
        usual = image_sides(encoder)[0][0]
        raise ValueError(
            f"{type(encoder).__name__} does not take tiles of {side}x{side} pixels: {reason.rstrip('.')}. Give "
            f"--tile_size {usual}, to resize the tiles to its usual size, or another encoder."
        )
    sides.add(side)
