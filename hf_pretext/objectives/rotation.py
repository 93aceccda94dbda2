"""Rotation prediction: rotate the image by a multiple of 90 degrees and predict the angle.

Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations",
ICLR 2018, https://huggingface.co/papers/1803.07728

    pixel_values (B, C, S, S) -> rotated, and moved if asked (4B, C, S, S), labels (4B,) -> encoder -> head
    -> cross-entropy
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..features import last_hidden, pool, width
from ..modeling import PretextModel, PretextOutput
from ..modules.cues import BORDER, COLOR_HISTOGRAM, CORNERS, EDGES, SILHOUETTE, THUMBNAIL, Question
from ..modules.draws import drawn_by
from ..presets import Preset, images

PRESET = Preset(
    encoder=images.resnet,
    large=images.resnet50,
    tiny=images.tiny_resnet,
    dataset="emoji",
    samples=117_000,
    settings={**images.SMALL, "crop_scale": 0.7, "color_jitter": 0.1},
    for_large=images.LARGE,
)


@strict
@dataclass
class RotationTask:
    """Settings of rotation prediction.

    num_rotations: number of rotations to distinguish. 4: 0, 90, 180 and 270 degrees; 2: 0 and 180 degrees.
    rotations_per_image: number of different rotations that are drawn for each image; default: all of them.
    head_dim: width of the hidden layer of the head; 0: the head is a single linear layer.
    max_shift: share of the side by which a rotated image is moved at most, up or down and left or right; the pixels at
        its border fill the rest. Then the place of the object in the image reveals less of the rotation.
    """

    _argument_group_name: ClassVar[str] = "objective"

    num_rotations: Literal[2, 4] = 4
    rotations_per_image: int | None = None
    head_dim: int = 256
    max_shift: float = 0.0

    def validate_rotations_per_image(self):
        if self.rotations_per_image is not None and not 1 <= self.rotations_per_image <= self.num_rotations:
            raise ValueError(
                f"rotations_per_image must be between 1 and num_rotations={self.num_rotations}, "
                f"or None for all rotations, but is {self.rotations_per_image}."
            )

    def validate_head_dim(self):
        if self.head_dim < 0:
            raise ValueError(f"head_dim must be 0 or more, but is {self.head_dim}.")

    def validate_max_shift(self):
        if not 0 <= self.max_shift <= 0.5:
            raise ValueError(f"max_shift must be from 0 to 0.5, but is {self.max_shift}.")


class RotationForPreTraining(PretextModel):
    """An image encoder that learns by predicting the angle by which an image was rotated.

    forward: pixel_values (`(B, C, S, S)`).

    Returns features (`(nB, D)`), logits (`(nB, num_rotations)`) and labels (`(nB,)`), with n = `rotations_per_image`,
    or n = `num_rotations` if that is None. Rows are ordered by rotation: with all rotations, first every image
    unrotated, then every image rotated once, and so on. Logs: accuracy.

    Example:
        >>> model = RotationForPreTraining.from_encoder(AutoModel.from_config(ViTConfig(image_size=64, patch_size=8)))
        >>> model(pixel_values=torch.rand(2, 3, 64, 64)).logits.shape
        torch.Size([8, 4])
    """

    objective = "rotation"
    task_class = RotationTask
    inputs = ("image",)
    pipeline_tag = "image-feature-extraction"
    capabilities = ("ask",)
    cues = (THUMBNAIL, SILHOUETTE, EDGES, BORDER)
    artefacts = (CORNERS,)
    controls = (COLOR_HISTOGRAM,)
    formula = r"-\frac{1}{n}\sum_{r} \log p_\theta\left(r \mid \mathrm{turn}_r(x)\right)"
    limits = (
        "The encoder learns nothing from images that look the same in every orientation (balls, textures, views from "
        "above), and little from photos that were taken at arbitrary angles.",
        "The features depend on the orientation of the image. They are less useful for tasks in which the orientation "
        "must not matter.",
    )

    def __init__(self, full_model: PreTrainedModel, task: RotationTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        dim, hidden, classes = width(self.encoder), self.task.head_dim, self.task.num_rotations
        self.pretext_head = (
            nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, classes))
            if hidden
            else nn.Linear(dim, classes)
        )
        self.post_init()

    def forward(self, pixel_values: Tensor) -> PretextOutput:
        question = self.ask(pixel_values)
        features, labels = self.encoded(**question.inputs), question.labels  # (nB, D), (nB,)
        logits = self.pretext_head(features)  # (nB, num_rotations)
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return self.output({"rotation": loss}, {"accuracy": accuracy}, features=features, logits=logits, labels=labels)

    def encoded(self, pixel_values: Tensor) -> Tensor:
        """Returns pooled features `(N, D)` of images `(N, C, S, S)`."""
        return pool(last_hidden(self.encoder, self.encoder(pixel_values)))

    # capabilities

    def ask(self, pixel_values: Tensor) -> Question:
        """Asks by which angle each image was rotated, `(nB,)`."""
        task, generator = self.task, self.generator()
        images, labels = rotate(pixel_values, task.num_rotations, task.rotations_per_image, generator)
        if task.max_shift:
            images = moved(images, round(task.max_shift * images.shape[-1]), generator)
        return Question({"pixel_values": images}, labels, task.num_rotations)

    def answer(self, pixel_values: Tensor) -> Tensor:
        """Returns the logits of the rotations, `(N, num_rotations)`."""
        return self.pretext_head(self.encoded(pixel_values))


def rotate(
    pixel_values: Tensor,
    num_rotations: int = 4,
    per_image: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Rotates images counter-clockwise.

    `torch.rot90` moves pixels and never resamples them, so no blur of interpolation reveals the rotation.

    pixel_values: `(B, C, S, S)`. per_image: number n of rotations per image, drawn without repetition; None for all.
    Returns images `(nB, C, S, S)` and labels `(nB,)`: label k stands for k * 360 / num_rotations degrees.
    Raises `ValueError` for images that are not square, because rotation by 90 degrees would change their shape.
    """
    batch = len(pixel_values)
    height, side = pixel_values.shape[-2:]
    if height != side:
        raise ValueError(
            f"Rotation needs square images, but got {height}x{side} (height x width). Set a square crop in the "
            "image processor, or give --image_size."
        )
    quarter_turns = 4 // num_rotations
    turned = torch.stack([torch.rot90(pixel_values, k * quarter_turns, dims=(2, 3)) for k in range(num_rotations)])
    labels = torch.arange(num_rotations, device=turned.device)
    if per_image is None:
        return turned.flatten(0, 1), labels.repeat_interleave(batch)
    draws = torch.rand(batch, num_rotations, device=turned.device, **drawn_by(generator))
    drawn = draws.argsort(dim=1)[:, :per_image].T  # (per_image, B)
    return turned[drawn, torch.arange(batch, device=turned.device)].flatten(0, 1), drawn.flatten()


def moved(images: Tensor, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Moves each image `(N, C, S, S)` by a random number of pixels, at most `most` in each direction, by whole pixels.

    Pixels that leave the image are lost; those at its border are repeated where none are left."""
    count, side = len(images), images.shape[-1]
    draws = torch.rand(2, count, device=images.device, **drawn_by(generator))
    offsets = ((2 * most + 1) * draws).long() - most  # (2, N)
    rows, columns = (torch.arange(side, device=images.device) + offsets[..., None]).clamp(0, side - 1)  # (N, S) each
    return images[
        torch.arange(count, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None]
    ].movedim(-1, 1)
