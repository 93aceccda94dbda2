"""Conversion of configs between open_clip and transformers.

CLIP, CustomTextCLIP -> CLIPConfig, SiglipConfig -> content of open_clip_config.json
"""

import torch
from torch import nn
from transformers import CLIPConfig, SiglipConfig

SIGLIP_TOWERS = "vit_*siglip_*"  # pattern of timm's model names


def clip_config(model: nn.Module) -> CLIPConfig:
    """Returns the config of an open_clip `CLIP`. Raises `ValueError` if its image tower is not a plain ViT."""
    visual, text = model.visual, model
    if not hasattr(visual, "conv1") or not hasattr(visual, "class_embedding"):
        raise ValueError(
            f"This open_clip model has a {type(visual).__name__} for images, but transformers' CLIPModel has a ViT. "
            "Load the image tower with timm instead: AutoConfig.for_model('timm_wrapper', ...)."
        )
    shapes = [tower_config(visual.transformer), tower_config(text.transformer)]
    shapes[0] |= {"image_size": visual.image_size[0], "patch_size": visual.patch_size[0]}
    shapes[0] |= {"projection_dim": visual.proj.shape[1]}
    # argmax pooling takes the highest token id
    eos = model.text_eos_id if model.text_pool_type == "eos" else model.vocab_size - 1
    shapes[1] |= {"vocab_size": model.vocab_size, "max_position_embeddings": model.context_length, "eos_token_id": eos}
    shapes[1] |= {"projection_dim": visual.proj.shape[1], "bos_token_id": 0, "pad_token_id": 0}
    return CLIPConfig(vision_config=shapes[0], text_config=shapes[1], projection_dim=visual.proj.shape[1])


def siglip_config(model: nn.Module) -> SiglipConfig:
    """Returns the config of an open_clip `CustomTextCLIP` with the towers of SigLIP.

    Raises `ValueError` for other towers."""
    trunk, text = getattr(model.visual, "trunk", None), model.text
    if trunk is None or not hasattr(trunk, "blocks") or getattr(trunk, "attn_pool", None) is None:
        raise ValueError(
            f"This open_clip model has a {type(trunk or model.visual).__name__} without attention pooling for images, "
            "but transformers' SiglipModel has a ViT with attention pooling. Give a CLIP or SigLIP model."
        )
    if not hasattr(text, "token_embedding") or not isinstance(text.text_projection, nn.Linear):
        raise ValueError(
            f"transformers' SiglipModel does not support the text tower of this open_clip model, a "
            f"{type(text).__name__}. Give a CLIP or SigLIP model."
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
    """Returns the sizes of an open_clip transformer, by their names in transformers.

    Raises `ValueError` for blocks that transformers does not support."""
    block = transformer.resblocks[0]
    if not isinstance(block.attn, nn.MultiheadAttention) or not hasattr(block.mlp, "c_fc"):
        raise ValueError(f"transformers does not support the layers of this open_clip model, {type(block).__name__}.")
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
    """Returns True for a GELU with the tanh approximation."""
    return getattr(activation, "approximate", "none") == "tanh" or "tanh" in type(activation).__name__.lower()


def clip_cfg(config: CLIPConfig) -> dict:
    """Returns the `model_cfg` of open_clip for a `CLIPConfig`. Raises `ValueError` for activations that differ."""
    vision, text = config.vision_config, config.text_config
    if {vision.hidden_act, text.hidden_act} not in ({"gelu"}, {"quick_gelu"}):
        raise ValueError(
            f"This model has the activations {vision.hidden_act} for images and {text.hidden_act} for texts. open_clip "
            "needs gelu or quick_gelu, the same for both."
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
            "pool_type": "argmax" if text.eos_token_id == 2 else "eos",  # transformers' rule for old configs
            "eos_id": text.eos_token_id,
            **sizes(text),
        },
    }


def siglip_cfg(config: SiglipConfig) -> dict:
    """Returns the `model_cfg` of open_clip for a `SiglipConfig`. Raises `ValueError` if timm has no such tower."""
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
    """Returns the settings that open_clip's image and text transformers share."""
    return {
        "width": tower.hidden_size,
        "layers": tower.num_hidden_layers,
        "mlp_ratio": tower.intermediate_size / tower.hidden_size,
        "norm_kwargs": {"eps": tower.layer_norm_eps},
    }


def siglip_tower(vision) -> str:
    """Returns the name of timm's SigLIP image tower with the sizes of a config.

    Raises `ValueError` if timm has no SigLIP tower of these sizes."""
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
        "open_clip loads SigLIP's image tower from timm, but timm has no SigLIP tower of width "
        f"{vision.hidden_size} with {vision.num_hidden_layers} layers for images of {vision.image_size} pixels and "
        f"patches of {vision.patch_size} pixels. Use one of: {', '.join(timm.list_models(SIGLIP_TOWERS))}."
    )
