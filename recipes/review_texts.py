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


def modernbert(vocab_size: int, max_length: int, pad_token_id: int, width: int = 128, layers: int = 2):
    """Returns the config of a small ModernBERT (rotary positions, norm before each block)."""
    from transformers import ModernBertConfig

    return ModernBertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 3 // 2,
        max_position_embeddings=max_length,
        global_attn_every_n_layers=1,  # sequences are short: every layer attends to the whole document
        pad_token_id=pad_token_id,
        bos_token_id=2,  # [CLS] and [SEP] of the tokenizer that the recipe trains
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
    )
