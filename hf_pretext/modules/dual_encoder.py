"""Dual encoders: shared code of objectives with an image encoder and a text encoder.

image encoder, text encoder -> VisionTextDualEncoderModel; inputs (B, ...) -> a piece at a time -> embeddings (B, D)
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from ..encoders import as_encoder, check_encoder, image_sides
from ..features import width
from ..modeling import PretextModel
from ..utils.ranks import rank_and_ranks
from .losses import widened

HIGHEST_SCALE = 100.0  # maximum logit scale, as in CLIP
GOOD = {"image": "ViT, Swin, ConvNeXt, or timm's through transformers", "text": "BERT, RoBERTa or CLIP's text model"}

USAGE = """
{% set padding = "True" if padded.startswith("to the longest") else '"max_length", max_length=' ~ max_length | int %}
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

processor = AutoProcessor.from_pretrained("{{ folder }}")
model = AutoModel.from_pretrained("{{ folder }}")
image = Image.new("RGB", (200, 100), "red")  # or your image: Image.open("image.png").convert("RGB")
images = processor(images=[image], return_tensors="pt")
texts = processor(text=["a cat", "a red car"], padding={{ padding }}, return_tensors="pt")
with torch.no_grad():
    image_embeds = model.get_image_features(**images).pooler_output
    text_embeds = model.get_text_features(**texts).pooler_output
    hidden = model.vision_model(**images{{ hidden_of }}
print("cosines", torch.nn.functional.cosine_similarity(image_embeds, text_embeds))
print("features of the image", hidden{{ pooled }}.shape)  # input of the linear probe under "Transfer"
{% if padded.startswith("to the longest") %}

classify = pipeline("zero-shot-image-classification", model="{{ folder }}")
# the pipeline works even if transformers logs that it does not support the model
print(classify(image, candidate_labels=["cat", "car"], hypothesis_template="{}"))
{% if objective.loss is defined and objective.loss == "sigmoid" %}
# the pipeline applies a softmax: its order is right, but sigmoid scores need the embeddings, normalised to length 1
{% endif %}
{% endif %}
"""


class TwoTowers(PretextModel):
    """Base of objectives with an image encoder and a text encoder that embed into one space.

    `from_encoders` joins two encoders in transformers' `VisionTextDualEncoderModel`. `from_encoder` takes a
    `CLIPModel`, `SiglipModel`, `Siglip2Model`, `AlignModel` or `ChineseCLIPModel`, or its config. The checkpoint has
    the class of that model: `AutoModel` and `pipeline("zero-shot-image-classification")` load it.
    """

    inputs = ("image", "text")
    pipeline_tag = "zero-shot-image-classification"
    usage = USAGE

    @classmethod
    def from_encoders(
        cls,
        image: PreTrainedModel | PreTrainedConfig,
        text: PreTrainedModel | PreTrainedConfig,
        projection_dim: int = 512,
        **settings,
    ) -> "TwoTowers":
        """Joins two encoders, or new encoders of given configs, with new projections to `projection_dim` and a new
        logit scale.

        Raises `ValueError` for an encoder that `VisionTextDualEncoderModel` can't store. The message names some that it
        can store."""
        return cls.from_encoder(dual_encoder(image, text, projection_dim), **settings)

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """Returns a model that embeds images and texts. Raises `ValueError` for any other model."""
        full_model = as_encoder(encoder)
        if not all(hasattr(full_model, name) for name in ("get_image_features", "get_text_features", "vision_model")):
            raise ValueError(
                f"{type(full_model).__name__} does not embed images and texts. Give a CLIPModel, SiglipModel, "
                f"AlignModel or ChineseCLIPModel, or two encoders to {cls.__name__}.from_encoders."
            )
        return full_model

    @classmethod
    def with_encoders(
        cls, config: VisionTextDualEncoderConfig, encoders: Mapping[str, PreTrainedConfig]
    ) -> VisionTextDualEncoderConfig:
        """See `PretextModel.with_encoders`."""
        towers = {"image": config.vision_config, "text": config.text_config, **encoders}
        return dual_encoder(towers["image"], towers["text"], config.projection_dim).config

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The image encoder and the text encoder, without their projections."""
        return {"image": self.full_model.vision_model, "text": self.full_model.text_model}


def scale_of(full_model: nn.Module) -> Tensor:
    """Returns the logit scale of a model of images and texts, the factor of its scores: `()`."""
    logarithm = getattr(full_model, "logit_scale", None)
    return (1 / full_model.temperature if logarithm is None else logarithm.exp()).reshape(())


@torch.no_grad()
def clamp_scale(full_model: nn.Module, bounded: bool = True) -> None:
    """Clamps the logit scale to at most `HIGHEST_SCALE`.

    Changes the parameter in place: a clamped output would pass no gradient, and the scale could not decrease again. A
    temperature (1 / scale) is always clamped, because it could fall to 0. bounded: also clamps the logarithm of a
    scale."""
    logarithm = getattr(full_model, "logit_scale", None)
    if logarithm is None:
        full_model.temperature.clamp_(min=1 / HIGHEST_SCALE)
    elif bounded:
        logarithm.clamp_(max=math.log(HIGHEST_SCALE))


def normalised(embeddings: Tensor) -> Tensor:
    """Normalises embeddings `(B, D)` to length 1, in float32 or higher precision.

    Training in bf16 needs this too: its 8 bits of precision would change the scores."""
    return F.normalize(widened(embeddings), dim=-1)


def check_pairs(images: Tensor, texts: Tensor, labels: Tensor | None, training: bool) -> None:
    """Raises `ValueError` for embeddings of images and captions of different number or width, for a different number of
    labels, and for a global training batch of one pair."""
    check_counts(images, texts)
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"Image embeddings have width {images.shape[1]}, but caption embeddings have width {texts.shape[1]}. Give "
            "both encoders projections of the same width (projection_dim)."
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} pairs came with {len(labels)} labels. Give one label per pair.")
    if training and len(images) * rank_and_ranks()[1] < 2:
        raise ValueError(
            f"Contrastive loss needs at least 2 pairs per global batch, but got {len(images)}. Give a larger "
            "--per_device_train_batch_size."
        )


def check_counts(images: Tensor, texts: Tensor) -> None:
    """Raises `ValueError` for different numbers of images and captions."""
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} images came with {len(texts)} captions. Give one caption per image.")


def pair_labels(labels: Tensor | None, count: int, device: torch.device, training: bool) -> Tensor:
    """Returns the labels of this rank's pairs, `(count,)`. Without labels, every pair gets a different one.

    training: True numbers the pairs of all ranks; False those of this rank only, because ranks evaluate separately."""
    rank = rank_and_ranks()[0] if training else 0
    return torch.arange(rank * count, (rank + 1) * count, device=device) if labels is None else labels


def dual_encoder(
    image: PreTrainedModel | PreTrainedConfig, text: PreTrainedModel | PreTrainedConfig, projection_dim: int
) -> VisionTextDualEncoderModel:
    """Joins two encoders, or new encoders of given configs, in one transformers model with new projections.

    The encoders are not copied, so they are trained in place. Raises `ValueError` for encoders of different dtypes, and
    for an encoder that this class can't store. The message names some that it can store."""
    image, text = (as_encoder(t) for t in (image, text))
    check_encoder(image, "image")
    check_encoder(text, "text")
    if image.dtype != text.dtype:
        raise ValueError(
            f"The image encoder has dtype {image.dtype}, but the text encoder has {text.dtype}. Give both in one dtype."
        )
    image.config = copy.deepcopy(image.config)
    image.config.hidden_size = width(image)  # some lack it, but the projection takes its width from here
    check_pooled(image, "image", pixel_values=blank(image))
    check_pooled(text, "text", input_ids=torch.ones(2, 4, dtype=torch.long, device=text.device))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        image.config, text.config, projection_dim=projection_dim
    )
    return VisionTextDualEncoderModel(config, image, text).to(image.dtype)  # also converts the projections


@torch.no_grad()
def check_pooled(tower: PreTrainedModel, kind: str, **inputs: Tensor) -> None:
    """Raises `ValueError` for an encoder whose pooled output is not one vector of its width per input."""
    training = tower.training
    pooled = getattr(tower.eval()(**inputs), "pooler_output", None)
    tower.train(training)
    if not isinstance(pooled, Tensor) or pooled.shape[1:] != (width(tower),):
        gives = f"vectors of shape {tuple(pooled.shape[1:])}" if isinstance(pooled, Tensor) else "no pooled output"
        raise ValueError(
            f"{type(tower).__name__} gives {gives}, but VisionTextDualEncoderModel needs pooled outputs of shape "
            f"({width(tower)},). Give another {kind} encoder, for example {GOOD[kind]}."
        )


def blank(tower: PreTrainedModel) -> Tensor:
    """Returns two images of zeros, `(2, 3, H, W)`, of a size that the encoder takes."""
    (side,) = image_sides(tower)
    return torch.zeros(2, 3, *side, dtype=tower.dtype, device=tower.device)


def in_pieces(embed: Callable[..., Tensor], size: int | None, tower: nn.Module, *inputs: Tensor) -> Tensor:
    """Computes `embed(*inputs)` for at most `size` rows at a time, to save memory. size: None for all rows at once.

    Activations are not stored. The backward pass computes those of each piece again, with the same random numbers
    (GradCache, Gao et al. 2021, https://huggingface.co/papers/2101.06983). Batch norm normalises each piece separately,
    and updates its running statistics once per piece. A frozen encoder stores no activations and computes each piece
    once."""
    if size is None or len(inputs[0]) <= size:
        return embed(*inputs)
    pieces = zip(*(value.split(size) for value in inputs), strict=True)
    if not any(parameter.requires_grad for parameter in tower.parameters()):
        return torch.cat([embed(*piece) for piece in pieces])

    def contexts():
        return nullcontext(), StatisticsKept(tower)  # of the first pass, and of each recomputation

    return torch.cat([checkpoint(embed, *piece, use_reentrant=False, context_fn=contexts) for piece in pieces])


def batch_norms(tower: nn.Module) -> list[_BatchNorm]:
    """Returns the batch norm layers of an encoder that keep running statistics."""
    return [module for module in tower.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def batch_norm_note(model: PretextModel, batch_size: int) -> str | None:
    """Returns a note if the batch norm of an encoder is computed on pieces of a batch; None otherwise."""
    piece, frozen = getattr(model.task, "embed_batch_size", None), getattr(model.task, "frozen", None)
    trained = [encoder for kind, encoder in model.encoders.items() if kind != frozen]
    if piece and piece < batch_size and any(map(batch_norms, trained)):
        return f"--embed_batch_size {piece}: batch norm normalises each piece of {piece} separately."
    return None


class StatisticsKept:
    """Context manager that keeps batch norm's running statistics unchanged.

    It can be entered several times: backward may run twice through the same graph."""

    def __init__(self, tower: nn.Module):
        self.norms = batch_norms(tower)

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


@contextmanager
def dropped_patches(tower: PreTrainedModel, share: float) -> Iterator[None]:
    """Context manager in which a ViT drops random patches of each image (FLIP, Li et al. 2023,
    https://huggingface.co/papers/2212.00794).

    share: share of patches that are dropped. Raises `ValueError` for an encoder that is not a ViT."""
    if not share:
        yield
        return
    embeddings = getattr(tower, "embeddings", None)
    parts = (embeddings, getattr(embeddings, "patch_embeddings", None))
    counted = next((part for part in parts if hasattr(part, "num_patches")), None)
    refusal = (
        f"patch_dropout={share} needs an image encoder with a sequence of patches, but got {type(tower).__name__}. Use "
        "a ViT, or set patch_dropout=0."
    )
    if counted is None:
        raise ValueError(refusal)

    def drop(module, arguments, tokens):
        if not isinstance(tokens, Tensor):
            raise ValueError(refusal)
        first = max(tokens.shape[1] - counted.num_patches, 0)  # class tokens and other tokens that are not patches
        draw = torch.rand(len(tokens), tokens.shape[1] - first, device=tokens.device)
        kept = draw.argsort(1)[:, : max(1, round(draw.shape[1] * (1 - share)))] + first
        patches = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        return torch.cat([tokens[:, :first], patches], dim=1)

    handle = embeddings.register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()


def image_inputs(model: PreTrainedModel, pixel_values: Tensor) -> dict[str, Tensor]:
    """Returns the arguments of `get_image_features` for images `(B, 3, H, W)`. SigLIP 2 takes images as patches."""
    if "spatial_shapes" not in signature(model.get_image_features).parameters:
        return {"pixel_values": pixel_values}
    side = model.config.vision_config.patch_size
    batch, _, height, width = pixel_values.shape
    rows, columns = height // side, width // side
    patches = pixel_values[:, :, : rows * side, : columns * side].unfold(2, side, side).unfold(3, side, side)
    patches = patches.permute(0, 2, 3, 4, 5, 1).reshape(batch, rows * columns, -1)  # (B, patches, side * side * 3)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device),
        "spatial_shapes": torch.tensor([[rows, columns]], device=patches.device).expand(batch, 2),
    }
