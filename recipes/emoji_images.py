"""Encoders, settings and data that the recipes on emoji images share."""

import sys

from emoji_pairs import ABOUT_EMOJI, DATA, EMOJI

TRIED = "Other settings were tried; their results are in"  # continues with the file of an ablation
LARGE_SIDE = 128  # pixels of the larger emoji
DATA_64 = {"dataset": [EMOJI], "eval_dataset": EMOJI}
SETTINGS = {
    "eval_label": "group",
    "eval_fractions": [0.01, 0.1, 1.0],
    "image_size": 64,
    "license": "apache-2.0",  # NOTICE has the licences of the images
    "limits": ABOUT_EMOJI,
    "per_device_train_batch_size": 64,
    "learning_rate": 1.5e-3,
    "weight_decay": 0.05,
    "warmup_steps": 0.05,
    "lr_scheduler_type": "cosine",
    "logging_steps": 40,
    "save_steps": 400,
    "save_total_limit": 1,
}
SMOKE = {
    **DATA_64,
    "seeds": [0],
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "eval_rows": 64,
    "eval_fractions": None,
    "logging_steps": 2,
    "save_steps": 2,
}


def large_emoji() -> str:
    """Returns the folder of the emoji at 128 pixels. Downloads and renders them on the first call."""
    sys.path.insert(0, str(DATA))
    from emoji_large import emoji_large

    return str(emoji_large(LARGE_SIDE))


LARGE = {"dataset": lambda: [large_emoji()], "eval_dataset": large_emoji}


def resnet(image_size: int, early: bool = True):
    """Returns the config of a shallow ResNet of basic blocks.

    early: downsampling in the first stage, which keeps wide layers cheap."""
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=32,
        hidden_sizes=[64, 128, 256, 256],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=early,
    )


def tile_resnet(image_size: int):
    """Returns the config of this ResNet for small tiles, whose maps must not become 1x1 before the last stage: strided
    convolutions of such maps give gradients that are NaN in bfloat16 on some CPUs."""
    return resnet(image_size, early=False)


def tiny_resnet(image_size: int):
    """Returns a tiny config for --smoke. It has no stage of 8 channels: for the gradient of their strided convolutions,
    oneDNN 3.12 writes outside of its memory if the batch is odd."""
    from transformers import ResNetConfig

    return ResNetConfig(embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1], layer_type="basic")


def vit(image_size: int, width: int = 192, layers: int = 6):
    """Returns the config of a small ViT with patches of 8x8 pixels."""
    from transformers import ViTConfig

    return ViTConfig(
        image_size=image_size,
        patch_size=8,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=4 * width,
    )


def tiny_vit(image_size: int):
    """Returns a tiny config for --smoke."""
    return vit(image_size, 32, 2)
