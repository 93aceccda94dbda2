"""Names of weights in transformers and in open_clip.

CLIPModel, SiglipModel -> pairs of names -> state dict with the names of the other library, {name: tensor}
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import CLIPModel, SiglipModel

PARTS = ("self_attn.out_proj", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")  # of a layer in transformers
# the first name is the concatenation of queries, keys and values
OPEN_CLIP = ("attn.in_proj_", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
TIMM = ("attn.qkv.", "attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2")


class Same(NamedTuple):
    """Names of the same weights in two models.

    ours, theirs: the names in each model. Several names stand for one concatenated weight. turned: True if one weight
    is the transpose of the other."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    turned: bool = False

    def back(self) -> "Same":
        """Returns the pair in the other direction."""
        return Same(self.theirs, self.ours, self.turned)


def weight_and_bias(ours: str, theirs: str, *ends: str) -> Iterator[Same]:
    """Yields pairs for one module with several parameter names, default `weight` and `bias`."""
    for end in ends or ("weight", "bias"):
        yield Same((f"{ours}.{end}",), (f"{theirs}.{end}",))


def layer_names(ours: str, theirs: str, count: int, words: Sequence[str] = OPEN_CLIP) -> Iterator[Same]:
    """Yields pairs for the layers of a transformer. words: names of a layer's parts in the other library."""
    qkv, *parts = words
    for i in range(count):
        a, b = f"{ours}.{i}", f"{theirs}.{i}"
        for end in ("weight", "bias"):
            yield Same(tuple(f"{a}.self_attn.{part}_proj.{end}" for part in "qkv"), (f"{b}.{qkv}{end}",))
        for mine, other in zip(PARTS, parts, strict=True):
            yield from weight_and_bias(f"{a}.{mine}", f"{b}.{other}")


def clip_names(model: CLIPModel) -> Iterator[Same]:
    """Yields pairs for a `CLIPModel` and open_clip's `CLIP`. Projections are transposed."""
    seen = "vision_model"
    yield Same((f"{seen}.embeddings.class_embedding",), ("visual.class_embedding",))
    yield Same((f"{seen}.embeddings.patch_embedding.weight",), ("visual.conv1.weight",))
    yield Same((f"{seen}.embeddings.position_embedding.weight",), ("visual.positional_embedding",))
    yield from weight_and_bias(f"{seen}.pre_layrnorm", "visual.ln_pre")
    layers = model.config.vision_config.num_hidden_layers
    yield from layer_names(f"{seen}.encoder.layers", "visual.transformer.resblocks", layers)
    yield from weight_and_bias(f"{seen}.post_layernorm", "visual.ln_post")
    yield Same(("visual_projection.weight",), ("visual.proj",), turned=True)
    yield from clip_text_names(model.config.text_config.num_hidden_layers)
    yield Same(("logit_scale",), ("logit_scale",))


def clip_text_names(layers: int) -> Iterator[Same]:
    """Yields pairs for the text towers of a `CLIPModel` and open_clip's `CLIP`."""
    read = "text_model"
    yield Same((f"{read}.embeddings.token_embedding.weight",), ("token_embedding.weight",))
    yield Same((f"{read}.embeddings.position_embedding.weight",), ("positional_embedding",))
    yield from layer_names(f"{read}.encoder.layers", "transformer.resblocks", layers)
    yield from weight_and_bias(f"{read}.final_layer_norm", "ln_final")
    yield Same(("text_projection.weight",), ("text_projection",), turned=True)


def siglip_names(model: SiglipModel) -> Iterator[Same]:
    """Yields pairs for a `SiglipModel` and open_clip's `CustomTextCLIP`."""
    seen, read, trunk = "vision_model", "text_model", "visual.trunk"
    yield from weight_and_bias(f"{seen}.embeddings.patch_embedding", f"{trunk}.patch_embed.proj")
    yield Same((f"{seen}.embeddings.position_embedding.weight",), (f"{trunk}.pos_embed",))
    layers = model.config.vision_config.num_hidden_layers
    yield from layer_names(f"{seen}.encoder.layers", f"{trunk}.blocks", layers, TIMM)
    yield from weight_and_bias(f"{seen}.post_layernorm", f"{trunk}.norm")
    yield Same((f"{seen}.head.probe",), (f"{trunk}.attn_pool.latent",))
    for end in ("weight", "bias"):
        yield Same(
            (f"{seen}.head.attention.in_proj_{end}",), (f"{trunk}.attn_pool.q.{end}", f"{trunk}.attn_pool.kv.{end}")
        )
    yield from weight_and_bias(f"{seen}.head.attention.out_proj", f"{trunk}.attn_pool.proj")
    yield from weight_and_bias(f"{seen}.head.layernorm", f"{trunk}.attn_pool.norm")
    yield from weight_and_bias(f"{seen}.head.mlp.fc1", f"{trunk}.attn_pool.mlp.fc1")
    yield from weight_and_bias(f"{seen}.head.mlp.fc2", f"{trunk}.attn_pool.mlp.fc2")
    yield Same((f"{read}.embeddings.token_embedding.weight",), ("text.token_embedding.weight",))
    yield Same((f"{read}.embeddings.position_embedding.weight",), ("text.positional_embedding",))
    layers = model.config.text_config.num_hidden_layers
    yield from layer_names(f"{read}.encoder.layers", "text.transformer.resblocks", layers)
    yield from weight_and_bias(f"{read}.final_layer_norm", "text.ln_final")
    yield from weight_and_bias(f"{read}.head", "text.text_projection")
    yield Same(("logit_scale",), ("logit_scale",))
    yield Same(("logit_bias",), ("logit_bias",))


def renamed(
    source: dict[str, Tensor], target: dict[str, Tensor], pairs: Iterable[Same], kind: str
) -> dict[str, Tensor]:
    """Returns the weights of `source` with the names and shapes of `target`.

    pairs: names in `source` and in `target`. kind: class of the source, for messages. Raises `ValueError` for weights
    that only one of the two has, and for sizes that differ."""
    result, used = {}, set()
    for these, those, turned in pairs:
        lacking = [*(name for name in these if name not in source), *(name for name in those if name not in target)]
        if lacking:
            raise ValueError(f"{kind} can't be converted: the weights {', '.join(lacking)} are missing.")
        value = torch.cat([source[name] for name in these]) if len(these) > 1 else source[these[0]]
        value = value.T if turned else value
        parts = value.split([len(target[name]) for name in those]) if len(those) > 1 else [value]
        for name, part in zip(those, parts, strict=True):
            if part.numel() != target[name].numel():
                shapes = f"{these[0]} has shape {tuple(part.shape)}, but {name} has {tuple(target[name].shape)}"
                raise ValueError(f"{kind} can't be converted: {shapes}.")
            result[name] = part.reshape(target[name].shape).clone()
        used |= set(these)
    left = [*(name for name in source if name not in used), *(name for name in target if name not in result)]
    if left:
        raise ValueError(f"{kind} can't be converted: only one model has the weights {', '.join(left[:5])}.")
    return result
