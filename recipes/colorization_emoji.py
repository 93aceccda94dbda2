"""Colorization on emoji: a small ResNet sees an image in grey and predicts its colours.

accelerate launch recipes/colorization_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/colorization_emoji.py --seed 0                  # one seed
python recipes/colorization_emoji.py --smoke                   # a test of all steps, takes seconds
python recipes/colorization_emoji.py --dataset path/to/images  # your own images; no labels needed

Measured: 3 seeds, 9.4 minutes each (210 images/s) on 1 core of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe, 1% of labels (label `group`): 0.326 ± 0.008 (untrained
encoder 0.301 ± 0.006, raw pixels 0.333, majority class 0.202); linear probe, 10% of labels (label `group`):
0.480 ± 0.017 (untrained encoder 0.446 ± 0.006, raw pixels 0.427, majority class 0.202); linear probe, 100% of
labels (label `group`): 0.533 ± 0.017 (untrained encoder 0.512 ± 0.019, raw pixels 0.515, majority class
0.202); kNN (label `group`): 0.587 ± 0.007 (untrained encoder 0.506 ± 0.016, raw pixels 0.529, majority class
0.202); linear probe, grey images (label `group`): 0.537 ± 0.010 (untrained encoder 0.463 ± 0.020, raw pixels
0.473, majority class 0.202); kNN, grey images (label `group`): 0.603 ± 0.015 (untrained encoder 0.477 ± 0.005,
raw pixels 0.488, majority class 0.202). Pretext task on the test split: loss 2.680 ± 0.003, accuracy 0.501 ±
0.002, ab_error 27.608 ± 0.220, ab_error_of_gray 34.546 ± 0.000.

The results are those of the settings below. model_cards/colorization_emoji has the card, the metrics
and the plots.
"""

from emoji_images import DATA_64, SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.images import resnet, tiny_resnet

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
