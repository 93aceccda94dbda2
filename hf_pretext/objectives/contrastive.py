"""Image-text contrastive learning: for each image, predict its caption among all captions of the batch, and vice versa.

CLIP: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://huggingface.co/papers/2103.00020. ALIGN: Jia et al., ICML 2021, https://huggingface.co/papers/2102.05918.
UniCL (the loss of Florence): Yang et al., CVPR 2022, https://huggingface.co/papers/2204.03610. SigLIP: Zhai, Mustafa,
Kolesnikov and Beyer, ICCV 2023, https://huggingface.co/papers/2303.15343.

    pixel_values (B, 3, S, S), input_ids (B, L) -> two encoders -> embeddings (B, D), (B, D) -> scores (B, B), computed
    in tiles -> softmax over each row and column, or a sigmoid of each score
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
from ..modules.caption_cues import CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES
from ..modules.cues import COLOR_HISTOGRAM, CORNERS, SILHOUETTE, SMALL_THUMBNAIL
from ..modules.distributed import gather
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
from ..presets import Preset, pairs
from ..utils.ranks import rank_and_ranks

PRESET = Preset(
    encoder=pairs.resnet_and_transformer,
    large=pairs.large_resnet_and_transformer,
    tiny=pairs.tiny_resnet_and_transformer,
    dataset="emoji",
    samples=230_000,
    settings=pairs.SMALL,
    for_large=pairs.LARGE,
)

FRESH = {"softmax": (math.log(1 / 0.07), None), "sigmoid": (math.log(10.0), -10.0)}  # initial log scale, and bias
COMPARED = 256  # images of a batch that count for the accuracy


@strict
@dataclass
class ContrastiveTask:
    """Settings of image-text contrastive learning.

    loss: softmax: cross-entropy over the scores of each image and of each caption (CLIP, ALIGN, UniCL); sigmoid: binary
        cross-entropy of each score (SigLIP).
    positives: captions that count as right for an image. pair: only the caption of the same pair (CLIP); label: also
        captions of pairs with the same label or, if the data has no labels, with the same caption text (UniCL).
    label_smoothing: share of the target probability that is spread evenly over the batch (ALIGN: 0.1); only for
        loss=softmax.
    patch_dropout: share of the image patches that are dropped in training (FLIP); only for a ViT image encoder.
    frozen: the encoder that is not trained (LiT: image); default: both are trained.
    embed_batch_size: number of images, and of captions, that are embedded at a time (GradCache). Activations
        take the memory of this many pairs, for any batch size; the cost is one more forward pass. The loss is still
        computed over the whole batch. Batch norm normalises each part separately. Default: the whole batch at once.
    exchange: how processes share negatives. local: each process computes the loss of its pairs against those of all
        processes; gather: each process computes the loss of all pairs; ring: caption embeddings are passed from process
        to process, so that none stores all of them (only for loss=sigmoid).
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
            raise ValueError(f"label_smoothing={self.label_smoothing} needs loss='softmax'. Set label_smoothing=0.")
        if self.loss == "softmax" and self.exchange == "ring":
            raise ValueError("exchange='ring' needs loss='sigmoid', but loss is 'softmax'. Set exchange='local'.")


class ContrastiveForPreTraining(TwoTowers):
    """An image encoder and a text encoder that learn by predicting which caption belongs to which image.

    `TwoTowers` lists the supported encoders.

    forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`; padded to the longest text, or to
    `max_length` for encoders that pool the last position), labels (`(B,)`, integers; required for positives="label").
    In training, the batches of all ranks form one batch.

    Returns features (`(B, D)`: image embeddings of length 1). Logs: accuracy of predicting the caption, over the first
    `COMPARED` images; in training also scale, and negatives: the mean number of wrong captions per image.

    Example:
        >>> model = ContrastiveForPreTraining.from_encoders(ViTConfig(image_size=64, patch_size=8), BertConfig())
        >>> model(pixel_values=torch.rand(4, 3, 64, 64), input_ids=torch.randint(1000, 2000, (4, 9))).loss.shape
        torch.Size([])
    """

    objective = "contrastive"
    task_class = ContrastiveTask
    capabilities = ("embed",)
    cues = (COLOR_HISTOGRAM, SMALL_THUMBNAIL, SILHOUETTE)
    artefacts = (CORNERS, CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES)
    formula = (
        r"\text{softmax: } -\frac{1}{2B}\sum_i \left[\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} + "
        r"\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\right]; \quad \text{sigmoid: } "
        r"-\frac{1}{B}\sum_{i,j} \log\sigma\left(z_{ij} s_{ij}\right); \quad s_{ij} = \tau u_i^\top v_j + b; "
        r"\quad u_i, v_j \text{ are embeddings of length 1; } z_{ij} \text{ is 1 for positives and } -1 "
        r"\text{ otherwise; } \tau \text{ and } b \text{ are learned; the positives of a row share the target "
        r"probability equally; label smoothing spreads a share of it over the batch}"
    )
    limits = (
        "Captions of other images count as wrong, even if they describe the image. With `positives` set to label, "
        "captions with the same label or the same text count as right. If many images or captions are similar, the "
        "model learns differences that do not exist.",
        "The model hardly learns word order, counts and negations, because the captions of a batch can usually be "
        "distinguished without them.",
        "The model hardly understands words that do not occur in its training texts.",
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
        """As `TwoTowers.from_encoders`, with the initial temperature of the chosen loss."""
        model = super().from_encoders(*encoders, **encoders_and_settings)
        model.refresh()
        return model

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "ContrastiveForPreTraining":
        """As `PretextModel.from_encoder`, for a model of images and texts.

        The temperature is set to its initial value if `encoder` is a config, and for loss="sigmoid" also if the
        architecture has no bias: a trained scale is useless without the bias it was trained with.
        Raises `ValueError` if the temperature is not finite, or the image encoder does not support `patch_dropout`."""
        model = super().from_encoder(encoder, **settings)
        if isinstance(encoder, PreTrainedConfig) or model.pretext_head is not None:
            model.refresh()
        model.check_temperature(type(encoder).__name__)
        with torch.no_grad(), dropped_patches(model.encoder, model.task.patch_dropout):  # raises if unsupported
            if model.task.patch_dropout:
                model.full_model.get_image_features(**image_inputs(model.full_model, blank(model.encoder)))
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs):
        """As `PretextModel.from_pretrained`. Also raises `ValueError` if the temperature is not finite."""
        model = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        model.check_temperature(str(pretrained_model_name_or_path))
        return model

    def check_temperature(self, name: str) -> None:
        """Raises `ValueError` if the temperature is not finite. name: of the model or checkpoint, for the message."""
        if not all(torch.isfinite(value) for value in self.temperature()):
            raise ValueError(
                f"The temperature of {name} (logit_scale or logit_bias) is not finite: its training has diverged. "
                "Start from an earlier checkpoint."
            )

    def train(self, mode: bool = True) -> "ContrastiveForPreTraining":
        """As `nn.Module.train`. A frozen encoder stays in `eval()` mode: no dropout, fixed statistics of batch norm."""
        super().train(mode)
        if self.task.frozen:
            self.encoders[self.task.frozen].eval()
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Sets scale and bias to the initial values of the papers (transformers' SigLIP starts with 0 and 0)."""
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
        """Bias of the sigmoid loss: the parameter of the architecture, or of the head if the architecture has none."""
        return (
            getattr(self.full_model, "logit_bias", None)
            if self.pretext_head is None
            else self.pretext_head["logit_bias"]
        )

    def temperature(self) -> tuple[Tensor, Tensor] | tuple[Tensor]:
        """Scale of the scores, and for loss="sigmoid" also their bias: `()` each."""
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
            raise ValueError("positives='label' needs labels in the batch, but got None. Give integers of shape (B,).")
        if self.training:
            clamp_scale(self.full_model, bounded=self.task.loss == "softmax")
        labels = labels if self.task.positives == "label" else None
        with torch.autocast(images.device.type, enabled=False):
            loss, logs = self.compare(images, texts, labels)
        candidates = len(texts) if self.task.loss == "softmax" and not self.training else None
        return self.output({"contrastive": loss}, logs, features=images, candidates=candidates)

    def embed(self, kind: str, **batch: Tensor) -> Tensor:
        """Embeds images (pixel_values) or texts (input_ids, attention_mask, ...). Returns `(B, D)`, of length 1."""
        given = {name: value for name, value in batch.items() if value is not None}
        names, embed_piece = list(given), self.embed_images if kind == "image" else self.embed_texts

        def piece(*values: Tensor) -> Tensor:
            return normalised(embed_piece(**dict(zip(names, values, strict=True))).pooler_output)

        return in_pieces(piece, self.task.embed_batch_size, self.encoders[kind], *given.values())

    def embed_images(self, pixel_values: Tensor):
        """Output of image encoder and projection (`pooler_output`: `(B, D)`) for pixel_values `(B, 3, S, S)`."""
        with dropped_patches(self.encoder, self.task.patch_dropout if self.encoder.training else 0.0):
            return self.full_model.get_image_features(**image_inputs(self.full_model, pixel_values))

    def embed_texts(self, **inputs: Tensor):
        """Output of text encoder and projection (`pooler_output`: `(B, D)`) for input_ids `(B, L)` and others."""
        return self.full_model.get_text_features(**inputs)

    def compare(self, images: Tensor, texts: Tensor, labels: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss `()` over the pairs of all ranks, and the logs.

        images, texts: embeddings `(B, D)`. In `eval()` the loss is over the batch of this rank alone, because one rank
        computes the metrics."""
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
        """Loss `()` of rows `(n, D)` against columns `(m, D)`: the mean over rows; for softmax also over columns."""
        if self.task.loss == "softmax":
            return softmax_loss(
                rows, columns, scale_of(self.full_model), row_labels, column_labels, self.task.label_smoothing
            )
        return sigmoid_loss(rows, columns, *self.temperature(), row_labels, column_labels)
