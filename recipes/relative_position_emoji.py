"""Relative position on emoji of 96 pixels: a small ResNet predicts where a tile lies next to another.

accelerate launch recipes/relative_position_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/relative_position_emoji.py --seed 0                  # one seed
python recipes/relative_position_emoji.py --smoke                   # a test of all steps, takes seconds
python recipes/relative_position_emoji.py --dataset path/to/images  # your own images; no labels needed

Measured: 3 seeds, 4.6 minutes each (126 images/s) on 1 core of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe, 1% of labels (label `group`): 0.302 ± 0.011 (untrained
encoder 0.300 ± 0.008, raw pixels 0.333, majority class 0.202); linear probe, 10% of labels (label `group`):
0.484 ± 0.011 (untrained encoder 0.455 ± 0.022, raw pixels 0.433, majority class 0.202); linear probe, 100% of
labels (label `group`): 0.581 ± 0.007 (untrained encoder 0.549 ± 0.020, raw pixels 0.517, majority class
0.202); kNN (label `group`): 0.494 ± 0.004 (untrained encoder 0.532 ± 0.006, raw pixels 0.535, majority class
0.202). Pretext task on the test split: loss 1.175 ± 0.005, accuracy 0.584 ± 0.003.

The results are those of the settings below. model_cards/relative_position_emoji has the card, the metrics
and the plots. The emoji are downloaded and rendered once (see recipes/data/emoji_large.py). --smoke uses only data
of this repository.
"""

from emoji_images import LARGE, SETTINGS, SMOKE, TRIED
from emoji_pairs import ABOUT_EMOJI

from hf_pretext import Recipe
from hf_pretext.presets.images import tile_resnet, tiny_resnet

recipe = Recipe(
    name="relative_position_emoji",
    objective="relative_position",
    doc=__doc__,
    encoder=tile_resnet,
    smoke_encoder=tiny_resnet,
    fetch=LARGE,
    settings={
        **SETTINGS,
        "limits": f"{ABOUT_EMOJI} {TRIED} benchmarks/image_ablation_relative_position_emoji.md.",
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
