"""Audio-visual correspondence on Atari films: two small ResNets learn which sound belongs to which frames.

accelerate launch recipes/audio_visual_atari.py               # the full recipe: 3 seeds, then the metrics
python recipes/audio_visual_atari.py --seed 0                 # one seed
python recipes/audio_visual_atari.py --smoke                  # a test of all steps, takes seconds
python recipes/audio_visual_atari.py --dataset path/to/films  # your own films with sound; no labels needed

Measured: 3 seeds, 14.7 minutes each (56 audio clips and videos/s) on 1 core of Intel(R) Xeon(R) Processor.
Top-1 accuracy on the test split, mean ± standard deviation: linear probe, 10% of labels (label `json.game`):
0.647 ± 0.004 (untrained encoder 0.270 ± 0.020, log-mel 0.421, majority class 0.013); linear probe, 100% of
labels (label `json.game`): 0.824 ± 0.007 (untrained encoder 0.479 ± 0.038, log-mel 0.713, majority class
0.013); kNN (label `json.game`): 0.800 ± 0.015 (untrained encoder 0.358 ± 0.017, log-mel 0.435, majority class
0.013). Other metrics on the test split: audio to video, R@10: 0.863 ± 0.004 (untrained model 0.023 ± 0.007,
chance 0.025); video to audio, R@10: 0.862 ± 0.001 (untrained model 0.029 ± 0.003, chance 0.025);
correspondence, sound of another class: 0.929 ± 0.008 (untrained model 0.505 ± 0.008, chance 0.500);
correspondence, sound of the same class: 0.514 ± 0.004 (untrained model 0.496 ± 0.006, chance 0.500);
correspondence, sound of another time: 0.508 ± 0.002 (untrained model 0.494 ± 0.005, chance 0.500); pretext
task: loss 1.956 ± 0.020, accuracy 0.380 ± 0.004.

The films are built once, in about 5 minutes (see recipes/data/atari.py). --smoke uses only data of this repository.
"""

from films import ATARI, HELD_OUT, SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.films import tiny_resnets, two_resnets

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
