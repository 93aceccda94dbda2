"""Relative position on emoji of 96 pixels: a small ResNet predicts where a tile lies next to another.

accelerate launch recipes/relative_position_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/relative_position_emoji.py --seed 0                  # one seed
python recipes/relative_position_emoji.py --smoke                   # a test of all steps, takes seconds
python recipes/relative_position_emoji.py --dataset path/to/images  # your own images; no labels needed

Measured: nothing yet.

The results are those of the settings below. model_cards/relative_position_emoji has the card, the metrics
and the plots. The emoji are downloaded and rendered once (see recipes/data/emoji_large.py). --smoke uses only data
of this repository.
"""

from emoji_images import LARGE, SETTINGS, SMOKE, tile_resnet, tiny_resnet

from hf_pretext import Recipe

recipe = Recipe(
    name="relative_position_emoji",
    objective="relative_position",
    doc=__doc__,
    encoder=tile_resnet,
    smoke_encoder=tiny_resnet,
    fetch=LARGE,
    settings={
        **SETTINGS,
        "image_size": 96,
        "crop_scale": 0.3,  # smaller crops show less of the white ground, which reveals the place of a tile
        "color_jitter": 0.1,
        "color": "project",
        "standardize": True,
        "per_device_train_batch_size": 32,
        "num_train_epochs": 10,
        "output_dir": "runs/relative_position_emoji",
    },
    smoke={**SMOKE, "output_dir": "runs/relative_position_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
