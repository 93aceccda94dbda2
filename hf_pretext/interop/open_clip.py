"""open_clip both ways: its models as transformers' CLIP and SigLIP, and ours as a folder that open_clip loads.

open_clip model or checkpoint <-> CLIPModel, SiglipModel: the same weights under other names, the same features

    model = from_open_clip("ViT-B-32", "checkpoint.pt") # a CLIPModel
    to_open_clip(model, processor, "folder")            # open_clip.create_model_and_transforms("local-dir:folder")
"""

import copy
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipConfig,
    SiglipModel,
)

from ..data.decoding import needed
from ..files import whole, write_json

SIGLIP_TOWERS = "vit_*siglip_*"  # of timm, in its own names
SCHEMAS = ("local-dir:", "hf-hub:")  # of names that bring weights
ROUNDED = 0.06  # of normalised pixels: whole levels of 255 may differ by one or two, a mean or a crop must not
ALIKE = 1e-4  # of features: what differs by more is not the same model


class Same(NamedTuple):
    """Weights that hold the same numbers, one after the other; turned where one is the other's transpose."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    turned: bool = False

    def back(self) -> "Same":
        return Same(self.theirs, self.ours, self.turned)


def from_open_clip(model: nn.Module | str, checkpoint: str | os.PathLike | None = None) -> CLIPModel | SiglipModel:
    """An open_clip model in transformers' words.

    model: one, which stays as it is, or a name that `open_clip.create_model` takes, as "ViT-B-32" with a checkpoint, or
    "local-dir:folder" without one. checkpoint: a file of its weights, which is never unpickled beyond tensors.
    Raises `ValueError` for an architecture that neither `CLIPModel` nor `SiglipModel` can express, and where the
    features turn out to differ; `ImportError` without `open_clip_torch`.
    """
    open_clip = needed("open_clip", "open_clip")
    if isinstance(model, str):
        if (checkpoint is None) != model.startswith(SCHEMAS):
            raise ValueError(
                f"{model} brings its own weights: leave the checkpoint out."
                if checkpoint is not None
                else f"{model} is an architecture alone, whose weights would be random. Give a checkpoint of it."
            )
        model = open_clip.create_model(model, pretrained=None if checkpoint is None else str(checkpoint))
    model = copy.deepcopy(model).cpu().float().eval()
    siglip = hasattr(model, "text")
    ours = (SiglipModel if siglip else CLIPModel)(siglip_config(model) if siglip else clip_config(model)).eval()
    names = siglip_names(ours) if siglip else clip_names(ours)
    theirs = model.state_dict()
    if siglip and model.logit_bias is None:
        raise ValueError("The open_clip model has no logit_bias, so it is no SigLIP: transformers has no class for it.")
    ours.load_state_dict(renamed(theirs, ours.state_dict(), (same.back() for same in names), type(model).__name__))
    check_alike(ours, model, f"transformers' {type(ours).__name__} can't express something in this open_clip model")
    return ours


def to_open_clip(model: PreTrainedModel, processor, folder: str | os.PathLike) -> Path:
    """Writes a folder that `open_clip.create_model_and_transforms("local-dir:...")` loads, with the same features.

    model: a `CLIPModel` or `SiglipModel`, or one of ours around it. processor: its own. Returns the folder. Raises
    `ValueError` for what open_clip can't express; `ImportError` without `open_clip_torch`.
    """
    open_clip = needed("open_clip", "open_clip")
    ours = copy.deepcopy(getattr(model, "whole", model)).cpu().float().eval()
    config, folder = ours.config, Path(folder)
    if type(ours) not in (CLIPModel, SiglipModel):
        raise ValueError(
            f"open_clip has no architecture for {type(ours).__name__}. It takes CLIPModel and SiglipModel alone."
        )
    siglip = type(ours) is SiglipModel
    told = siglip_cfg(config) if siglip else clip_cfg(config)
    bias = {}
    if not siglip and hasattr(model, "bias") and model.task.loss == "sigmoid":  # of a CLIP that learned with a sigmoid
        bias["logit_bias"] = model.bias.detach().cpu()
        told["init_logit_bias"] = float(bias["logit_bias"])
    built = open_clip.model.CustomTextCLIP if siglip else open_clip.model.CLIP
    theirs = built(**told).eval()
    names = siglip_names(ours) if siglip else clip_names(ours)
    wanted = {name: value for name, value in theirs.state_dict().items() if name not in bias}
    weights = {**renamed(ours.state_dict(), wanted, names, type(ours).__name__), **bias}
    theirs.load_state_dict(weights)
    check_alike(ours, theirs, "open_clip can't express something in this model")
    prepared = preprocessing(processor)
    check_prepared(processor, prepared, config.vision_config.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.save_pretrained(folder)
    told["text_cfg"]["hf_tokenizer_name"] = "."  # the folder's own
    if siglip:
        told["custom_text"] = True
    write_json(folder / "open_clip_config.json", {"model_cfg": told, "preprocess_cfg": prepared})
    with whole(folder / "open_clip_model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
    return folder


def preprocessing(processor) -> dict:
    """What open_clip is told of a processor of pictures."""
    images = processor.image_processor
    interpolation = {2: "bilinear", 3: "bicubic"}.get(int(images.resample))
    if interpolation is None:
        raise ValueError(f"open_clip resizes bilinearly or bicubically, not by Pillow's method {images.resample}.")
    squashed = not getattr(images, "do_center_crop", False)  # SigLIP's: both sides to the size, no crop
    mode = "squash" if squashed else "shortest"
    return {"mean": list(images.image_mean), "std": list(images.image_std), "interpolation": interpolation,
            "resize_mode": mode}  # fmt: skip


def check_prepared(processor, prepared: dict, side: int) -> None:
    """Raises `ValueError` where open_clip would make other pixels of a picture than the processor does."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    ramp = torch.linspace(0, 255, 3 * (side + 9) * (side + 14)).view(side + 9, side + 14, 3).to(torch.uint8)
    picture = Image.fromarray(ramp.numpy())
    theirs = image_transform_v2(PreprocessCfg(size=side, **prepared), is_train=False)(picture)
    ours = processor.image_processor(picture, return_tensors="pt")["pixel_values"][0]
    if ours.shape != theirs.shape or (ours - theirs).abs().max() > ROUNDED:
        raise ValueError(
            f"open_clip can't prepare pictures as this {type(processor.image_processor).__name__} does: it resizes to "
            f"the model's {side} pixels, crops, rescales to [0, 1] and normalises, no more."
        )


# architectures


def clip_config(model: nn.Module) -> CLIPConfig:
    """That of an open_clip `CLIP`. Raises `ValueError` for a picture tower that is no plain ViT."""
    visual, text = model.visual, model
    if not hasattr(visual, "conv1") or not hasattr(visual, "class_embedding"):
        raise ValueError(
            f"transformers' CLIPModel has a ViT for pictures, but this open_clip model a {type(visual).__name__}. "
            "Load its picture tower through timm instead: AutoConfig.for_model('timm_wrapper', ...)."
        )
    shapes = [tower_config(visual.transformer), tower_config(text.transformer)]
    shapes[0] |= {"image_size": visual.image_size[0], "patch_size": visual.patch_size[0]}
    shapes[0] |= {"projection_dim": visual.proj.shape[1]}
    eos = model.text_eos_id if model.text_pool_type == "eos" else model.vocab_size - 1  # argmax: the highest of all
    shapes[1] |= {"vocab_size": model.vocab_size, "max_position_embeddings": model.context_length, "eos_token_id": eos}
    shapes[1] |= {"projection_dim": visual.proj.shape[1], "bos_token_id": 0, "pad_token_id": 0}
    return CLIPConfig(vision_config=shapes[0], text_config=shapes[1], projection_dim=visual.proj.shape[1])


def siglip_config(model: nn.Module) -> SiglipConfig:
    """That of an open_clip `CustomTextCLIP` as SigLIP's. Raises `ValueError` for other towers."""
    trunk, text = getattr(model.visual, "trunk", None), model.text
    if trunk is None or not hasattr(trunk, "blocks") or getattr(trunk, "attn_pool", None) is None:
        raise ValueError(
            "transformers' SiglipModel has a ViT that pools by attention for pictures, but this open_clip model a "
            f"{type(trunk or model.visual).__name__} without it."
        )
    if not hasattr(text, "token_embedding") or not isinstance(text.text_projection, nn.Linear):
        raise ValueError(
            f"transformers' SiglipModel has no text tower like this open_clip model's {type(text).__name__}."
        )
    block, patches = trunk.blocks[0], trunk.patch_embed
    vision = {
        "hidden_size": trunk.embed_dim,
        "intermediate_size": block.mlp.fc1.out_features,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.num_heads,
        "image_size": patches.img_size[0],
        "patch_size": patches.patch_size[0],
        "layer_norm_eps": block.norm1.eps,
        "hidden_act": "gelu_pytorch_tanh" if is_tanh(block.mlp.act) else "gelu",
    }
    words = {**tower_config(text.transformer), "vocab_size": text.vocab_size}
    words |= {"max_position_embeddings": text.context_length, "projection_size": text.text_projection.out_features}
    return SiglipConfig(vision_config=vision, text_config=words)


def tower_config(transformer: nn.Module) -> dict:
    """Sizes of one of open_clip's own transformers. Raises `ValueError` for blocks that are not the usual ones."""
    block = transformer.resblocks[0]
    if not isinstance(block.attn, nn.MultiheadAttention) or not hasattr(block.mlp, "c_fc"):
        raise ValueError(f"transformers has no such layers as this open_clip model's {type(block).__name__}.")
    activation = block.mlp.gelu
    return {
        "hidden_size": transformer.width,
        "intermediate_size": block.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "layer_norm_eps": block.ln_1.eps,
        "hidden_act": "quick_gelu" if type(activation).__name__ == "QuickGELU" else
        "gelu_pytorch_tanh" if is_tanh(activation) else "gelu",
    }  # fmt: skip


def is_tanh(activation: nn.Module) -> bool:
    """Whether a GELU is the approximate one."""
    return getattr(activation, "approximate", "none") == "tanh" or "tanh" in type(activation).__name__.lower()


def clip_cfg(config: CLIPConfig) -> dict:
    """open_clip's words for a `CLIPConfig`. Raises `ValueError` for what it has none for."""
    vision, text = config.vision_config, config.text_config
    if {vision.hidden_act, text.hidden_act} not in ({"gelu"}, {"quick_gelu"}):
        raise ValueError(
            f"open_clip has one activation for both towers, gelu or quick_gelu, but this model has {vision.hidden_act} "
            f"for pictures and {text.hidden_act} for texts."
        )
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            **sizes(vision),
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            "pool_type": "argmax" if text.eos_token_id == 2 else "eos",  # as transformers has it, for old configs
            "eos_id": text.eos_token_id,
            **sizes(text),
        },
    }


def siglip_cfg(config: SiglipConfig) -> dict:
    """open_clip's words for a `SiglipConfig`. Raises `ValueError` for what it has none for."""
    vision, text = config.vision_config, config.text_config
    return {
        "embed_dim": vision.hidden_size,
        "init_logit_bias": -10,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": siglip_tower(vision),
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            **({"act_kwargs": {"approximate": "tanh"}} if text.hidden_act == "gelu_pytorch_tanh" else {}),
            **sizes(text),
        },
    }


def sizes(tower) -> dict:
    """What both of open_clip's own towers are told."""
    return {
        "width": tower.hidden_size,
        "layers": tower.num_hidden_layers,
        "mlp_ratio": tower.intermediate_size / tower.hidden_size,
        "norm_kwargs": {"eps": tower.layer_norm_eps},
    }


def siglip_tower(vision) -> str:
    """The name of timm's picture tower of these sizes. Raises `ValueError` where it has none."""
    import timm

    for name in timm.list_models(f"vit_*patch{vision.patch_size}_siglip_*{vision.image_size}"):
        with torch.device("meta"):
            tower = timm.create_model(name)
        if getattr(tower, "attn_pool", None) is None:
            continue
        found = (tower.embed_dim, len(tower.blocks), tower.patch_embed.img_size[0], tower.patch_embed.patch_size[0])
        found = (*found, tower.blocks[0].mlp.fc1.out_features, tower.blocks[0].attn.num_heads)
        if found == (vision.hidden_size, vision.num_hidden_layers, vision.image_size, vision.patch_size,
                     vision.intermediate_size, vision.num_attention_heads):  # fmt: skip
            return name
    raise ValueError(
        "open_clip builds SigLIP's picture tower by timm's name for it, and timm has none of width "
        f"{vision.hidden_size} with {vision.num_hidden_layers} layers for pictures of {vision.image_size} pixels in "
        f"patches of {vision.patch_size}. Its names: {', '.join(timm.list_models(SIGLIP_TOWERS))}."
    )


# names


def both(ours: str, theirs: str, *ends: str) -> Iterator[Same]:
    """The same name with several ends, `weight` and `bias` by itself."""
    for end in ends or ("weight", "bias"):
        yield Same((f"{ours}.{end}",), (f"{theirs}.{end}",))


def layer_names(ours: str, theirs: str, count: int) -> Iterator[Same]:
    """Of a transformer of open_clip's own."""
    for i in range(count):
        a, b = f"{ours}.{i}", f"{theirs}.{i}"
        for end in ("weight", "bias"):
            yield Same(tuple(f"{a}.self_attn.{part}_proj.{end}" for part in "qkv"), (f"{b}.attn.in_proj_{end}",))
        yield from both(f"{a}.self_attn.out_proj", f"{b}.attn.out_proj")
        yield from both(f"{a}.layer_norm1", f"{b}.ln_1")
        yield from both(f"{a}.layer_norm2", f"{b}.ln_2")
        yield from both(f"{a}.mlp.fc1", f"{b}.mlp.c_fc")
        yield from both(f"{a}.mlp.fc2", f"{b}.mlp.c_proj")


def clip_names(model: CLIPModel) -> Iterator[Same]:
    """Which weights of a `CLIPModel` are which of open_clip's `CLIP`; of projections, one is the other turned."""
    seen = "vision_model"
    yield Same((f"{seen}.embeddings.class_embedding",), ("visual.class_embedding",))
    yield Same((f"{seen}.embeddings.patch_embedding.weight",), ("visual.conv1.weight",))
    yield Same((f"{seen}.embeddings.position_embedding.weight",), ("visual.positional_embedding",))
    yield from both(f"{seen}.pre_layrnorm", "visual.ln_pre")
    layers = model.config.vision_config.num_hidden_layers
    yield from layer_names(f"{seen}.encoder.layers", "visual.transformer.resblocks", layers)
    yield from both(f"{seen}.post_layernorm", "visual.ln_post")
    yield Same(("visual_projection.weight",), ("visual.proj",), turned=True)
    yield from clip_text_names(model.config.text_config.num_hidden_layers)
    yield Same(("logit_scale",), ("logit_scale",))


def clip_text_names(layers: int) -> Iterator[Same]:
    """The same of the text tower alone."""
    read = "text_model"
    yield Same((f"{read}.embeddings.token_embedding.weight",), ("token_embedding.weight",))
    yield Same((f"{read}.embeddings.position_embedding.weight",), ("positional_embedding",))
    yield from layer_names(f"{read}.encoder.layers", "transformer.resblocks", layers)
    yield from both(f"{read}.final_layer_norm", "ln_final")
    yield Same(("text_projection.weight",), ("text_projection",), turned=True)


def siglip_names(model: SiglipModel) -> Iterator[Same]:
    """Which weights of a `SiglipModel` are which of open_clip's `CustomTextCLIP`."""
    seen, read, trunk = "vision_model", "text_model", "visual.trunk"
    yield from both(f"{seen}.embeddings.patch_embedding", f"{trunk}.patch_embed.proj")
    yield Same((f"{seen}.embeddings.position_embedding.weight",), (f"{trunk}.pos_embed",))
    for i in range(model.config.vision_config.num_hidden_layers):
        a, b = f"{seen}.encoder.layers.{i}", f"{trunk}.blocks.{i}"
        for end in ("weight", "bias"):
            yield Same(tuple(f"{a}.self_attn.{part}_proj.{end}" for part in "qkv"), (f"{b}.attn.qkv.{end}",))
        yield from both(f"{a}.self_attn.out_proj", f"{b}.attn.proj")
        yield from both(f"{a}.layer_norm1", f"{b}.norm1")
        yield from both(f"{a}.layer_norm2", f"{b}.norm2")
        yield from both(f"{a}.mlp.fc1", f"{b}.mlp.fc1")
        yield from both(f"{a}.mlp.fc2", f"{b}.mlp.fc2")
    yield from both(f"{seen}.post_layernorm", f"{trunk}.norm")
    yield Same((f"{seen}.head.probe",), (f"{trunk}.attn_pool.latent",))
    for end in ("weight", "bias"):
        yield Same(
            (f"{seen}.head.attention.in_proj_{end}",), (f"{trunk}.attn_pool.q.{end}", f"{trunk}.attn_pool.kv.{end}")
        )
    yield from both(f"{seen}.head.attention.out_proj", f"{trunk}.attn_pool.proj")
    yield from both(f"{seen}.head.layernorm", f"{trunk}.attn_pool.norm")
    yield from both(f"{seen}.head.mlp.fc1", f"{trunk}.attn_pool.mlp.fc1")
    yield from both(f"{seen}.head.mlp.fc2", f"{trunk}.attn_pool.mlp.fc2")
    yield Same((f"{read}.embeddings.token_embedding.weight",), ("text.token_embedding.weight",))
    yield Same((f"{read}.embeddings.position_embedding.weight",), ("text.positional_embedding",))
    layers = model.config.text_config.num_hidden_layers
    yield from layer_names(f"{read}.encoder.layers", "text.transformer.resblocks", layers)
    yield from both(f"{read}.final_layer_norm", "text.ln_final")
    yield from both(f"{read}.head", "text.text_projection")
    yield Same(("logit_scale",), ("logit_scale",))
    yield Same(("logit_bias",), ("logit_bias",))


def renamed(
    source: dict[str, Tensor], target: dict[str, Tensor], pairs: Iterable[Same], kind: str
) -> dict[str, Tensor]:
    """The weights of `source` under the names, and in the shapes, of `target`.

    pairs: source's names first. kind: of the source. Raises `ValueError` for weights that are left over, or missing."""
    found, used = {}, set()
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
            found[name] = part.reshape(target[name].shape).clone()
        used |= set(these)
    left = [*(name for name in source if name not in used), *(name for name in target if name not in found)]
    if left:
        raise ValueError(f"{kind} has weights that the other architecture has no place for: {', '.join(left[:5])}.")
    return found


@torch.no_grad()
def check_alike(ours: CLIPModel | SiglipModel, theirs: nn.Module, reason: str) -> None:
    """Raises `ValueError` unless both give the same features of a picture and a text."""
    random = torch.Generator().manual_seed(0)
    text, side = ours.config.text_config, ours.config.vision_config.image_size
    pixels = torch.randn(2, 3, side, side, generator=random)
    ids = torch.randint(text.vocab_size, (2, text.max_position_embeddings), generator=random)
    if isinstance(ours, CLIPModel):  # which pools where a text ends
        ids[:, -1] = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id
    for what, mine, other in (
        ("pictures", ours.get_image_features(pixels).pooler_output, theirs.encode_image(pixels)),
        ("texts", ours.get_text_features(ids).pooler_output, theirs.encode_text(ids)),
    ):
        apart = float((mine - other).abs().max() / other.abs().max())
        if not apart < ALIKE:
            raise ValueError(f"{reason}: its features of {what} differ by {apart:.1e} of the largest.")


# tokenizers


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of an open_clip model, as transformers has it; it takes texts as they are: open_clip turns `&amp;`
    and the like into signs first, and for SigLIP leaves out punctuation and capitals. Raises `ValueError` for an
    unknown name, or a tokenizer that transformers can't hold; `ImportError` without `open_clip_torch`."""
    open_clip = needed("open_clip", "open_clip")
    if not name.startswith(SCHEMAS) and name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {name}. It has {', '.join(open_clip.list_models()[:8])}, ...")
    found = open_clip.get_tokenizer(name)
    if hasattr(found, "tokenizer"):  # transformers' own, inside
        if "siglip" in name.lower():  # which sees its padding
            found.tokenizer.model_input_names = ["input_ids"]
        return found.tokenizer
    if not hasattr(found, "bpe_ranks"):
        raise ValueError(f"open_clip's {type(found).__name__}, of {name}, is none that transformers can hold.")
    first, last = ("<start_of_text>", "<end_of_text>")
    merges = [pair for pair, _ in sorted(found.bpe_ranks.items(), key=lambda entry: entry[1])]
    return CLIPTokenizer(
        vocab=dict(found.encoder),
        merges=merges,
        bos_token=first,
        eos_token=last,
        unk_token=last,
        pad_token=last,  # as OpenAI's own: 0, with which open_clip pads, is an exclamation mark
        model_max_length=found.context_length,
    )
