"""What recipes on film reviews have in common: the data, the settings of training, and those of `--smoke`."""

import sys
from pathlib import Path

from emoji_pairs import ABOUT_REVIEWS, SHAKESPEARE

DATA = Path(__file__).parent / "data"
SETTINGS = {
    "eval_label": "sentiment",
    "language": ["en"],
    "limits": ABOUT_REVIEWS,
    "vocab_size": 8000,
    "max_length": 256,
    "per_device_train_batch_size": 16,
    "learning_rate": 2e-3,
    "adam_beta2": 0.98,
    "weight_decay": 0.01,
    "warmup_steps": 0.05,
    "lr_scheduler_type": "cosine",
    "logging_steps": 50,
    "save_steps": 500,
    "save_total_limit": 1,
}
SMOKE = {
    "dataset": [SHAKESPEARE],
    "eval_dataset": SHAKESPEARE,
    "eval_label": "kind",
    "vocab_size": 500,
    "max_length": 128,
    "seeds": [0],
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "eval_rows": 50,
    "logging_steps": 2,
    "save_steps": 2,
}


def fetched() -> str:
    """Returns the folder of the reviews, for pretraining and for evaluation."""
    sys.path.insert(0, str(DATA))
    from reviews import reviews

    return str(reviews())


FETCH = {"dataset": lambda: [fetched()], "eval_dataset": fetched}
