"""One vector per example from any encoder, of any layer.

encoder(batch) -> hidden states (B, tokens, width) or (B, width, height, width) -> pooled (B, width)
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Pooling = Literal["mean", "cls"]


def width(encoder: PreTrainedModel) -> int:
    """Channels of an encoder's last hidden state. Raises `ValueError` where its config does not tell."""
    if hasattr(encoder, "timm_model"):
        return encoder.timm_model.num_features
    for name in ("hidden_size", "hidden_sizes", "d_model"):
        value = getattr(encoder.config, name, None)
        if value is not None:
            return value[-1] if isinstance(value, (list, tuple)) else value
    raise ValueError(f"Can't tell the width of {type(encoder).__name__}: its config has no hidden_size.")


def positions(encoder: PreTrainedModel) -> tuple[int, int | None]:
    """The number of a text's first position, and how many a text may take; None where any number fits.

    RoBERTa and its like keep the first ones for padding."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return first, module.num_embeddings - first
    return 0, getattr(encoder.config, "max_position_embeddings", None)


def pool(hidden: Tensor, attention_mask: Tensor | None = None, pooling: Pooling = "mean") -> Tensor:
    """Hidden states to one vector per example.

    hidden (`(batch, tokens, channels)` or `(batch, channels, height, width)`): maps are averaged over their area.
    attention_mask (`(batch, tokens)`): tokens that count in the mean; 1 or True for those that do.
    pooling: "mean" over all tokens, or "cls" for the first one.
    Returns `(batch, channels)`. Raises `ValueError` for the class token of a map, which has none.
    """
    if hidden.ndim == 4:
        if pooling == "cls":
            raise ValueError("pooling='cls' needs an encoder with a class token, but this one gives maps: use 'mean'.")
        return hidden.mean(dim=(2, 3))
    if pooling == "cls":
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.mean(dim=1)
    weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def last_hidden(encoder: PreTrainedModel, outputs) -> Tensor:
    """The last hidden state, with maps as `(batch, channels, height, width)` also where timm keeps channels last."""
    hidden = outputs.last_hidden_state
    if hidden.ndim == 4 and getattr(getattr(encoder, "timm_model", None), "output_fmt", "NCHW") == "NHWC":
        return hidden.permute(0, 3, 1, 2)
    return hidden


def encode(encoder: PreTrainedModel, layers: Sequence[int] = (-1,), pooling: Pooling = "mean", **batch: Tensor):
    """Pooled features of a batch at each of `layers`.

    layers: -1 is the encoder's output (after its last norm); -2 the stage or block before the last, and so on down.
    batch: the encoder's own inputs, as `pixel_values` or `input_ids` and `attention_mask`.
    Returns `{layer: (batch, channels)}`.
    """
    inner = any(layer != -1 for layer in layers)
    outputs = encoder(**batch, **({"output_hidden_states": True} if inner else {}))
    pooled = {}
    for layer in layers:
        hidden = last_hidden(encoder, outputs) if layer == -1 else outputs.hidden_states[layer]
        pooled[layer] = pool(hidden, mask_of(encoder, hidden, batch.get("attention_mask")), pooling)
    return pooled


def mask_of(encoder: PreTrainedModel, hidden: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    """Which hidden states (`(batch, tokens, channels)`) are of real inputs, `(batch, tokens)`; None where the encoder
    does not keep that apart. attention_mask (`(batch, length)`): of the inputs; encoders of raw sound shorten them.
    """
    if attention_mask is None or hidden.ndim != 3 or attention_mask.shape == hidden.shape[:2]:
        return attention_mask if hidden.ndim == 3 else None
    shortened = getattr(encoder, "_get_feature_vector_attention_mask", None)
    if shortened is None or hidden.shape[1] > attention_mask.shape[1]:
        return None
    return shortened(hidden.shape[1], attention_mask)


def num_layers(encoder: PreTrainedModel, **batch: Tensor) -> int:
    """How many layers `encode` can read, the encoder's output included."""
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
    """Features of a whole dataset, all layers in one pass.

    loader: batches of the encoder's inputs. layers: see `encode`, or "all". dtype: run in this precision under
    autocast (`torch.bfloat16`). description: what the progress bar says, or None for no bar.
    Returns `{layer: (examples, channels)}` in float32 on the CPU. Raises `ValueError` when the loader is empty.
    """
    from tqdm.auto import tqdm

    device = torch.device(device) if device is not None else encoder.device
    training = encoder.training
    encoder.to(device).eval()
    parts: dict[int, list[Tensor]] = {}
    for batch in tqdm(loader, desc=description, disable=description is None, leave=False):
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            if layers == "all":
                layers = range(-num_layers(encoder, **batch), 0)
            for layer, value in encode(encoder, layers, pooling, **batch).items():
                parts.setdefault(layer, []).append(value.float().cpu())
    encoder.train(training)
    if not parts:
        raise ValueError("There is nothing to extract features from: the loader gave no batch.")
    return {layer: torch.cat(values) for layer, values in parts.items()}
