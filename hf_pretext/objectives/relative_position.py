"""Relative position: of two tiles of an image, predict where the second lies from the first.

Doersch, Gupta and Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
https://huggingface.co/papers/1505.05192

    pixel_values (B, C, S, S) -> tiles (B, 9, C, t, t) -> encoder -> pairs of centre and neighbour (8B, 2D) -> head
    -> logits of 8 places (8B, 8) -> cross-entropy
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..features import width
from ..modeling import PretextModel, PretextOutput
from ..modules.cues import ABERRATION, BORDER, MEAN_COLORS, SMALL_THUMBNAIL, Cue, Question
from ..modules.draws import drawn_by
from ..modules.tiles import LIMITS, TileTask, cut_tiles, encode_tiles, standardized, tile_side
from ..presets import Preset, images

PRESET = Preset(
    encoder=images.tile_resnet,
    large=images.resnet50,
    tiny=images.tiny_resnet,
    dataset="emoji",
    samples=34_000,
    settings={**images.TILES, "color": "project", "standardize": True},
    for_large=images.LARGE,
)

GRID, CENTRE = 3, 4
GAP = 3  # part of a cell's side that is the default gap: in the paper, tiles of 96 pixels are 48 apart
APART = 41 / 96  # least distance of neighbours, as a share of a tile's side: the paper's 48 pixels less a jitter of 7
GREEN_MAGENTA = (-1.0, 2.0, -1.0)  # chromatic aberration moves green towards or away from red and blue
NOISE = 0.01  # standard deviation in dropped channels, as a share of that of the kept channel
COARSEST = 10  # side of the coarsest tile in pixels: the paper has 100 pixels in all


@strict
@dataclass
class RelativePositionTask(TileTask):
    """Settings of relative position.

    color: what is done against chromatic aberration, which reveals a tile's place in the image. "drop": two of three
        channels become noise; "project": the difference of green and magenta is removed; "keep": nothing.
    pixelated_share: share of the tiles whose resolution is reduced at random, down to 10 x 10 pixels, 0 to 1.
    standardize: whether each tile gets mean 0 and standard deviation 1.
    head_dim: width of the hidden layer of the head.
    """

    color: Literal["drop", "project", "keep"] = "drop"
    pixelated_share: float = 0.0
    standardize: bool = False
    head_dim: int = 256

    def validate_numbers(self):
        if not 0 <= self.pixelated_share <= 1:
            raise ValueError(f"pixelated_share must be between 0 and 1, but is {self.pixelated_share}.")
        if self.head_dim < 1:
            raise ValueError(f"head_dim must be at least 1, but is {self.head_dim}.")


class RelativePositionForPreTraining(PretextModel):
    """An image encoder that learns by predicting where a tile lies next to another.

    An image is cut into 3 x 3 tiles, which are encoded once for all 8 pairs of the centre and a neighbour.

    forward: pixel_values (`(B, 3, S, S)`).

    Returns features (`(9B, D)`, image by image, tiles row by row), logits (`(8B, 8)`) and labels (`(8B,)`: 0 to 7 for
    the neighbours of the centre, row by row). Logs: accuracy.

    Example:
        >>> model = RelativePositionForPreTraining.from_encoder(ResNetConfig())
        >>> model(pixel_values=torch.rand(2, 3, 96, 96)).logits.shape
        torch.Size([16, 8])
    """

    objective = "relative_position"
    task_class = RelativePositionTask
    inputs = ("image",)
    pipeline_tag = "image-feature-extraction"
    capabilities = ("ask",)
    cues = (MEAN_COLORS, SMALL_THUMBNAIL, BORDER)
    artefacts = (ABERRATION,)
    controls = (Cue("first tile", lambda images: SMALL_THUMBNAIL.read(images[:, 0])),)
    formula = r"-\frac{1}{8}\sum_{k} \log p_\theta(k \mid t_0, t_k)"
    limits = LIMITS

    def __init__(self, full_model: PreTrainedModel, task: RelativePositionTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        hidden = self.task.head_dim
        self.pretext_head = nn.Sequential(
            nn.Linear(2 * width(self.encoder), hidden), nn.ReLU(), nn.Linear(hidden, GRID**2 - 1)
        )
        self.post_init()

    def forward(self, pixel_values: Tensor) -> PretextOutput:
        batch, task = len(pixel_values), self.task
        tiles = self.tiles(pixel_values).flatten(0, 1)  # (9B, C, t, t)
        features = encode_tiles(self.encoder, tiles, task.tile_size)  # (9B, D)
        each = features.view(batch, GRID**2, -1)
        others = torch.cat([each[:, :CENTRE], each[:, CENTRE + 1 :]], dim=1)  # (B, 8, D)
        pairs = torch.cat([each[:, CENTRE, None].expand_as(others), others], dim=2).flatten(0, 1)  # (8B, 2D)
        logits = self.pretext_head(pairs)
        labels = torch.arange(GRID**2 - 1, device=logits.device).repeat(batch)
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return self.output({"position": loss}, {"accuracy": accuracy}, features=features, logits=logits, labels=labels)

    # capabilities

    def ask(self, pixel_values: Tensor) -> Question:
        """Asks where the second tile of each pair lies from the first, `(8B,)`; the tiles are `(8B, 2, C, t, t)`."""
        tiles = self.tiles(pixel_values)
        others = torch.cat([tiles[:, :CENTRE], tiles[:, CENTRE + 1 :]], dim=1)
        pairs = torch.stack([tiles[:, CENTRE, None].expand_as(others), others], dim=2).flatten(0, 1)
        places = GRID**2 - 1
        return Question({"pixel_values": pairs}, torch.arange(places, device=pairs.device).repeat(len(tiles)), places)

    def answer(self, pixel_values: Tensor) -> Tensor:
        """Returns the logits of the places, `(N, 8)`, of pairs of tiles `(N, 2, C, t, t)`."""
        features = encode_tiles(self.encoder, pixel_values.flatten(0, 1), self.task.tile_size)
        return self.pretext_head(features.view(len(pixel_values), -1))

    def tiles(self, pixel_values: Tensor) -> Tensor:
        """Cuts images `(B, 3, S, S)` into tiles without shortcuts, `(B, 9, 3, t, t)`, row by row."""
        task, generator = self.task, self.generator()
        side = tile_side(self.encoder, pixel_values, GRID, task, GAP)
        tiles = cut_tiles(pixel_values, GRID, side, generator=generator, apart=int(APART * side))
        if task.color == "drop":
            tiles = dropped(tiles, generator)
        elif task.color == "project":
            tiles = projected(tiles)
        tiles = pixelated(tiles, task.pixelated_share, generator) if task.pixelated_share else tiles
        return standardized(tiles) if task.standardize else tiles


def dropped(tiles: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Returns tiles `(..., 3, t, t)` of which a random channel is kept. The others become noise with a hundredth of
    its standard deviation."""
    options = {"device": tiles.device, **drawn_by(generator)}
    channel = torch.arange(3, device=tiles.device)[:, None, None]
    kept = torch.randint(3, (*tiles.shape[:-3], 1, 1, 1), **options) == channel
    deviation = tiles.std((-2, -1), keepdim=True).where(kept, 0).sum(-3, keepdim=True)
    return torch.where(kept, tiles, torch.randn(tiles.shape, dtype=tiles.dtype, **options) * deviation * NOISE)


def projected(tiles: Tensor) -> Tensor:
    """Returns tiles `(..., 3, t, t)` without the difference of green and magenta: their colours are projected on the
    plane that is orthogonal to (-1, 2, -1).

    Autocast does not apply: in bfloat16, a hundredth of the difference would stay."""
    with torch.autocast(tiles.device.type, enabled=False):
        return torch.einsum("...chw,cd->...dhw", tiles, projection(tiles.device).to(tiles.dtype))


@cache
def projection(device: torch.device) -> Tensor:
    """Returns the matrix of the projection, `(3, 3)`. Made once for each device: a copy from the CPU waits for it."""
    axis = torch.tensor(GREEN_MAGENTA)
    return (torch.eye(3) - axis.outer(axis) / axis.dot(axis)).to(device)


def pixelated(tiles: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Returns tiles `(B, N, C, t, t)` of which a share has a lower resolution, drawn for each down to `COARSEST` pixels
    a side: equal squares of pixels take the value of one of them."""
    side, options = tiles.shape[-1], {"device": tiles.device, **drawn_by(generator)}
    draws = torch.rand(2, *tiles.shape[:2], 1, **options)
    least = min(COARSEST, side)
    resolution = torch.where(draws[0] < share, least + (draws[1] * (side - least + 1)).long(), side)  # (B, N, 1)
    square = torch.arange(side, device=tiles.device) * resolution // side  # (B, N, t): of each row and column
    source = (square * side + resolution - 1) // resolution  # its first row or column
    rows = source[:, :, None, :, None].expand_as(tiles)
    return tiles.gather(3, rows).gather(4, source[:, :, None, None].expand_as(tiles))
