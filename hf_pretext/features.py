"""Extracts one feature vector per example from any layer of any encoder.

encoder(batch) -> hidden states (B, tokens, width) or (B, width, height, width) -> pooled (B, width)
video (B, F, C, H, W) to an image encoder -> hidden states of each frame -> pooled (B * F, width) -> mean (B, width)
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .encoders import takes_images
from .utils.progress import progress

Pooling = Literal["mean", "cls"]
CLASS_TOKENS = 2  # maximum before the patches of an image: DeiT has a second one, for distillation


def width(encoder: PreTrainedModel) -> int:
    """Returns the channels of an encoder's last hidden state. Raises `ValueError` if its config does not name them."""
    if hasattr(encoder, "timm_model"):
        return encoder.timm_model.num_features
    for name in ("hidden_size", "hidden_sizes", "d_model"):
        value = getattr(encoder.config, name, None)
        if value is not None:
            return value[-1] if isinstance(value, (list, tuple)) else value
    raise ValueError(f"The width of {type(encoder).__name__} is unknown: its config has no hidden_size. Set it.")


def positions(encoder: PreTrainedModel) -> tuple[int, int | None]:
    """Returns the index of a text's first position, and the maximum number of positions (None: no limit).

    RoBERTa-like models reserve the first positions for padding."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return first, module.num_embeddings - first
    return 0, getattr(encoder.config, "max_position_embeddings", None)


def pool(hidden: Tensor, attention_mask: Tensor | None = None, pooling: Pooling = "mean") -> Tensor:
    """Pools hidden states to one vector per example.

    hidden (`(batch, tokens, channels)` or `(batch, channels, height, width)`): feature maps are averaged over height
        and width.
    attention_mask (`(batch, tokens)`): 1 or True for tokens in the mean. Default: all tokens.
    pooling: "mean" over all tokens, or "cls" for the first token.
    Returns `(batch, channels)`. Raises `ValueError` for "cls" on feature maps, which have no class token.
    """
    if hidden.ndim == 4:
        if pooling == "cls":
            raise ValueError(
                "pooling='cls' needs an encoder with a class token, but this one returns feature maps. Use 'mean'."
            )
        return hidden.mean(dim=(2, 3))
    if pooling == "cls":
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.mean(dim=1)
    weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def prefix_tokens(encoder: PreTrainedModel) -> int:
    """Returns the number of tokens before the patches of an image that an encoder's config names: register tokens, and
    for timm's ViTs also the class token."""
    registers = getattr(encoder.config, "num_register_tokens", 0)
    return getattr(getattr(encoder, "timm_model", None), "num_prefix_tokens", registers)


def last_hidden(encoder: PreTrainedModel, outputs) -> Tensor:
    """Returns the last hidden state. Feature maps are `(batch, channels, height, width)`, also from timm models."""
    hidden = outputs.last_hidden_state
    if hidden.ndim == 4 and getattr(getattr(encoder, "timm_model", None), "output_fmt", "NCHW") == "NHWC":
        return hidden.permute(0, 3, 1, 2)
    return hidden


def frames_as_images(encoder: PreTrainedModel, batch: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], int | None]:
    """Returns a batch with the frames of its videos as separate images, if the encoder takes images, and the number of
    frames of a video. Returns any other batch unchanged, and None.

    batch: with pixel_values `(B, F, C, H, W)` if it has videos; these become `(B * F, C, H, W)`."""
    pixels = batch.get("pixel_values")
    if pixels is None or pixels.ndim != 5 or not takes_images(encoder, pixels.shape[2]):
        return batch, None
    return {**batch, "pixel_values": pixels.flatten(0, 1)}, pixels.shape[1]


def encode(
    encoder: PreTrainedModel,
    layers: Sequence[int] = (-1,),
    pooling: Pooling = "mean",
    *,
    average_frames: bool = True,
    **batch: Tensor,
) -> dict[int, Tensor]:
    """Returns the pooled features of a batch from each of `layers`.

    layers: -1 is the encoder's output (after its last norm), -2 the stage or block before the last, and so on.
    batch: inputs of the encoder, e.g. `pixel_values`, or `input_ids` and `attention_mask`. An image encoder also takes
        videos, pixel_values `(B, F, C, H, W)`: the features of each layer are averaged over the frames.
    average_frames: False returns the features of each frame instead, `(batch, F, channels)`.
    Returns `{layer: (batch, channels)}`.
    """
    count = len(next(iter(batch.values())))
    batch, _ = frames_as_images(encoder, batch)
    inner = any(layer != -1 for layer in layers)
    outputs = encoder(**batch, **({"output_hidden_states": True} if inner else {}))
    pooled = {}
    for layer in layers:
        hidden = last_hidden(encoder, outputs) if layer == -1 else outputs.hidden_states[layer]
        features = pool(hidden, mask_of(encoder, hidden, batch.get("attention_mask")), pooling)
        # of videos, several rows each: frames, and in VideoPrism's inner layers frames or places
        pooled[layer] = features if len(features) == count else features.unflatten(0, (count, -1))
        if pooled[layer].ndim == 3 and average_frames:
            pooled[layer] = pooled[layer].mean(1)
    return pooled


def mask_of(encoder: PreTrainedModel, hidden: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    """Returns the attention mask of hidden states, `(batch, tokens)`, or None if the encoder has no mask for them.

    hidden: `(batch, tokens, channels)`. attention_mask (`(batch, length)`): mask of the inputs; raw-audio encoders
    downsample it.
    """
    if attention_mask is None or hidden.ndim != 3 or attention_mask.shape == hidden.shape[:2]:
        return attention_mask if hidden.ndim == 3 else None
    if hidden.shape[1] == attention_mask.shape[1] + 1:  # VideoPrism's text encoder appends a class token
        return F.pad(attention_mask, (0, 1), value=1)
    shortened = getattr(encoder, "_get_feature_vector_attention_mask", None)
    if shortened is None or hidden.shape[1] > attention_mask.shape[1]:
        return None
    return shortened(hidden.shape[1], attention_mask)


def num_layers(encoder: PreTrainedModel, **batch: Tensor) -> int:
    """Returns the number of layers that `encode` can read, including the encoder's output."""
    batch, _ = frames_as_images(encoder, batch)
    return len(encoder(**batch, output_hidden_states=True).hidden_states)


@torch.no_grad()
def extract(
    encoder: PreTrainedModel,
    loader: Iterable[dict[str, Tensor]],
    layers: Sequence[int] | Literal["all"] = (-1,),
    pooling: Pooling = "mean",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    description: str | None = "features",
) -> dict[int, Tensor]:
    """Extracts the features of a dataset, from all layers in one pass.

    loader: batches of the encoder's inputs. layers: see `encode`, or "all". device: default: the device of the encoder.
    dtype: dtype of autocast, e.g. `torch.bfloat16`; None runs without autocast. description: text of the progress bar;
    None shows no bar.
    Returns `{layer: (examples, channels)}` in float32 on the CPU. Raises `ValueError` for an empty loader.
    """
    device = torch.device(device) if device is not None else encoder.device
    training = encoder.training
    encoder.to(device).eval()
    parts: dict[int, list[Tensor]] = {}
    for batch in progress(loader, description, shown=description is not None):
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            if layers == "all":
                layers = range(-num_layers(encoder, **batch), 0)
            for layer, value in encode(encoder, layers, pooling, **batch).items():
                parts.setdefault(layer, []).append(value.float().cpu())
    encoder.train(training)
    if not parts:
        raise ValueError("No features to extract: the loader gave no batch. Check that the dataset is not empty.")
    return {layer: torch.cat(values) for layer, values in parts.items()}
