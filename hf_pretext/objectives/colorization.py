"""Colorization: show the image in grey and predict its colours.

Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016, https://huggingface.co/papers/1603.08511

    pixel_values (B, 3, S, S) -> grey image (B, 3, S, S), colours ab of g x g cells (B, 2, g, g) -> encoder -> head on
    several levels -> logits of Q bins (B, Q, g, g) -> cross-entropy with the 5 nearest bins; rare colours weigh more
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import PreTrainedModel

from ..features import last_hidden, pool
from ..modalities.image import COLOR_OPTIONS
from ..modeling import PretextModel, PretextOutput
from ..modules.cell_cues import CORNER_GRAY, GRAY, GRAY_AND_PLACE, MEAN_GRAY, PLACE
from ..modules.cues import Question
from ..modules.dense import GROUPS, DenseHead
from ..modules.lab import AbBins, gray_of, lab_of, rgb_of
from ..modules.losses import widened
from ..modules.masking import positions_of
from ..modules.normalisation import CHANNELS, HALF, NormalisationTask, with_normalisation_of
from ..presets import Preset, images

PRESET = Preset(
    encoder=images.resnet,
    large=images.resnet50,
    tiny=images.tiny_resnet,
    dataset="emoji",
    samples=117_000,
    settings={**images.SMALL, "crop_scale": 0.5},
    for_large=images.LARGE,
)

LAYERS = 4  # of an encoder of one resolution, that the head reads
COUNTED = 2_000  # images from which the shares of the colours are counted
LOGGED = 8  # in training, metrics are of one in so many images


@strict
@dataclass
class ColorizationTask(NormalisationTask):
    """Settings of colorization.

    bin_size: side of a bin of the ab plane, in units of Lab.
    color_grid: number of rows and columns of cells whose colours are predicted.
    rebalance: weights of colours are the inverse of their share, mixed with equal shares: 1 gives equal weights, 0 the
        largest weights for rare colours. The paper has 0.5.
    temperature: sharpens the predicted distribution before its mean is taken as the predicted colour: 1 gives the plain
        mean, near 0 the likeliest colour. It does not change the training.
    head_dim: width of the head, a multiple of 8.
    """

    bin_size: int = 10
    color_grid: int = 16
    rebalance: float = 0.5
    temperature: float = 0.38
    head_dim: int = 128

    def validate_numbers(self):
        if not 2 <= self.bin_size <= 50:
            raise ValueError(f"bin_size must be between 2 and 50 units of Lab, but is {self.bin_size}.")
        if self.color_grid < 1:
            raise ValueError(f"color_grid must be at least 1 cell, but is {self.color_grid}.")
        if not 0 <= self.rebalance <= 1:
            raise ValueError(f"rebalance must be between 0 and 1, but is {self.rebalance}.")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, but is {self.temperature}.")
        if self.head_dim < 1 or self.head_dim % GROUPS:
            raise ValueError(f"head_dim must be a multiple of {GROUPS}, but is {self.head_dim}.")


class ColorizationForPreTraining(PretextModel):
    """An image encoder that learns by predicting the colours of a grey image.

    forward: pixel_values (`(B, 3, S, S)`).

    Returns features (`(B, D)`), logits (`(B, Q, g, g)`, with g = `color_grid`) and labels (`(B, g, g)`, the nearest of
    the Q bins). Logs: accuracy, of the nearest bin; ab_error, root mean square distance of the predicted colours in
    units of Lab; ab_error_of_gray, the same for predicting no colour. In training, they are of an eighth of the batch.

    Example:
        >>> model = ColorizationForPreTraining.from_encoder(ResNetConfig())
        >>> model(pixel_values=torch.rand(2, 3, 64, 64)).logits.shape
        torch.Size([2, 259, 16, 16])
    """

    objective = "colorization"
    task_class = ColorizationTask
    inputs = ("image",)
    pipeline_tag = "image-feature-extraction"
    capabilities = ("illustrate", "ask")
    cues = (GRAY, PLACE, GRAY_AND_PLACE, MEAN_GRAY)
    artefacts = (CORNER_GRAY,)
    sees_gray = True
    fixed_options = dict.fromkeys(COLOR_OPTIONS, (0.0, "colours are what colorization predicts"))
    formula = r"-\frac{1}{g^2}\sum_{h,w} v(Z_{hw}) \sum_q Z_{hwq} \log \hat Z_{hwq}"
    limits = (
        "The encoder saw no colours in training, so it treats them as a random encoder would.",
        "Many things have no fixed colour (clothes, cars, walls). The predicted colours are then the usual ones.",
    )

    def __init__(self, full_model: PreTrainedModel, task: ColorizationTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        bins, mean, std = AbBins(self.task.bin_size), self.task.image_mean or HALF, self.task.image_std or HALF
        self.pretext_head = DenseHead(self.encoder, len(bins), self.task.head_dim, LAYERS)
        self.pretext_head.bins = bins
        self.pretext_head.register_buffer("weights", torch.ones(len(bins)))
        for name, values in (("mean", mean), ("std", std)):
            self.pretext_head.register_buffer(name, torch.tensor(values).view(CHANNELS, 1, 1))
        self.post_init()

    @classmethod
    def complete(cls, task: ColorizationTask, processors: Mapping[str, Any]) -> ColorizationTask:
        """Completes the settings with the image processor's mean and standard deviation."""
        return with_normalisation_of(task, processors["image"])

    def forward(self, pixel_values: Tensor) -> PretextOutput:
        head, (gray, ab) = self.pretext_head, self.split(pixel_values)
        outputs, logits = self.predicted(gray)  # logits: (B, Q, g, g)
        weights, nearest = head.bins(ab)  # (B, g, g, 5) each
        labels = nearest[..., 0]
        near = logits.movedim(1, -1).log_softmax(-1).gather(-1, nearest)  # (B, g, g, 5)
        loss = -(head.weights[labels] * (weights * near).sum(-1)).mean()
        features = pool(last_hidden(self.encoder, outputs))
        logs = self.logged(logits, labels, ab)
        return self.output({"color": loss}, logs, features=features, logits=logits, labels=labels)

    def predicted(self, gray: Tensor) -> tuple[Any, Tensor]:
        """Returns the outputs of the encoder for images in grey, and the logits of the bins, `(B, Q, g, g)`."""
        outputs = self.encoder(pixel_values=gray, output_hidden_states=True)
        grid = (self.task.color_grid, self.task.color_grid)
        return outputs, widened(self.pretext_head(self.encoder, outputs, grid))

    @torch.no_grad()
    def logged(self, logits: Tensor, labels: Tensor, ab: Tensor) -> dict[str, Tensor]:
        """Returns the metrics. In training they are of a part of the batch: a distribution over all bins is sharpened
        for each cell, which would take a twentieth of the time of a step."""
        part = len(ab) if not self.training else -(-len(ab) // LOGGED)
        logits, labels, ab = logits[:part], labels[:part], ab[:part]
        return {
            "accuracy": (logits.argmax(1) == labels).float().mean(),
            "ab_error": (self.colors(logits) - ab).square().sum(1).mean().sqrt(),
            "ab_error_of_gray": ab.square().sum(1).mean().sqrt(),
        }

    def split(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images in grey, `(B, 3, S, S)`, normalised, and the colours ab of their cells, `(B, 2, g, g)`.

        It computes in float32: the cube root of dark colours has no digits left in bfloat16."""
        with torch.autocast(pixel_values.device.type, enabled=False):
            rgb = (widened(pixel_values) * self.pretext_head.std + self.pretext_head.mean).clamp(0, 1)
            ab = lab_of(F.adaptive_avg_pool2d(rgb, self.task.color_grid))[:, 1:]
            return self.normalised(gray_of(rgb)).to(pixel_values.dtype), ab

    def normalised(self, rgb: Tensor) -> Tensor:
        """Returns the normalised pixels, `(B, 3, H, W)`, of sRGB in [0, 1] with three channels or one."""
        return (rgb - self.pretext_head.mean) / self.pretext_head.std

    def colors(self, logits: Tensor) -> Tensor:
        """Returns the predicted colours ab, `(B, 2, g, g)`: the mean of the bins, with probabilities that are sharpened
        by the temperature (annealed mean)."""
        with torch.autocast(logits.device.type, enabled=False):
            shares = (logits / self.task.temperature).softmax(1)
            return torch.einsum("bqhw,qc->bchw", shares, self.pretext_head.bins.centers.to(shares.dtype))

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Counts how often each bin occurs in `COUNTED` images, and gives rare bins higher weights. As in the paper,
        their mean over the smoothed shares of the bins is 1."""
        bins, seen = self.pretext_head.bins, 0
        counts = torch.zeros(len(bins), device=self.device)
        for batch in batches:
            _, nearest = bins(self.split(batch["pixel_values"].to(self.device))[1])
            counts += nearest[..., 0].flatten().bincount(minlength=len(bins))
            seen += len(nearest)
            if seen >= COUNTED:
                break
        shares = bins.smoothed(counts / counts.sum())
        weights = 1 / ((1 - self.task.rebalance) * shares + self.task.rebalance / len(bins))
        self.pretext_head.weights.copy_(weights / (weights * shares).sum())

    def prepared(self) -> dict:
        """Returns the number of bins, and the lowest and the highest weight."""
        weights = self.pretext_head.weights
        return {"bins": len(weights), "weights": [round(float(each), 3) for each in (weights.min(), weights.max())]}

    # capabilities

    def ask(self, pixel_values: Tensor) -> Question:
        """Asks for the nearest bin of each cell, `(B, g, g)`, of images in grey."""
        gray, ab = self.split(pixel_values)
        _, nearest = self.pretext_head.bins(ab)
        return Question({"pixel_values": gray}, nearest[..., 0], len(self.pretext_head.bins))

    def answer(self, asked: Tensor, pixel_values: Tensor) -> Tensor:
        """Returns the logits of the bins of asked cells (`(B, g, g)`, bool), row by row, `(M, Q)`.

        The loss weighs a colour by its rarity, so that the model predicts rare colours too often, by their weights. The
        logarithms of the weights are subtracted: the answers are then at the shares of the data, by which they are
        judged."""
        _, logits = self.predicted(pixel_values)
        return logits.movedim(1, -1)[positions_of(asked)] - self.pretext_head.weights.log()

    def illustrate(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Returns images `(B, 3, S, S)`, in grey, and with the predicted colours."""
        gray, _ = self.split(pixel_values)
        ab = F.interpolate(self.colors(self(pixel_values=pixel_values).logits), gray.shape[2:], mode="bilinear")
        light = lab_of((gray * self.pretext_head.std + self.pretext_head.mean).clamp(0, 1))[:, :1]
        colored = self.normalised(rgb_of(torch.cat([light, ab], dim=1)))
        return {"image": pixel_values, "grey input": gray, "predicted colours": colored}
