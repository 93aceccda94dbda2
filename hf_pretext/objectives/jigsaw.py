"""Jigsaw puzzles: cut the image into tiles, shuffle them, and predict by which permutation.

Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016,
https://huggingface.co/papers/1603.09246

    pixel_values (B, C, S, S) -> tiles (B, n * n, C, t, t), shuffled -> encoder, each tile separately -> (B, n * n * d)
    -> head -> logits of P permutations (B, P) -> cross-entropy
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import factorial

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..features import width
from ..modeling import PretextModel, PretextOutput
from ..modules.cues import ABERRATION, BORDER, MEAN_COLORS, SMALL_THUMBNAIL, Cue, Question, mean_color
from ..modules.draws import drawn_by
from ..modules.tiles import LIMITS, TileTask, cut_tiles, encode_tiles, standardized, tile_side
from ..presets import Preset, images

PRESET = Preset(
    encoder=images.tile_resnet,
    large=images.resnet50,
    tiny=images.tiny_resnet,
    dataset="emoji",
    samples=34_000,
    settings=images.TILES,
    for_large=images.LARGE,
    smoke={"num_permutations": 8},
)

GAP = 7  # part of a cell's side that is the default gap: the paper cuts tiles of 64 pixels from cells of 75
DRAWN = 100_000  # permutations of 9 and more tiles, from which the set is chosen: 87,486 different ones of 9
MOST = 50_000  # permutations of a set
SEED = 0  # of the set of permutations


@strict
@dataclass
class JigsawTask(TileTask):
    """Settings of jigsaw puzzles.

    grid: number of tiles in a row and in a column of the image.
    num_permutations: number of permutations to distinguish.
    channel_shift: largest number of pixels by which a colour channel of a tile is moved, so that chromatic aberration
        does not reveal the tile's place in the image.
    gray_share: share of the images that are converted to grayscale, 0 to 1.
    standardize: whether each tile gets mean 0 and standard deviation 1.
    tile_dim: width of the head's layer for each tile. head_dim: width of its layer for all tiles.
    """

    grid: int = 3
    num_permutations: int = 64
    channel_shift: int = 0
    gray_share: float = 0.3
    standardize: bool = True
    tile_dim: int = 64
    head_dim: int = 256

    def validate_permutations(self):
        if self.grid < 2:
            raise ValueError(f"grid must be at least 2 tiles, but is {self.grid}.")
        most = min(factorial(self.grid**2), MOST)
        if not 2 <= self.num_permutations <= most:
            raise ValueError(
                f"num_permutations must be between 2 and {most:,} for {self.grid**2} tiles, but is "
                f"{self.num_permutations}."
            )

    def validate_numbers(self):
        if not 0 <= self.gray_share <= 1:
            raise ValueError(f"gray_share must be between 0 and 1, but is {self.gray_share}.")
        for name, least in (("channel_shift", 0), ("tile_dim", 1), ("head_dim", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but is {getattr(self, name)}.")


class JigsawForPreTraining(PretextModel):
    """An image encoder that learns by predicting how the tiles of an image were shuffled.

    forward: pixel_values (`(B, C, S, S)`).

    Returns features (`(B * n * n, D)`, tile by tile in their shuffled order, with n = `grid`), logits (`(B, P)`, with P
    = `num_permutations`) and labels (`(B,)`). Logs: accuracy.

    Example:
        >>> model = JigsawForPreTraining.from_encoder(ResNetConfig(), grid=2, num_permutations=24)
        >>> model(pixel_values=torch.rand(2, 3, 64, 64)).logits.shape
        torch.Size([2, 24])
    """

    objective = "jigsaw"
    task_class = JigsawTask
    inputs = ("image",)
    pipeline_tag = "image-feature-extraction"
    capabilities = ("illustrate", "ask")
    cues = (MEAN_COLORS, SMALL_THUMBNAIL, BORDER)
    artefacts = (ABERRATION,)
    controls = (Cue("mean colours of all tiles", lambda images: mean_color(images).mean(1)),)  # in any order
    formula = r"-\log p_\theta\left(k \mid t_{\sigma_k(1)}, \dots, t_{\sigma_k(n^2)}\right)"
    limits = LIMITS

    def __init__(self, full_model: PreTrainedModel, task: JigsawTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        task, tiles = self.task, self.task.grid**2
        self.pretext_head = nn.ModuleDict(
            {
                "tile": nn.Sequential(nn.Linear(width(self.encoder), task.tile_dim), nn.ReLU()),
                "permutation": nn.Sequential(
                    nn.Linear(tiles * task.tile_dim, task.head_dim),
                    nn.ReLU(),
                    nn.Linear(task.head_dim, task.num_permutations),
                ),
            }
        )
        # saved in the checkpoint: a label means the same permutation forever
        self.pretext_head.register_buffer("permutations", torch.tensor(distant(tiles, task.num_permutations)))
        self.post_init()

    def forward(self, pixel_values: Tensor) -> PretextOutput:
        question = self.ask(pixel_values)
        features, logits = self.read(**question.inputs)  # (B * n * n, D), (B, P)
        labels = question.labels
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return self.output({"jigsaw": loss}, {"accuracy": accuracy}, features=features, logits=logits, labels=labels)

    def read(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features `(B * n * n, D)` and logits `(B, P)` of shuffled tiles `(B, n * n, C, t, t)`."""
        features = encode_tiles(self.encoder, pixel_values.flatten(0, 1), self.task.tile_size)
        each = self.pretext_head["tile"](features).view(len(pixel_values), -1)
        return features, self.pretext_head["permutation"](each)

    def shuffled(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts images `(B, C, S, S)` into tiles and shuffles them.

        Returns the tiles `(B, n * n, C, t, t)`, and the index of each image's permutation `(B,)`: tile i of the result
        is tile `permutations[index, i]` of the image."""
        task, generator = self.task, self.generator()
        batch, options = len(pixel_values), {"device": pixel_values.device, **drawn_by(generator)}
        if task.gray_share:
            gray = torch.rand(batch, 1, 1, 1, **options) < task.gray_share
            pixel_values = torch.where(gray, pixel_values.mean(1, keepdim=True), pixel_values)
        side = tile_side(self.encoder, pixel_values, task.grid, task, GAP)
        tiles = cut_tiles(pixel_values, task.grid, side, task.channel_shift, generator)
        labels = torch.randint(task.num_permutations, (batch,), **options)
        return reordered(tiles, self.pretext_head.permutations[labels]), labels

    # capabilities

    def ask(self, pixel_values: Tensor) -> Question:
        """Asks by which permutation the tiles of each image were shuffled, `(B,)`."""
        tiles, labels = self.shuffled(pixel_values)
        tiles = standardized(tiles) if self.task.standardize else tiles
        return Question({"pixel_values": tiles}, labels, self.task.num_permutations)

    def answer(self, pixel_values: Tensor) -> Tensor:
        """Returns the logits of the permutations, `(B, P)`, of tiles `(B, n * n, C, t, t)`."""
        return self.read(pixel_values)[1]

    def illustrate(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Returns images `(B, C, S, S)`, their shuffled tiles, and the tiles in the predicted order. In `eval()`, where
        all draws repeat."""
        tiles, _ = self.shuffled(pixel_values)
        predicted = self.pretext_head.permutations[self(pixel_values=pixel_values).logits.argmax(-1)]
        restored = reordered(tiles, predicted.argsort(1))
        return {"image": pixel_values, "shuffled": mosaic(tiles), "predicted order": mosaic(restored)}


def reordered(tiles: Tensor, order: Tensor) -> Tensor:
    """Returns tiles `(B, N, ...)` in another order `(B, N)`: tile i of the result is tile `order[:, i]`."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order]


def mosaic(tiles: Tensor, between: int = 1) -> Tensor:
    """Puts tiles together, `(B, n * n, C, t, t)` to `(B, C, s, s)`, with `between` white pixels between them."""
    batch, cells, channels, side, _ = tiles.shape
    grid = round(cells**0.5)
    tiles = F.pad(tiles, (0, between, 0, between), value=float(tiles.max()))
    grid_of_tiles = tiles.view(batch, grid, grid, channels, side + between, side + between)
    return grid_of_tiles.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, *2 * (grid * (side + between),))


@lru_cache(maxsize=8)
def distant(tiles: int, count: int) -> np.ndarray:
    """Chooses permutations that differ in many places: each is as far as possible, in Hamming distance, from the
    nearest one chosen before, and among equally far ones from all of them on average.

    Returns `(count, tiles)`, int64; the same permutations for the same arguments.
    """
    orders = candidates_of(tiles)
    columns = np.ascontiguousarray(orders.T)
    chosen = [int(np.random.default_rng(SEED).integers(len(orders)))]
    nearest, total = np.full(len(orders), tiles, np.int64), np.zeros(len(orders), np.int64)
    while len(chosen) < count:
        distance = (columns != columns[:, chosen[-1], None]).sum(0, dtype=np.int8)
        nearest, total = np.minimum(nearest, distance), total + distance
        chosen.append(int((nearest * tiles * count + total).argmax()))
    return orders[chosen].astype(np.int64)


def candidates_of(tiles: int) -> np.ndarray:
    """Returns the different permutations from which a set is chosen, `(n, tiles)`, int8, sorted: all of up to 8 tiles,
    else the different ones of `DRAWN` random draws."""
    if factorial(tiles) <= DRAWN:
        return np.array(list(permutations(range(tiles))), dtype=np.int8)
    drawn = np.tile(np.arange(tiles, dtype=np.int8), (DRAWN, 1))
    return np.unique(np.random.default_rng(SEED).permuted(drawn, axis=1), axis=0)
