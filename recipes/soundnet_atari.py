"""SoundNet on Atari films: a small ResNet predicts from the sound what an image classifier sees in the frames.

accelerate launch recipes/soundnet_atari.py               # the full recipe: 3 seeds, then the metrics
python recipes/soundnet_atari.py --seed 0                 # one seed
python recipes/soundnet_atari.py --smoke                  # a test of all steps, takes seconds
python recipes/soundnet_atari.py --dataset path/to/films  # your own films with sound; no labels needed

Measured: nothing yet.

The films are built once, in about 5 minutes (see recipes/data/atari.py), and the classifier is downloaded once (see
recipes/data/imagenet_teacher.py). --smoke uses only data of this repository.
"""

from films import ATARI, SETTINGS, SMOKE, TINY_TEACHER, imagenet_teacher, sound_resnet, tiny_sound_resnet

from hf_pretext import Recipe

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
