"""Scores of correspondence: do a sound and the frames of a video belong together?

sounds (B, D), frames (B, D), or places of frames (B, P, D) -> score (B,), above 0 if they belong together
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..encoders import image_sides, noise, takes_images, tried
from ..features import last_hidden
from .dense import as_map
from .wrong_pairs import balanced_cross_entropy, mean_of_classes

SLOPE, THRESHOLD = 4.0, 1.2  # of the distance, at the start; random embeddings have the distance 1.4
NEAR = 1e-8  # added to squared distances, because the root has no gradient at 0
COMPARED = 256  # clips of a batch that count for `accuracy_among`
HEAT = 0.6  # share of red where a heat map is highest


def projection(size: int, dim: int) -> nn.Sequential:
    """Returns the layers that turn features into embeddings, those of AVE-Net."""
    return nn.Sequential(nn.Linear(size, dim), nn.ReLU(), nn.Linear(dim, dim))


class Concatenation(nn.Module):
    """L3-Net's score: an MLP over the features of both. Its one logit is the difference of the paper's two."""

    loss = staticmethod(balanced_cross_entropy)

    def __init__(self, size: int, hidden: int):
        super().__init__()
        self.hidden, self.logit = nn.Linear(size, hidden), nn.Linear(hidden, 1)

    def forward(self, sounds: Tensor, frames: Tensor) -> Tensor:
        """Returns scores `(B,)` for features of sounds and of frames, `(B, ...)` each."""
        joined = torch.cat([sounds, frames], dim=1).to(self.logit.weight.dtype)
        return self.logit(self.hidden(joined).relu())[:, 0]


class Cosine(nn.Module):
    """Cosine of embeddings of length 1, and the logarithm of the scale (1 / temperature) of a contrastive loss."""

    def __init__(self, temperature: float, learned: bool):
        super().__init__()
        # one dimension, because FSDP2 refuses parameters without dimension
        self.logit_scale = nn.Parameter(torch.tensor([-math.log(temperature)]), requires_grad=learned)

    def forward(self, sounds: Tensor, frames: Tensor) -> Tensor:
        """Returns cosines `(B,)` for embeddings `(B, D)`."""
        return (sounds * frames).sum(1)


class Nearness(nn.Module):
    """Base of scores that fall with the distance of embeddings of length 1."""

    def of_places(self, sounds: Tensor, places: Tensor) -> Tensor:
        """Returns scores `(B, P)` for sounds `(B, D)` and places of frames `(B, P, D)`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement of_places().")

    def forward(self, sounds: Tensor, frames: Tensor) -> Tensor:
        """Returns scores `(B,)` for sounds `(B, D)` and frames `(B, D)`; the highest of places `(B, P, D)`."""
        return self.of_places(sounds, frames if frames.ndim == 3 else frames[:, None]).amax(1)


class Distance(Nearness):
    """AVE-Net's score: a learned threshold on the distance. The slope is positive, so that near means the same clip.

    With a slope of any sign, a model can learn that far means the same: it is accurate, but useless for retrieval."""

    loss = staticmethod(balanced_cross_entropy)

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([math.log(math.expm1(SLOPE))]))  # before softplus
        self.threshold = nn.Parameter(torch.tensor([THRESHOLD]))

    def of_places(self, sounds: Tensor, places: Tensor) -> Tensor:
        """See `Nearness`."""
        return F.softplus(self.slope) * (self.threshold - distances(sounds, places))


class Margin(Nearness):
    """Score of AVTS: half the margin, minus the distance. At 0, a pair costs the same whether it is right or wrong."""

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin

    def of_places(self, sounds: Tensor, places: Tensor) -> Tensor:
        """See `Nearness`."""
        return self.margin / 2 - distances(sounds, places)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Returns AVTS's contrastive loss `()`: the squared distance of right pairs (label 1), and the squared lack of
        distance to the margin of wrong ones (label 0), with equal weight. scores, labels: `(n,)`."""
        distance = self.margin / 2 - scores
        loss = torch.where(labels == 1, distance, (self.margin - distance).relu()).square()
        return mean_of_classes(loss, labels)


def distances(sounds: Tensor, places: Tensor) -> Tensor:
    """Returns the distances of sounds `(B, D)` from places `(B, P, D)`: `(B, P)`. All vectors have length 1."""
    cosines = torch.einsum("bd,bpd->bp", sounds, places)
    return (2 - 2 * cosines).clamp(min=0).add(NEAR).sqrt()


@torch.no_grad()
def accuracy_among(sounds: Tensor, frames: Tensor) -> Tensor:
    """Returns the accuracy of predicting the sound of the first `COMPARED` clips among all: embeddings `(B, D)`, `(B,
    D)` to `()`."""
    predicted = (frames[:COMPARED] @ sounds.T).argmax(1)
    return (predicted == torch.arange(len(predicted), device=predicted.device)).float().mean()


def heat_maps(pixels: Tensor, scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns normalised videos, float32 `(B, F, 3, S, S)`, by title, in red where the scores of their places are high.

    scores: `{title: (B, F, h, w)}`. All maps of a video have one scale, from their lowest score to their highest."""
    pixels, scores = pixels.float(), {title: values.float() for title, values in scores.items()}
    together = torch.stack(list(scores.values()), dim=1).flatten(1)
    low, high = together.amin(1)[:, None, None, None], together.amax(1)[:, None, None, None]
    red = torch.stack([pixels.amax(), pixels.amin(), pixels.amin()])[:, None, None].expand_as(pixels)

    def blended(values: Tensor) -> Tensor:
        heat = HEAT * (values - low) / (high - low).clamp(min=NEAR)
        heat = F.interpolate(heat, size=pixels.shape[-2:], mode="bilinear")
        return torch.lerp(pixels, red, heat[:, :, None].expand_as(pixels))

    return {title: blended(values) for title, values in scores.items()}


def check_maps(encoder: PreTrainedModel) -> None:
    """Raises `ValueError` for a video encoder that gives no map of places for each frame."""
    if not takes_images(encoder):
        raise ValueError(
            "locate=True needs an image encoder for video, which gives a map of each frame (ResNet, ViT), but got "
            f"{type(encoder).__name__}. Give another --video_encoder, or set locate=False."
        )
    with tried(encoder):
        as_map(encoder, last_hidden(encoder, encoder(pixel_values=noise(encoder, 1, 3, *image_sides(encoder)[0]))))
