"""Encoders, settings and data that the recipes on emoji share.

Image-text pairs are emoji with their names. Some recipes add clip art without captions and film reviews without images.
"""

import sys
from pathlib import Path

from hf_pretext.samples import DATA_SETS

DATA = Path(__file__).parent / "data"
EMOJI, SHAKESPEARE = "emoji", "shakespeare"  # bundled with the package
ABOUT_EMOJI = DATA_SETS["emoji"]["limits"]
ABOUT_REVIEWS = (
    "The texts are 25,000 reviews from IMDB and 8,530 sentences from Rotten Tomatoes; a film may be in two splits. The "
    "licence of the reviews is unknown, so no licence is stated for the weights."
)
SETTINGS = {
    "dataset": [EMOJI],
    "eval_dataset": EMOJI,
    **DATA_SETS[EMOJI],
    "image_size": 64,
    "horizontal_flip": 0.5,  # although a few captions say left or right
    "crop_scale": 0.5,
    "color_jitter": 0.1,
    "max_length": 32,
    "vocab_size": 8000,
    "per_device_train_batch_size": 256,
    "max_steps": 900,
    "learning_rate": 1e-3,
    "adam_beta2": 0.98,
    "weight_decay": 0.5,
    "warmup_steps": 0.05,
    "lr_scheduler_type": "cosine",
    "logging_steps": 20,
    "save_steps": 200,
    "save_total_limit": 1,
}
SMOKE = {
    "seeds": [0],
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "eval_rows": 64,
    "logging_steps": 2,
    "save_steps": 2,
}
UNPAIRED = {
    "mixture_weights": [0.7, 0.15, 0.15],  # pairs, images alone, texts alone
    "license": None,
    "limits": f"{ABOUT_EMOJI} {ABOUT_REVIEWS}",
    "per_device_train_batch_size": 128,
}
UNPAIRED_SMOKE = {
    **SMOKE,
    "dataset": [EMOJI],
    "images_alone": [EMOJI],
    "texts_alone": [SHAKESPEARE],
    "codebook_size": 64,
    "codebook_patches": 4000,
}


def clip_art() -> list[str]:
    """Returns the folder of the clip art, as images without captions. Downloads it on the first call."""
    sys.path.insert(0, str(DATA))
    from openclipart import openclipart

    return [str(openclipart())]


def film_reviews() -> list[str]:
    """Returns the folder of the film reviews, as texts without images. Downloads them on the first call."""
    sys.path.insert(0, str(DATA))
    from reviews import reviews

    return [str(reviews())]


FETCH = {"images_alone": clip_art, "texts_alone": film_reviews}
