"""XDC on Atari films: clusters of the sounds are labels for the frames, and clusters of the frames for the sounds.

accelerate launch recipes/xdc_atari.py               # the full recipe: 3 seeds, then the metrics
python recipes/xdc_atari.py --seed 0                 # one seed
python recipes/xdc_atari.py --smoke                  # a test of all steps, takes seconds
python recipes/xdc_atari.py --dataset path/to/films  # your own films with sound; no labels needed

Measured: nothing yet.

The films are built once, in about 5 minutes (see recipes/data/atari.py). --smoke uses only data of this repository.
"""

from films import ATARI, SETTINGS, SMOKE, tiny_resnets, two_resnets

from hf_pretext import Recipe

recipe = Recipe(
    name="xdc_atari",
    objective="xdc",
    doc=__doc__,
    encoder=two_resnets,
    smoke_encoder=tiny_resnets,
    fetch=ATARI,
    settings={
        **SETTINGS,
        "num_clusters": 128,
        "round_epochs": 5,  # an epoch is 25 steps, too few for heads that begin again
        "lr_scheduler_type": "constant_with_warmup",  # heads begin again in the last round too
        "num_train_epochs": 30,
        "output_dir": "runs/xdc_atari",
    },
    smoke={**SMOKE, "num_clusters": 8, "round_epochs": 1, "output_dir": "runs/xdc_atari-smoke"},
)

if __name__ == "__main__":
    recipe.main()
