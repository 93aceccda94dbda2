"""Audio-visual correspondence on Atari films: two small ResNets learn which sound belongs to which frames.

accelerate launch recipes/audio_visual_atari.py               # the full recipe: 3 seeds, then the metrics
python recipes/audio_visual_atari.py --seed 0                 # one seed
python recipes/audio_visual_atari.py --smoke                  # a test of all steps, takes seconds
python recipes/audio_visual_atari.py --dataset path/to/films  # your own films with sound; no labels needed

Measured: nothing yet.

The films are built once, in about 5 minutes (see recipes/data/atari.py). --smoke uses only data of this repository.
"""

from films import ATARI, HELD_OUT, SETTINGS, SMOKE, tiny_resnets, two_resnets

from hf_pretext import Recipe

recipe = Recipe(
    name="audio_visual_atari",
    objective="audio_visual",
    doc=__doc__,
    encoder=two_resnets,
    smoke_encoder=tiny_resnets,
    fetch={**ATARI, **HELD_OUT},
    settings={**SETTINGS, "num_train_epochs": 30, "output_dir": "runs/audio_visual_atari"},
    smoke={**SMOKE, "output_dir": "runs/audio_visual_atari-smoke"},
)

if __name__ == "__main__":
    recipe.main()
