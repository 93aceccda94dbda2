"""XDC on Atari films: clusters of the sounds are labels for the frames, and clusters of the frames for the sounds.

accelerate launch recipes/xdc_atari.py               # the full recipe: 3 seeds, then the metrics
python recipes/xdc_atari.py --seed 0                 # one seed
python recipes/xdc_atari.py --smoke                  # a test of all steps, takes seconds
python recipes/xdc_atari.py --dataset path/to/films  # your own films with sound; no labels needed

Measured: 3 seeds, 12.4 minutes each (65 audio clips and videos/s) on 1 core of Intel(R) Xeon(R) Processor.
Top-1 accuracy on the test split, mean ± standard deviation: linear probe, 10% of labels (label `json.game`):
0.786 ± 0.010 (untrained encoder 0.270 ± 0.020, log-mel 0.421, majority class 0.013); linear probe, 100% of
labels (label `json.game`): 0.871 ± 0.004 (untrained encoder 0.479 ± 0.038, log-mel 0.713, majority class
0.013); kNN (label `json.game`): 0.859 ± 0.010 (untrained encoder 0.358 ± 0.017, log-mel 0.435, majority class
0.013). Pretext task on the test split: loss 3.467 ± 0.096, audio_to_video_accuracy 0.667 ± 0.034,
video_to_audio_accuracy 0.598 ± 0.023.

The films are built once, in about 5 minutes (see recipes/data/atari.py). --smoke uses only data of this repository.
"""

from films import ATARI, SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.films import tiny_resnets, two_resnets

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
