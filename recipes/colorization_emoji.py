"""Colorization on emoji: a small ResNet sees an image in grey and predicts its colours.

accelerate launch recipes/colorization_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/colorization_emoji.py --seed 0                  # one seed
python recipes/colorization_emoji.py --smoke                   # a test of all steps, takes seconds
python recipes/colorization_emoji.py --dataset path/to/images  # your own images; no labels needed

Measured: nothing yet.

The results are those of the settings below. model_cards/colorization_emoji has the card, the metrics
and the plots.
"""

from emoji_images import DATA_64, SETTINGS, SMOKE, resnet, tiny_resnet

from hf_pretext import Recipe

recipe = Recipe(
    name="colorization_emoji",
    objective="colorization",
    doc=__doc__,
    encoder=resnet,
    smoke_encoder=tiny_resnet,
    settings={
        **SETTINGS,
        **DATA_64,
        "crop_scale": 0.5,
        "per_device_train_batch_size": 32,
        "num_train_epochs": 34,
        "output_dir": "runs/colorization_emoji",
    },
    smoke={**SMOKE, "output_dir": "runs/colorization_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
