"""FLAVA on emoji with their names, on clip art without captions and on film reviews: six losses, one model.

accelerate launch recipes/flava_emoji.py          # as claimed: 3 seeds, then the figures
python recipes/flava_emoji.py --seed 0            # one seed
python recipes/flava_emoji.py --smoke             # does it all in seconds, learns nothing
python recipes/flava_emoji.py --dataset path/to/pairs # your own pictures with captions

Measured: nothing yet.

The claim is for the settings below; model_cards/flava_emoji holds its card, figures and pictures. Clip art (25 MB) and
reviews (13 MB) are fetched once, see recipes/data; --smoke takes what is embedded.
"""

from emoji_pairs import FETCH, SETTINGS, UNPAIRED, UNPAIRED_SMOKE

from hf_pretext import Recipe


def flava(
    image_size: int,
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    eos_token_id: int,
    width: int = 128,
    layers: tuple[int, int, int] = (3, 2, 2),
):
    """A small FLAVA: pictures in patches of 16 pixels. layers: of pictures, of texts and of both."""
    from transformers import FlavaConfig

    sizes = {"hidden_size": width, "num_attention_heads": max(width // 64, 1), "intermediate_size": 4 * width}
    image, text, both = ({**sizes, "num_hidden_layers": count} for count in layers)
    return FlavaConfig(
        image_config={**image, "image_size": image_size, "patch_size": 16},
        text_config={
            **text,
            "vocab_size": vocab_size,
            "max_position_embeddings": max_length,
            "pad_token_id": pad_token_id,
        },
        multimodal_config=both,
        hidden_size=width,
        projection_dim=width,
        init_codebook=False,
    )


def tiny_flava(image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int):
    """The same kind, for --smoke."""
    return flava(image_size, vocab_size, max_length, pad_token_id, eos_token_id, 32, (1, 1, 1))


recipe = Recipe(
    name="flava_emoji",
    objective="flava",
    doc=__doc__,
    encoder=flava,
    smoke_encoder=tiny_flava,
    fetch=FETCH,
    settings={**SETTINGS, **UNPAIRED, "max_steps": 1000, "learning_rate": 2e-3, "output_dir": "runs/flava_emoji"},
    smoke={**UNPAIRED_SMOKE, "output_dir": "runs/flava_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
