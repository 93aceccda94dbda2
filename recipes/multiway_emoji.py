"""BEiT-3 on emoji with their names, on clip art without captions and on film reviews: one Transformer, an expert each.

accelerate launch recipes/multiway_emoji.py       # as claimed: 3 seeds, then the figures
python recipes/multiway_emoji.py --seed 0         # one seed
python recipes/multiway_emoji.py --smoke          # does it all in seconds, learns nothing
python recipes/multiway_emoji.py --dataset path/to/pairs # your own pictures with captions

Measured: nothing yet.

The claim is for the settings below; model_cards/multiway_emoji holds its card, figures and pictures. Clip art (25 MB)
and reviews (13 MB) are fetched once, see recipes/data; --smoke takes what is embedded.
"""

from emoji_pairs import FETCH, SETTINGS, UNPAIRED, UNPAIRED_SMOKE

from hf_pretext import Recipe


def multiway(
    image_size: int,
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    eos_token_id: int,
    width: int = 128,
    layers: int = 4,
):
    """A small Multiway Transformer: pictures in patches of 16 pixels, an expert for pairs in the top two layers."""
    from hf_pretext.multiway import MultiwayConfig

    return MultiwayConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=4 * width,
        num_fusion_layers=layers // 2,
        image_size=image_size,
        patch_size=16,
        vocab_size=vocab_size,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
    )


def tiny_multiway(image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int):
    """The same kind, for --smoke."""
    return multiway(image_size, vocab_size, max_length, pad_token_id, eos_token_id, 32, 2)


recipe = Recipe(
    name="multiway_emoji",
    objective="multiway",
    doc=__doc__,
    encoder=multiway,
    smoke_encoder=tiny_multiway,
    fetch=FETCH,
    settings={
        **SETTINGS,
        **UNPAIRED,
        "max_steps": 1000,
        "learning_rate": 2e-3,
        "contrastive_weight": 1.0,  # or pictures and captions by themselves would not be comparable
        "output_dir": "runs/multiway_emoji",
    },
    smoke={**UNPAIRED_SMOKE, "output_dir": "runs/multiway_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
