"""Image-text contrastive learning: of all captions in the batch, predict which is the image's; and the reverse.

CLIP: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://huggingface.co/papers/2103.00020. ALIGN: Jia et al., ICML 2021, https://huggingface.co/papers/2102.05918.
UniCL, Florence's loss: Yang et al., CVPR 2022, https://huggingface.co/papers/2204.03610. SigLIP: Zhai, Mustafa,
Kolesnikov and Beyer, ICCV 2023, https://huggingface.co/papers/2303.15343.

    pixel_values (B, 3, S, S), input_ids (B, L) -> two towers -> embeddings (B, D), (B, D) -> scores, a tile of B x B
    at a time -> softmax over each row and column, or a sigmoid of each
"""

import math
from dataclasses import dataclass
from os import PathLike
from typing import ClassVar, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling import PretextOutput
from ..modules.distributed import gather, rank_and_ranks
from ..modules.dual_encoder import (
    TwoTowers,
    blank,
    check_pairs,
    clamp_scale,
    dropped_patches,
    image_inputs,
    in_pieces,
    normalised,
    pair_labels,
    scale_of,
)
from ..modules.losses import sigmoid_loss, softmax_loss, softmax_loss_of_ranks, sums_of_labels

FRESH = {"softmax": (math.log(1 / 0.07), None), "sigmoid": (math.log(10.0), -10.0)}  # log of the scale, and the bias
COMPARED = 256  # images of a batch that the accuracy is of


@strict
@dataclass
class ContrastiveTask:
    """Settings of image-text contrastive learning.

    loss: softmax over each picture's and each caption's scores (CLIP, ALIGN, UniCL), or a sigmoid of each (SigLIP).
    positives: pair: only a picture's own caption is right (CLIP); label: also those of pictures with the same label,
        or, where the data has none, with the same caption (UniCL).
    label_smoothing: share of what is right that is spread over all the batch (ALIGN: 0.1); of softmax alone.
    patch_dropout: share of the patches that a ViT does not see in training (FLIP).
    frozen: a tower that is not trained (LiT: image).
    embed_batch_size: pictures, and captions, that are embedded at a time (GradCache): a batch of any size in the memory
        of so many, for one more forward pass. The loss sees the whole batch, and is the same; only batch norm
        normalises each piece by itself.
    exchange: how ranks see each other's negatives: each for its own rows (local), each for all rows (gather), or
        captions' embeddings go round in a ring (ring; of sigmoid alone), so that none holds those of all.
    """

    _argument_group_name: ClassVar[str] = "objective"

    loss: Literal["softmax", "sigmoid"] = "softmax"
    positives: Literal["pair", "label"] = "pair"
    label_smoothing: float = 0.0
    patch_dropout: float = 0.0
    frozen: Literal["image", "text"] | None = None
    embed_batch_size: int | None = None
    exchange: Literal["local", "gather", "ring"] = "local"

    def validate_shares(self):
        for name in ("label_smoothing", "patch_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, but is {getattr(self, name)}.")
        if self.embed_batch_size is not None and self.embed_batch_size < 1:
            raise ValueError(f"embed_batch_size must be at least 1, but is {self.embed_batch_size}.")

    def validate_loss(self):
        if self.loss == "sigmoid" and self.label_smoothing:
            raise ValueError(f"label_smoothing={self.label_smoothing} is of loss='softmax' alone; leave it 0.")
        if self.loss == "softmax" and self.exchange == "ring":
            raise ValueError("exchange='ring' is of loss='sigmoid' alone: a softmax needs all scores. Take 'local'.")


class ContrastiveForPreTraining(TwoTowers):
    """An image tower and a text tower that learn by predicting which caption belongs to which image (see `TwoTowers`
    for what they may be).

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`; padded to the longest, but for
    towers that pool the last position), labels (`(B,)`, whole numbers), needed for positives="label". In training all
    ranks' batches are one.

    Returns features (`(B, D)`, the images' embeddings, of length 1). Logs: accuracy (of the captions of the first
    images), and in training scale, and negatives: how many wrong captions an image is compared with.

    Example:
        >>> model = ContrastiveForPreTraining.from_encoders(ViTConfig(image_size=64, patch_size=8), BertConfig())
        >>> model(pixel_values=torch.rand(4, 3, 64, 64), input_ids=torch.randint(1000, 2000, (4, 9))).loss.shape
        torch.Size([])
    """

    objective = "contrastive"
    task_class = ContrastiveTask
    capabilities = ("embed",)
    formula = (
        r"\text{softmax: } -\frac{1}{2B}\sum_i \left[\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} + "
        r"\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\right]; \quad \text{sigmoid: } "
        r"-\frac{1}{B}\sum_{i,j} \log\sigma\left(z_{ij} s_{ij}\right); \quad s_{ij} = \tau u_i^\top v_j + b; "
        r"\quad u_i, v_j \text{ embeddings of length 1; several right answers share a row's weight, label smoothing "
        r"spreads some of it}"
    )
    limits = (
        "Captions of other pictures count as wrong, also where they fit (but for equal ones or equal labels, where "
        "`positives` is label): of many like pictures or captions the model learns differences that are none.",
        "Word order, counts and negations are hardly learned: telling captions of a batch apart seldom takes them.",
        "Words that training never saw mean hardly anything to it.",
    )

    def __init__(self, full_model: PreTrainedModel, task: ContrastiveTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        self.pretext_head = None
        if self.task.loss == "sigmoid" and not hasattr(full_model, "logit_bias"):
            self.pretext_head = nn.ParameterDict({"logit_bias": nn.Parameter(torch.tensor(FRESH["sigmoid"][1]))})
        if self.task.frozen:
            self.encoders[self.task.frozen].requires_grad_(False)
        self.post_init()

    @classmethod
    def from_encoders(cls, *encoders: PreTrainedModel | PreTrainedConfig | int, **encoders_and_settings):
        """As `TwoTowers.from_encoders`."""
        model = super().from_encoders(*encoders, **encoders_and_settings)
        model.refresh()
        return model

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "ContrastiveForPreTraining":
        """As `PretextModel.from_encoder`, of a model of both. The temperature is fresh where a config is given, and for
        a sigmoid where the model has no bias of its own, to which its scale would belong.

        Raises `ValueError` for a temperature that is not a number."""
        model = super().from_encoder(encoder, **settings)
        if isinstance(encoder, PreTrainedConfig) or model.pretext_head is not None:
            model.refresh()
        model.check_temperature(type(encoder).__name__)
        with torch.no_grad(), dropped_patches(model.encoder, model.task.patch_dropout):  # says if it can't be
            if model.task.patch_dropout:
                model.full_model.get_image_features(**image_inputs(model.full_model, blank(model.encoder)))
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs):
        """As `PretextModel.from_pretrained`. Raises `ValueError` for a temperature that is not a number, too."""
        model = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        model.check_temperature(str(pretrained_model_name_or_path))
        return model

    def check_temperature(self, name: str) -> None:
        """Raises `ValueError` for one that is not a number."""
        if not all(torch.isfinite(value) for value in self.temperature()):
            raise ValueError(
                f"The temperature of {name} is not a number (logit_scale or logit_bias): it has diverged. Start from "
                "an earlier checkpoint."
            )

    def train(self, mode: bool = True) -> "ContrastiveForPreTraining":
        """As usual; a frozen tower stays as it is used, without dropout, and keeps its statistics."""
        super().train(mode)
        if self.task.frozen:
            self.encoders[self.task.frozen].eval()
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """A fresh temperature: what its loss begins with (transformers' SigLIP begins with 0 and 0)."""
        scale, bias = FRESH[self.task.loss]
        logarithm = getattr(self.full_model, "logit_scale", None)
        if logarithm is None:
            self.full_model.temperature.fill_(math.exp(-scale))
        else:
            logarithm.fill_(scale)
        if bias is not None:
            self.bias.fill_(bias)

    @property
    def bias(self) -> Tensor:
        """SigLIP's, where the architecture keeps it."""
        return (
            getattr(self.full_model, "logit_bias", None)
            if self.pretext_head is None
            else self.pretext_head["logit_bias"]
        )

    def temperature(self) -> tuple[Tensor, Tensor] | tuple[Tensor]:
        """What scores are multiplied with, and what is added, where that is learned: `()` each."""
        return (
            (scale_of(self.full_model),)
            if self.task.loss == "softmax"
            else (scale_of(self.full_model), self.bias.reshape(()))
        )

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Tensor,
    ) -> PretextOutput:
        images = self.embed("image", pixel_values=pixel_values)
        texts = self.embed("text", input_ids=input_ids, attention_mask=attention_mask, **inputs)
        check_pairs(images, texts, labels, self.training)
        if self.task.positives == "label" and labels is None:
            raise ValueError("positives='label' needs labels in the batch: whole numbers, (B,).")
        if self.training:
            clamp_scale(self.full_model, bounded=self.task.loss == "softmax")
        labels = labels if self.task.positives == "label" else None
        with torch.autocast(images.device.type, enabled=False):
            loss, logs = self.compare(images, texts, labels)
        return self.output({"contrastive": loss}, logs, features=images)

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Images (pixel_values) or texts (input_ids, attention_mask, ...) to embeddings of length 1, `(B, D)`."""
        given = {name: value for name, value in batch.items() if value is not None}
        names, embed_piece = list(given), self.embed_images if kind == "image" else self.embed_texts

        def piece(*values: Tensor) -> Tensor:
            return normalised(embed_piece(**dict(zip(names, values, strict=True))).pooler_output)

        return in_pieces(piece, self.task.embed_batch_size, self.encoders[kind], *given.values())

    def embed_images(self, pixel_values: Tensor):
        """What the image tower and its projection make of images."""
        with dropped_patches(self.encoder, self.task.patch_dropout if self.encoder.training else 0.0):
            return self.full_model.get_image_features(**image_inputs(self.full_model, pixel_values))

    def embed_texts(self, **inputs: Tensor):
        """What the text tower and its projection make of texts."""
        return self.full_model.get_text_features(**inputs)

    def compare(self, images: Tensor, texts: Tensor, labels: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over all ranks' pairs, and what the logs say of it.

        In `eval()` each rank has its own batch alone, since figures are measured by one of them."""
        ranks = rank_and_ranks()[1] if self.training else 1
        labels = pair_labels(labels, len(images), images.device, self.training)
        all_labels = labels if ranks == 1 else gather(labels)
        if ranks == 1:
            loss = self.loss_of(images, texts, labels, labels)
        elif self.task.exchange == "ring":
            loss = sigmoid_loss(images, texts, *self.temperature(), labels, labels, ring=True)
        elif self.task.exchange == "gather":
            loss = self.loss_of(gather(images), gather(texts), all_labels, all_labels)
        elif self.task.loss == "sigmoid":
            loss = self.loss_of(images, gather(texts), labels, all_labels)
        else:
            everyone, smoothing = (gather(images), gather(texts)), self.task.label_smoothing
            loss = softmax_loss_of_ranks(
                images, texts, *everyone, scale_of(self.full_model), labels, all_labels, smoothing
            )
        with torch.no_grad():
            predicted = (images[:COMPARED] @ texts.T).argmax(1)
            accuracy = (labels[predicted] == labels[:COMPARED]).float().mean()
            _, count = sums_of_labels(torch.ones_like(all_labels[:, None], dtype=images.dtype), all_labels, labels)
        logs = {"accuracy": accuracy}
        if self.training:
            logs |= {"scale": self.temperature()[0], "negatives": len(all_labels) - count.mean()}
        return loss, logs

    def loss_of(self, rows: Tensor, columns: Tensor, row_labels: Tensor, column_labels: Tensor):
        """The loss of some pairs: a mean over rows; where it is a softmax, over columns too."""
        if self.task.loss == "softmax":
            return softmax_loss(
                rows, columns, scale_of(self.full_model), row_labels, column_labels, self.task.label_smoothing
            )
        return sigmoid_loss(rows, columns, *self.temperature(), row_labels, column_labels)
