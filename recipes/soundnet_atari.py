"""SoundNet on Atari films: a small ResNet predicts from the sound what an image classifier sees in the frames.

accelerate launch recipes/soundnet_atari.py               # the full recipe: 3 seeds, then the metrics
python recipes/soundnet_atari.py --seed 0                 # one seed
python recipes/soundnet_atari.py --smoke                  # a test of all steps, takes seconds
python recipes/soundnet_atari.py --dataset path/to/films  # your own films with sound; no labels needed

Measured: 3 seeds, 7.9 minutes each (102 audio clips and videos/s) on 1 core of Intel(R) Xeon(R) Processor.
Top-1 accuracy on the test split, mean ± standard deviation: linear probe, 10% of labels (label `json.game`):
0.728 ± 0.006 (untrained encoder 0.270 ± 0.020, log-mel 0.421, majority class 0.013); linear probe, 100% of
labels (label `json.game`): 0.848 ± 0.008 (untrained encoder 0.479 ± 0.038, log-mel 0.713, majority class
0.013); kNN (label `json.game`): 0.817 ± 0.015 (untrained encoder 0.358 ± 0.017, log-mel 0.435, majority class
0.013). Pretext task on the test split: loss 0.303 ± 0.005, teacher_1_agreement 0.611 ± 0.009.

The films are built once, in about 5 minutes (see recipes/data/atari.py), and the classifier is downloaded once (see
recipes/data/imagenet_teacher.py). --smoke uses only data of this repository.
"""

from films import ATARI, SETTINGS, SMOKE, TINY_TEACHER, imagenet_teacher

from hf_pretext import Recipe
from hf_pretext.presets.films import sound_resnet, tiny_sound_resnet

WITHOUT = ("eval_video_label",)  # there is no encoder of frames

recipe = Recipe(
    name="soundnet_atari",
    objective="soundnet",
    doc=__doc__,
    encoder=sound_resnet,
    smoke_encoder=tiny_sound_resnet,
    fetch={**ATARI, "teachers": imagenet_teacher},
    settings={
        **{name: value for name, value in SETTINGS.items() if name not in WITHOUT},
        "num_train_epochs": 30,
        "output_dir": "runs/soundnet_atari",
    },
    smoke={**SMOKE, "teachers": [TINY_TEACHER], "output_dir": "runs/soundnet_atari-smoke"},
)

if __name__ == "__main__":
    recipe.main()
