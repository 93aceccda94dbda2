"""Masked image modelling: hide a part of the image and predict its pixels or its visual tokens.

Context encoders: Pathak et al., CVPR 2016, https://huggingface.co/papers/1604.07379;
BEiT: Bao, Dong, Piao and Wei, ICLR 2022, https://huggingface.co/papers/2106.08254;
MAE: He et al., CVPR 2022, https://huggingface.co/papers/2111.06377;
SimMIM: Xie et al., CVPR 2022, https://huggingface.co/papers/2111.09886

    pixel_values (B, 3, S, S) -> M of N patches hidden: left out, or replaced by a learned patch -> encoder -> decoder
    -> pixels or logits of codes of the hidden patches (B, M, d)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..encoders import patch_side
from ..features import last_hidden, pool, width
from ..modeling import PretextModel, PretextOutput
from ..modules.codebook import CodebookTask
from ..modules.codebook_sources import codebook_config, codebook_from, open_codebook
from ..modules.cues import Question
from ..modules.decoder import PatchDecoder
from ..modules.dense import GROUPS, DenseHead
from ..modules.losses import widened
from ..modules.masking import check_share, visual_tokens
from ..modules.normalisation import with_normalisation_of
from ..modules.patch_cues import MIRROR, NEAR_MEAN, SMOOTH, VISIBLE_MEAN
from ..modules.patches import (
    EPSILON,
    blanked,
    blocks_of_patches,
    check_square,
    mask_unit,
    normalised,
    patchify,
    random_patches,
    selected,
    share_of,
    square_of_patches,
    square_side,
    unpatchify,
)
from ..modules.visible import VisiblePatches, check_skips, embeddings_of
from ..presets import Preset, images
from ..utils.settings import make_settings, refuse_without_effect

PRESET = Preset(
    encoder=images.vit,
    large=images.vit_small,
    tiny=images.tiny_vit,
    dataset="emoji",
    samples=97_000,
    settings={
        **images.SMALL,
        "per_device_train_batch_size": 64,
        "crop_scale": 0.5,
        "color_jitter": 0.0,
        "visible_only": True,
        "mask_ratio": 0.75,
        "decoder_dim": 128,
        "decoder_layers": 2,
    },
    for_large={**images.LARGE, "decoder_dim": 512, "decoder_layers": 8},
    smoke={"decoder_dim": 32},
)

PATCH = 16  # side of a patch of encoders without patches, in pixels


@strict
@dataclass
class MaskedImageTask(CodebookTask):
    """Settings of masked image modelling.

    target: what is predicted of hidden patches: their pixels (MAE, SimMIM, context encoders), or the codes of their
        visual tokens (BEiT).
    pixel_loss: distance of pixels: "l2" is the mean squared error (MAE), "l1" the mean absolute error (SimMIM).
    normalize_patches: whether the pixels of each patch get mean 0 and variance 1 before they are predicted.
    mask_ratio: share of the patches that are hidden. MAE has 0.75, SimMIM 0.6, BEiT 0.4, context encoders 0.25.
    mask_size: side of the squares that are hidden, in pixels, a multiple of the patch size; default: one patch.
    region: which patches are hidden: "random" ones, rectangular "blocks" (BEiT), or one "square" (context encoders).
    visible_only: whether the encoder sees only the patches that are not hidden (MAE), which takes a ViT and is several
        times faster. Otherwise hidden patches are replaced by a patch of learned pixels, which any encoder takes.
    patch_size: side of a patch in pixels; default: the encoder's, or 16 for encoders without patches.
    decoder_layers: number of layers of the Transformer that predicts hidden patches for --visible_only.
    decoder_dim: width of the decoder, a multiple of 32, or of the head without --visible_only.
    """

    target: Literal["pixels", "codes"] = "pixels"
    pixel_loss: Literal["l2", "l1"] = "l2"
    normalize_patches: bool = True
    mask_ratio: float = 0.6
    mask_size: int | None = None
    region: Literal["random", "blocks", "square"] = "random"
    visible_only: bool = False
    patch_size: int | None = None
    decoder_layers: int = 4
    decoder_dim: int = 256

    @property
    def late(self) -> tuple[str, ...]:
        """Settings that may be set after the model is built, see `MaskTask`: those of a codebook, without one."""
        return ("image_mean", "image_std") if self.target == "pixels" else ()

    def validate_masks(self):
        check_share("mask_ratio", self.mask_ratio)
        for name in ("mask_size", "patch_size", "decoder_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        refuse_without_effect(
            self, "mask_size", self.region != "random", f"region=random, not for region={self.region}"
        )
        refuse_without_effect(self, "codebook", self.target == "pixels", "target=codes, not for target=pixels")
        for name in ("pixel_loss", "normalize_patches"):
            refuse_without_effect(self, name, self.target == "codes", "target=pixels, not for target=codes")
        refuse_without_effect(self, "decoder_layers", not self.visible_only, "visible_only")
        multiple = 32 if self.visible_only else GROUPS
        if self.decoder_dim < 1 or self.decoder_dim % multiple:
            raise ValueError(f"decoder_dim must be a multiple of {multiple}, but is {self.decoder_dim}.")


class MaskedImageForPreTraining(PretextModel):
    """An image encoder that learns by predicting hidden parts of an image.

    forward: pixel_values (`(B, 3, S, S)`).

    Returns features (`(B, D)`), logits (`(B, M, d)`: the predictions of the M hidden patches of each image, with d = 3
    * patch_size**2, or the number of codes) and labels (`(B, M, d)`, or `(B, M)` for codes). Logs: for pixels,
    explained: share of the variance of the hidden pixels that is predicted (0 for the mean); for codes, accuracy.

    Example:
        >>> model = MaskedImageForPreTraining.from_encoder(ViTConfig(image_size=64, patch_size=8), visible_only=True)
        >>> model(pixel_values=torch.rand(2, 3, 64, 64)).logits.shape
        torch.Size([2, 38, 192])
    """

    objective = "masked_image"
    task_class = MaskedImageTask
    inputs = ("image",)
    pipeline_tag = "image-feature-extraction"
    capabilities = ("illustrate", "ask")  # "ask" for pixels alone
    cues = (SMOOTH, NEAR_MEAN, VISIBLE_MEAN, MIRROR)
    formula = (
        r"\frac{1}{|M|}\sum_{i \in M} \lVert \hat x_i - x_i \rVert^2 \text{ or } "
        r"-\frac{1}{|M|}\sum_{i \in M}\log p_\theta(z_i \mid x_{\setminus M})"
    )
    limits = (
        "Hidden pixels can be predicted from their neighbourhood without knowing objects, so the encoder is better "
        "fine-tuned than used frozen.",
        "With one square region the loss is that of context encoders without their adversarial term, so predictions "
        "are blurred.",
    )

    def __init__(self, full_model: PreTrainedModel, task: MaskedImageTask, parts: dict | None = None):
        super().__init__(full_model, task, parts)
        task, self.patch = self.task, patch_of(self.task, self.encoder)
        outputs = 3 * self.patch**2
        self.pretext_head = nn.ModuleDict()
        if task.target == "codes":
            self.pretext_head["codebook"] = codebook_from(self.parts["codebook"])
            outputs, self.capabilities = self.pretext_head["codebook"].size, ("illustrate",)
        if task.visible_only:
            self.visible, self._sides = VisiblePatches(self.encoder), set()
            self.pretext_head["predict"] = PatchDecoder(
                width(self.encoder), outputs, task.decoder_dim, task.decoder_layers
            )
        else:
            self.pretext_head["predict"] = DenseHead(self.encoder, outputs, task.decoder_dim)
            self.pretext_head.register_parameter("learned", nn.Parameter(torch.zeros(3 * self.patch**2)))
        self.post_init()

    @classmethod
    def from_encoder(cls, encoder: PreTrainedModel | PreTrainedConfig, **settings) -> "MaskedImageForPreTraining":
        """Puts the objective's heads on an encoder, and opens the codebook. See `PretextModel.from_encoder`.

        Raises `ValueError` for a codebook that can't be loaded."""
        task = make_settings(cls.task_class, **settings)
        if task.target == "pixels":
            return super().from_encoder(encoder, **settings)
        encoder = cls.native(encoder)
        codebook = open_codebook(task.codebook, task.codebook_size, patch_of(task, encoder))
        model = super().from_encoder(encoder, parts={"codebook": codebook_config(codebook)}, **settings)
        model.pretext_head["codebook"].load_state_dict(codebook.state_dict())
        if task.image_mean is not None:
            model.pretext_head["codebook"].set_normalisation(task.image_mean, task.image_std)
        return model

    @classmethod
    def complete(cls, task: MaskedImageTask, processors: Mapping[str, Any]) -> MaskedImageTask:
        """Completes the settings with the image processor's mean and standard deviation."""
        return with_normalisation_of(task, processors["image"])

    def prepare(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Fits the codebook to the training images."""
        if self.task.target == "codes":
            images = (batch["pixel_values"] for batch in batches)
            self.pretext_head["codebook"].fit(images, patches=self.task.codebook_patches)

    def prepared(self) -> dict:
        """Returns the codebook's kind, size and perplexity; `{}` without a codebook."""
        if self.task.target == "pixels":
            return {}
        codebook = self.pretext_head["codebook"]
        perplexity = getattr(codebook, "perplexity", None)
        return {"codebook": {"kind": codebook.kind, "size": codebook.size, "perplexity": perplexity}}

    def forward(self, pixel_values: Tensor) -> PretextOutput:
        check_square(pixel_values)
        patches = patchify(pixel_values, self.patch)  # (B, N, 3 * p * p)
        visible, hidden = self.draw(patches)  # (B, N - M), (B, M)
        encode = self.encode_visible if self.task.visible_only else self.encode_replaced
        states, logits = encode(pixel_values, patches, visible, hidden)
        features, logits = pool(states), widened(logits)
        if self.task.target == "codes":
            codes = visual_tokens(self.pretext_head["codebook"], pixel_values, self.training)
            labels = codes.gather(1, hidden)
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            logs = {"accuracy": (logits.argmax(-1) == labels).float().mean()}
        else:
            labels = self.targets(pixel_values, hidden)
            loss = (F.mse_loss if self.task.pixel_loss == "l2" else F.l1_loss)(logits, labels)
            with torch.no_grad():
                logs = {"explained": 1 - F.mse_loss(logits, labels) / labels.var(correction=0).clamp(min=EPSILON)}
        return self.output({"hidden": loss}, logs, features=features, logits=logits, labels=labels)

    def draw(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Draws the hidden patches, as many in each image, and sorts all patches `(B, N, d)` of square images by it.

        Returns the indices of the visible patches `(B, N - M)` and of the hidden ones `(B, M)`, both ascending. Raises
        `ValueError` for a mask size that does not fit them, and if all patches or none would be hidden."""
        batch, count, _ = patches.shape
        side, ratio = isqrt(count), self.task.mask_ratio
        unit = mask_unit(self.task.mask_size or self.patch, self.patch, side)
        options = (ratio, patches.device, self.generator())
        if self.task.region == "blocks":
            hidden, amount = blocks_of_patches(batch, side, *options), share_of(count, ratio)
        elif self.task.region == "square":
            hidden, amount = square_of_patches(batch, side, *options), square_side(side, ratio) ** 2
        else:
            rows = side // unit
            units = random_patches(batch, rows * rows, *options).unflatten(1, (rows, rows))
            hidden = units.repeat_interleave(unit, 1).repeat_interleave(unit, 2).flatten(1)
            amount = share_of(rows * rows, ratio) * unit**2
        if not 0 < amount < count:
            raise ValueError(
                f"mask_ratio {ratio} hides {amount} of {count} patches, but some must be hidden and some visible. Give "
                "another --mask_ratio, a smaller --patch_size or --mask_size, or a larger --image_size."
            )
        order = hidden.int().argsort(dim=1, stable=True)  # their number is known, so the CPU need not wait for a count
        return order[:, : count - amount], order[:, count - amount :]

    def encode_replaced(
        self, pixel_values: Tensor, patches: Tensor, visible: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encodes images whose hidden patches are replaced by the learned one, and predicts the hidden patches. Takes
        and returns what `encode_visible` does; hidden states may be a feature map."""
        learned = self.pretext_head.learned.to(patches.dtype).expand(*hidden.shape, -1)
        seen = unpatchify(patches.scatter(1, hidden[..., None].expand_as(learned), learned), self.patch)
        outputs = self.encoder(pixel_values=seen, output_hidden_states=True)
        side = isqrt(patches.shape[1])
        predicted = self.pretext_head["predict"](self.encoder, outputs, (side, side))
        return last_hidden(self.encoder, outputs), selected(predicted.flatten(2).mT, hidden)

    def encode_visible(
        self, pixel_values: Tensor, patches: Tensor, visible: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encodes the visible patches of images, and predicts the hidden ones with the decoder.

        pixel_values (`(B, 3, S, S)`), patches (`(B, N, 3 * p * p)`), visible and hidden (`(B, N - M)`, `(B, M)`,
        indices). Returns hidden states `(B, T, D)` and predictions `(B, M, d)`."""
        count = patches.shape[1]
        self.check_visible(isqrt(count))
        with self.visible.only(visible, count):
            states = last_hidden(self.encoder, self.encoder(pixel_values=pixel_values))
        return states, selected(self.pretext_head["predict"](states, visible, count), hidden)

    def check_visible(self, side: int) -> None:
        """Raises `ValueError` for an encoder that can't skip patches. Each size is tried once, and never on a compiled
        encoder."""
        if side not in self._sides and self.encoder._compiled_call_impl is None:
            check_skips(self.encoder, self.visible, side, self.patch)
            self._sides.add(side)

    # capabilities

    def ask(self, pixel_values: Tensor) -> Question:
        """Asks for the pixels of hidden patches, `(B, M, d)`, of images in which they are blank. Not for codes."""
        check_square(pixel_values)
        visible, hidden = self.draw(patchify(pixel_values, self.patch))
        inputs = {"pixel_values": blanked(pixel_values, hidden, self.patch), "visible": visible, "hidden": hidden}
        return Question(inputs, self.targets(pixel_values, hidden), 0)

    def answer(self, pixel_values: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Returns the predicted pixels of hidden patches, `(B, M, d)`. visible, hidden: see `draw`."""
        encode = self.encode_visible if self.task.visible_only else self.encode_replaced
        return widened(encode(pixel_values, patchify(pixel_values, self.patch), visible, hidden)[1])

    def targets(self, pixel_values: Tensor, hidden: Tensor, softening: float = EPSILON) -> Tensor:
        """Returns the pixels of hidden patches (`(B, M)`, indices) as they are predicted, `(B, M, d)`: with
        `normalize_patches`, as `patches.normalised` does."""
        values = widened(selected(patchify(pixel_values, self.patch), hidden))
        return normalised(values, softening) if self.task.normalize_patches else values

    def illustrate(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Returns images `(B, 3, S, S)`, with their hidden patches in grey, and with the predicted patches. Predicted
        patches of `normalize_patches` get the mean and the contrast of the true ones; codes are not drawn."""
        patches = patchify(pixel_values, self.patch)
        _, hidden = self.draw(patches)
        masked = blanked(pixel_values, hidden, self.patch)
        if self.task.target == "codes":
            return {"image": pixel_values, "hidden patches": masked}
        predicted = self(pixel_values=pixel_values).logits
        if self.task.normalize_patches:
            true = selected(patches, hidden)
            predicted = predicted * (true.var(-1, keepdim=True) + EPSILON).sqrt() + true.mean(-1, keepdim=True)
        index = hidden[..., None].expand_as(predicted)
        completed = unpatchify(patches.scatter(1, index, predicted.to(patches.dtype)), self.patch)
        return {"image": pixel_values, "hidden patches": masked, "predicted patches": completed}


def patch_of(task: MaskedImageTask, encoder: PreTrainedModel) -> int:
    """Returns the side of a patch in pixels. Raises `ValueError` for an encoder without patches, or with patches of
    another size, if it must skip some."""
    patch = patch_side(encoder)
    if task.visible_only:
        embeddings_of(encoder)
    if task.visible_only and task.patch_size not in (None, patch):
        raise ValueError(
            f"patch_size is {task.patch_size}, but {type(encoder).__name__} has patches of {patch} pixels, and with "
            "visible_only they must be the same. Leave patch_size out."
        )
    return task.patch_size or patch or PATCH
