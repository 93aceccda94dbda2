"""open_clip's architectures in transformers' words, and the other way round.

CLIP, CustomTextCLIP -> CLIPConfig, SiglipConfig -> what open_clip_config.json says
"""

import torch
from torch import nn
from transformers import CLIPConfig, SiglipConfig

SIGLIP_TOWERS = "vit_*siglip_*"  # of timm, in its own names


def clip_config(model: nn.Module) -> CLIPConfig:
    """That of an open_clip `CLIP`. Raises `ValueError` for an image tower that is no plain ViT."""
    visual, text = model.visual, model
    if not hasattr(visual, "conv1") or not hasattr(visual, "class_embedding"):
        raise ValueError(
            f"transformers' CLIPModel has a ViT for images, but this open_clip model a {type(visual).__name__}. "
            "Load its image tower through timm instead: AutoConfig.for_model('timm_wrapper', ...)."
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
            "transformers' SiglipModel has a ViT that pools by attention for images, but this open_clip model a "
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
            f"for images and {text.hidden_act} for texts."
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
    """What both of open_clip's own towers are built from."""
    return {
        "width": tower.hidden_size,
        "layers": tower.num_hidden_layers,
        "mlp_ratio": tower.intermediate_size / tower.hidden_size,
        "norm_kwargs": {"eps": tower.layer_norm_eps},
    }


def siglip_tower(vision) -> str:
    """The name of timm's image tower of these sizes. Raises `ValueError` where it has none."""
    import timm

    for name in timm.list_models(f"vit_*patch{vision.patch_size}_siglip_*{vision.image_size}"):
        with torch.device("meta"):
            tower = timm.create_model(name)
        if getattr(tower, "attn_pool", None) is None:
            continue
        sizes = (tower.embed_dim, len(tower.blocks), tower.patch_embed.img_size[0], tower.patch_embed.patch_size[0])
        sizes = (*sizes, tower.blocks[0].mlp.fc1.out_features, tower.blocks[0].attn.num_heads)
        if sizes == (vision.hidden_size, vision.num_hidden_layers, vision.image_size, vision.patch_size,
                     vision.intermediate_size, vision.num_attention_heads):  # fmt: skip
            return name
    raise ValueError(
        "open_clip builds SigLIP's image tower by timm's name for it, and timm has none of width "
        f"{vision.hidden_size} with {vision.num_hidden_layers} layers for images of {vision.image_size} pixels in "
        f"patches of {vision.patch_size}. Its names: {', '.join(timm.list_models(SIGLIP_TOWERS))}."
    )
