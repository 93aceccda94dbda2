"""Encoders, settings and data that the recipes on films share: two small ResNets, one on log-mel, one on frames."""

import sys
from pathlib import Path

from hf_pretext.samples import SAMPLES

DATA = Path(__file__).parent / "data"
EMOJI_FILMS, TINY_TEACHER = "emoji_films", str(SAMPLES / "tiny_teacher")
NARRATED_MISSIONS = "babyai_films/babyai_narrated"
MISSIONS = "babyai_films/babyai"  # a small share, for --smoke
HELD_OUT_MISSIONS = "babyai_films/babyai_heldout"
ORDER_CLASSES = ["go_to_order", "open_order"]  # of missions: one event after the other
ABOUT_ATARI = (
    "The films are of Atari games that are played at random, with the synthetic sounds of the console. The sounds of a "
    "game differ from those of other games by their pitch and rhythm, which mean and deviation of log-mel already show."
)
SETTINGS = {
    "eval_label": "json.game",
    "eval_video_label": "json.reward_sign",  # frames give the game away
    "eval_fractions": [0.1, 1.0],
    "report_dataset": EMOJI_FILMS,  # no frames of the games are published
    "limits": ABOUT_ATARI,
    "seconds": 1.0,
    "num_frames": 4,
    "video_size": 64,
    "num_mel_bins": 64,
    "per_device_train_batch_size": 64,
    "learning_rate": 1.5e-3,
    "weight_decay": 0.05,
    "warmup_steps": 0.05,
    "lr_scheduler_type": "cosine",
    "logging_steps": 20,
    "save_steps": 200,
    "save_total_limit": 1,
}
SMOKE = {
    "dataset": [EMOJI_FILMS],
    "eval_dataset": EMOJI_FILMS,
    "eval_video_label": None,
    "heldout_dataset": None,
    "seeds": [0],
    "max_steps": 4,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "eval_fractions": None,
    "logging_steps": 2,
    "save_steps": 2,
}


def atari(name: str) -> str:
    """Returns the folder of films of Atari games ("atari") or of other games ("atari_heldout"). Builds both on the
    first call."""
    sys.path.insert(0, str(DATA))
    import atari

    return str(getattr(atari, name)())


def missions(name: str = "babyai") -> str:
    """Returns the folder of films of BabyAI missions ("babyai"), of those with other pairs of colour and object
    ("babyai_heldout"), or of five missions each ("babyai_narrated"). Builds all on the first call."""
    sys.path.insert(0, str(DATA))
    import babyai

    return str(getattr(babyai, name)())


def imagenet_teacher() -> list[str]:
    """Returns the folder of an image classifier. Downloads it on the first call."""
    sys.path.insert(0, str(DATA))
    from imagenet_teacher import imagenet_teacher

    return [str(imagenet_teacher())]


ATARI = {"dataset": lambda: [atari("atari")], "eval_dataset": lambda: atari("atari")}
HELD_OUT = {"heldout_dataset": lambda: atari("atari_heldout")}
