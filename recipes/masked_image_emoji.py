"""A masked autoencoder on emoji: a small ViT sees a quarter of the patches and predicts the others.

accelerate launch recipes/masked_image_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/masked_image_emoji.py --seed 0                  # one seed
python recipes/masked_image_emoji.py --smoke                   # a test of all steps, takes seconds
python recipes/masked_image_emoji.py --dataset path/to/images  # your own images; no labels needed

Measured: nothing yet.

The results are those of the settings below. model_cards/masked_image_emoji has the card, the metrics
and the plots.
"""

from emoji_images import DATA_64, SETTINGS, SMOKE, tiny_vit, vit

from hf_pretext import Recipe

recipe = Recipe(
    name="masked_image_emoji",
    objective="masked_image",
    doc=__doc__,
    encoder=vit,
    smoke_encoder=tiny_vit,
    settings={
        **SETTINGS,
        **DATA_64,
        "crop_scale": 0.5,
        "color_jitter": 0.0,
        "visible_only": True,
        "mask_ratio": 0.75,
        "decoder_dim": 128,
        "decoder_layers": 2,
        "fine_tune": 5,
        "num_train_epochs": 28,
        "output_dir": "runs/masked_image_emoji",
    },
    smoke={**SMOKE, "decoder_dim": 32, "output_dir": "runs/masked_image_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
