"""Encoders, settings and data that the recipes on emoji images share."""

import sys

from emoji_pairs import ABOUT_EMOJI, DATA, EMOJI

TRIED = "Other settings were tried; their results are in"  # continues with the file of an ablation
LARGE_SIDE = 128  # pixels of the larger emoji
LABELS = {"eval_label": "group", "audit_nuisance": ["style"], "audit_same": "name"}
DATA_64 = {"dataset": [EMOJI], "eval_dataset": EMOJI}
SETTINGS = {
    **LABELS,
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
