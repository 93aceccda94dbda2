"""Two encoders side by side: what objectives with an image tower and a text tower share.

image, text -> VisionTextDualEncoderModel; inputs (B, ...) -> a piece at a time -> embeddings (B, D)
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

from ..encoders import build_encoder, check_encoder, image_sides
from ..features import width
from ..modeling import PretextModel
from .distributed import rank_and_ranks

HIGHEST_SCALE = 100.0  # of the scores, CLIP's
GOOD = {"image": "ViT, Swin, ConvNeXt, or timm's through transformers", "text": "BERT, RoBERTa or CLIP's text model"}

USAGE = """
{% set padding = "True" if padded.startswith("to the longest") else '"max_length", max_length=' ~ max_length | int %}
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

processor = AutoProcessor.from_pretrained("{{ folder }}")
model = AutoModel.from_pretrained("{{ folder }}")
picture = Image.new("RGB", (200, 100), "red")  # yours: Image.open("picture.png").convert("RGB")
pictures = processor(images=[picture], return_tensors="pt")
texts = processor(text=["a cat", "a red car"], padding={{ padding }}, return_tensors="pt")
with torch.no_grad():
    image = model.get_image_features(**pictures).pooler_output
    text = model.get_text_features(**texts).pooler_output
    hidden = model.vision_model(**pictures{{ hidden_of }}
print("cosines", torch.nn.functional.cosine_similarity(image, text))
print("features of the picture", hidden{{ pooled }}.shape)  # what the linear probe under "Transfer" reads
{% if padded.startswith("to the longest") %}

classify = pipeline("zero-shot-image-classification", model="{{ folder }}")  # it knows the class, whatever it logs
print(classify(picture, candidate_labels=["cat", "car"], hypothesis_template="{}"))
{% if objective.loss is defined and objective.loss == "sigmoid" %}
# its order is right, but its scores are a softmax: for a sigmoid's take the embeddings, of length 1
{% endif %}
{% endif %}
"""


class TwoTowers(PretextModel):
    """Base of objectives with an image tower and a text tower that embed into one space.

    `from_encoders` puts two encoders side by side, as transformers' `VisionTextDualEncoderModel`; `from_encoder` takes
    a `CLIPModel`, `SiglipModel`, `Siglip2Model`, `AlignModel` or `ChineseCLIPModel` as it is, or its config. The
    checkpoint is that class's: `AutoModel` and `pipeline("zero-shot-image-classification")` load it.
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
        """Two encoders, or configs of fresh ones, with fresh projections to `projection_dim` and a fresh temperature.

        Raises `ValueError` for a tower that transformers can't store in a pair, naming some that it can."""
        return cls.from_encoder(dual_encoder(image, text, projection_dim), **settings)

    @classmethod
    def native(cls, encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
        """A model of images and texts. Raises `ValueError` for what embeds no such pairs."""
        full_model = build_encoder(encoder) if isinstance(encoder, PreTrainedConfig) else encoder
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
        """As `PretextModel.with_encoders`."""
        towers = {"image": config.vision_config, "text": config.text_config, **encoders}
        return dual_encoder(towers["image"], towers["text"], config.projection_dim).config

    @property
    def encoders(self) -> dict[str, PreTrainedModel]:
        """The towers, without their projections."""
        return {"image": self.full_model.vision_model, "text": self.full_model.text_model}


def scale_of(full_model: nn.Module) -> Tensor:
    """What a model of images and texts multiplies scores with: `()`."""
    logarithm = getattr(full_model, "logit_scale", None)
    return (1 / full_model.temperature if logarithm is None else logarithm.exp()).reshape(())


@torch.no_grad()
def clamp_scale(full_model: nn.Module, bounded: bool = True) -> None:
    """Keeps the scale at most at `HIGHEST_SCALE`: the parameter itself, so that it can come back. A temperature, which
    could fall to 0, is kept so in any case; the logarithm of a scale where it is to be `bounded`."""
    logarithm = getattr(full_model, "logit_scale", None)
    if logarithm is None:
        full_model.temperature.clamp_(min=1 / HIGHEST_SCALE)
    elif bounded:
        logarithm.clamp_(max=math.log(HIGHEST_SCALE))


def normalised(embeddings: Tensor) -> Tensor:
    """To length 1, in float32 or better, also in training in bf16: its eight binary digits would move the scores."""
    return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)


def check_pairs(images: Tensor, texts: Tensor, labels: Tensor | None, training: bool) -> None:
    """Raises `ValueError` for embeddings of images and captions that do not pair, or can't be compared."""
    check_counts(images, texts)
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"Images are embedded in {images.shape[1]} numbers, captions in {texts.shape[1]}: give the towers "
            "projections of one width (projection_dim)."
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} pairs came with {len(labels)} labels: each needs its own.")
    if training and len(images) * rank_and_ranks()[1] < 2:
        raise ValueError(
            "A batch of one pair has nothing to compare it with. Give more: --per_device_train_batch_size."
        )


def check_counts(images: Tensor, texts: Tensor) -> None:
    """Raises `ValueError` for images and captions that do not pair."""
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} images came with {len(texts)} captions: each needs its own.")


def pair_labels(labels: Tensor | None, count: int, device: torch.device, training: bool) -> Tensor:
    """Labels of this rank's pairs, `(count,)`: each pair its own where there are none. In `eval()` each rank has its
    own batch alone."""
    rank = rank_and_ranks()[0] if training else 0
    return torch.arange(rank * count, (rank + 1) * count, device=device) if labels is None else labels


def dual_encoder(
    image: PreTrainedModel | PreTrainedConfig, text: PreTrainedModel | PreTrainedConfig, projection_dim: int
) -> VisionTextDualEncoderModel:
    """Two encoders (trained in place), or configs of fresh ones, as one transformers model with fresh projections.

    Raises `ValueError` for a tower that this class can't hold, naming some that it can, and for towers of two types of
    numbers."""
    image, text = (build_encoder(t) if isinstance(t, PreTrainedConfig) else t for t in (image, text))
    check_encoder(image, "image")
    check_encoder(text, "text")
    if image.dtype != text.dtype:
        raise ValueError(f"The image tower is in {image.dtype}, the text tower in {text.dtype}: give both in one.")
    image.config = copy.deepcopy(image.config)
    image.config.hidden_size = width(image)  # some have none; the projection's width is read from there, and saved
    check_pooled(image, "image", pixel_values=blank(image))
    check_pooled(text, "text", input_ids=torch.ones(2, 4, dtype=torch.long, device=text.device))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        image.config, text.config, projection_dim=projection_dim
    )
    return VisionTextDualEncoderModel(config, image, text).to(image.dtype)  # the projections, too


@torch.no_grad()
def check_pooled(tower: PreTrainedModel, kind: str, **inputs: Tensor) -> None:
    """Raises `ValueError` for a tower that does not pool its input to one vector of its width."""
    training = tower.training
    pooled = getattr(tower.eval()(**inputs), "pooler_output", None)
    tower.train(training)
    if not isinstance(pooled, Tensor) or pooled.shape[1:] != (width(tower),):
        gives = f"vectors of shape {tuple(pooled.shape[1:])}" if isinstance(pooled, Tensor) else "no pooled output"
        raise ValueError(
            f"{type(tower).__name__} gives {gives}, so transformers can't put it into a pair of towers "
            f"(VisionTextDualEncoderModel wants ({width(tower)},)). Take {GOOD[kind]}."
        )


def blank(tower: PreTrainedModel) -> Tensor:
    """Two images of a size that a tower takes, all zero."""
    (side,) = image_sides(tower)
    return torch.zeros(2, 3, *side, dtype=tower.dtype, device=tower.device)


def in_pieces(embed: Callable[..., Tensor], size: int | None, tower: nn.Module, *inputs: Tensor) -> Tensor:
    """`embed(*inputs)`, at most `size` rows at a time; each piece's activations are computed again, with the same
    random numbers, when its gradient is asked for (GradCache, Gao et al. 2021,
    https://huggingface.co/papers/2101.06983).

    Batch norm normalises each piece by itself, and counts it once into its running statistics. A frozen tower keeps no
    activations, and goes through each piece once."""
    if size is None or len(inputs[0]) <= size:
        return embed(*inputs)
    pieces = zip(*(value.split(size) for value in inputs), strict=True)
    if not any(parameter.requires_grad for parameter in tower.parameters()):
        return torch.cat([embed(*piece) for piece in pieces])

    def contexts():
        return nullcontext(), StatisticsKept(tower)  # of the first pass, and of each further one

    return torch.cat([checkpoint(embed, *piece, use_reentrant=False, context_fn=contexts) for piece in pieces])


def batch_norms(tower: nn.Module) -> list[_BatchNorm]:
    """Those of its layers that keep running statistics."""
    return [module for module in tower.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


class StatisticsKept:
    """Within it, batch norm's running statistics stay as they are. Can be entered again: a graph may be gone through
    twice."""

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
    """Meanwhile a ViT sees only some of its patches, drawn for each image (FLIP, Li et al. 2023,
    https://huggingface.co/papers/2212.00794). Raises `ValueError` for what is no ViT."""
    if not share:
        yield
        return
    embeddings = getattr(tower, "embeddings", None)
    parts = (embeddings, getattr(embeddings, "patch_embeddings", None))
    counted = next((part for part in parts if hasattr(part, "num_patches")), None)
    refusal = (
        f"patch_dropout needs a tower whose patches are a sequence, as a ViT, but this is a {type(tower).__name__}."
    )
    if counted is None:
        raise ValueError(refusal)

    def drop(module, arguments, tokens):
        if not isinstance(tokens, Tensor):
            raise ValueError(refusal)
        first = max(tokens.shape[1] - counted.num_patches, 0)  # class tokens and the like
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
    """What `get_image_features` takes of images `(B, 3, S, S)`: SigLIP 2 wants them cut into patches."""
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
