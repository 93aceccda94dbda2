"""Which weights of open_clip's models are which of transformers'.

CLIPModel, SiglipModel -> pairs of names -> state dicts under the other's names, {name: tensor}
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import CLIPModel, SiglipModel

PARTS = ("self_attn.out_proj", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")  # of a layer of transformers'
OPEN_CLIP = ("attn.in_proj_", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")  # queries, keys, values first
TIMM = ("attn.qkv.", "attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2")


class Same(NamedTuple):
    """Weights that hold the same numbers, one after the other; turned where one is the other's transpose."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    turned: bool = False

    def back(self) -> "Same":
        return Same(self.theirs, self.ours, self.turned)


def weight_and_bias(ours: str, theirs: str, *ends: str) -> Iterator[Same]:
    """The same name with several ends, default `weight` and `bias`."""
    for end in ends or ("weight", "bias"):
        yield Same((f"{ours}.{end}",), (f"{theirs}.{end}",))


def layer_names(ours: str, theirs: str, count: int, words: Sequence[str] = OPEN_CLIP) -> Iterator[Same]:
    """Of the layers of a transformer; words: what the other calls their parts."""
    qkv, *parts = words
    for i in range(count):
        a, b = f"{ours}.{i}", f"{theirs}.{i}"
        for end in ("weight", "bias"):
            yield Same(tuple(f"{a}.self_attn.{part}_proj.{end}" for part in "qkv"), (f"{b}.{qkv}{end}",))
        for mine, other in zip(PARTS, parts, strict=True):
            yield from weight_and_bias(f"{a}.{mine}", f"{b}.{other}")


def clip_names(model: CLIPModel) -> Iterator[Same]:
    """Which weights of a `CLIPModel` are which of open_clip's `CLIP`; of projections, one is the other turned."""
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
    """The same of the text tower alone."""
    read = "text_model"
    yield Same((f"{read}.embeddings.token_embedding.weight",), ("token_embedding.weight",))
    yield Same((f"{read}.embeddings.position_embedding.weight",), ("positional_embedding",))
    yield from layer_names(f"{read}.encoder.layers", "transformer.resblocks", layers)
    yield from weight_and_bias(f"{read}.final_layer_norm", "ln_final")
    yield Same(("text_projection.weight",), ("text_projection",), turned=True)


def siglip_names(model: SiglipModel) -> Iterator[Same]:
    """Which weights of a `SiglipModel` are which of open_clip's `CustomTextCLIP`."""
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
    """The weights of `source` under the names, and in the shapes, of `target`.

    pairs: source's names first. kind: of the source. Raises `ValueError` for weights that are left over, or missing."""
    result, used = {}, set()
    for these, those, turned in pairs:
        lacking = [*(name for name in these if name not in source), *(name for name in those if name not in target)]
        if lacking:
            raise ValueError(f"{kind} has another architecture: there is no {', '.join(lacking)}.")
        value = torch.cat([source[name] for name in these]) if len(these) > 1 else source[these[0]]
        value = value.T if turned else value
        parts = value.split([len(target[name]) for name in those]) if len(those) > 1 else [value]
        for name, part in zip(those, parts, strict=True):
            if part.numel() != target[name].numel():
                raise ValueError(f"{these[0]} is {tuple(part.shape)}, but {name} {tuple(target[name].shape)}.")
            result[name] = part.reshape(target[name].shape).clone()
        used |= set(these)
    left = [*(name for name in source if name not in used), *(name for name in target if name not in result)]
    if left:
        raise ValueError(f"{kind} has weights that the other architecture has no place for: {', '.join(left[:5])}.")
    return result
