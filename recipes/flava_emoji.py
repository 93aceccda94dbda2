"""FLAVA on emoji with their names, clip art without captions, and film reviews: one model with six losses.

accelerate launch recipes/flava_emoji.py               # the full recipe: 3 seeds, then the metrics
python recipes/flava_emoji.py --seed 0                 # one seed
python recipes/flava_emoji.py --smoke                  # test run of all steps with a tiny encoder, takes seconds
python recipes/flava_emoji.py --dataset path/to/pairs  # your own image-text pairs

Measured: 3 seeds, 8.4 minutes each (257 samples/s) on 2 cores of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe (label `group`): 0.471 ± 0.011 (untrained encoder 0.410
± 0.028, raw pixels 0.515, majority class 0.202); kNN (label `group`): 0.481 ± 0.024 (untrained encoder 0.424 ±
0.008, raw pixels 0.529, majority class 0.202). Other metrics on the test split: image to caption, R@1: 0.039 ±
0.003 (untrained model 0.005 ± 0.001, chance 0.004); image to caption, R@10: 0.237 ± 0.015 (untrained model
0.040 ± 0.007, chance 0.040); zero-shot, top-1: 0.174 ± 0.058 (untrained model 0.099 ± 0.040, chance 0.111);
zero-shot, per class: 0.186 ± 0.056 (untrained model 0.115 ± 0.008, chance 0.111); matching, any captions:
0.638 ± 0.014 (untrained model 0.495 ± 0.006, chance 0.500); matching by cosine, any captions: 0.657 ± 0.022
(untrained model 0.501 ± 0.003, chance 0.500); matching, captions of one class: 0.584 ± 0.011 (untrained model
0.503 ± 0.002, chance 0.500); matching by cosine, captions of one class: 0.600 ± 0.014 (untrained model 0.500 ±
0.005, chance 0.500); masked words, with the image: 0.054 ± 0.007 (untrained model 0.002 ± 0.003, chance
0.000); masked words, gain by the image: 0.018 ± 0.003 (untrained model 0.000 ± 0.000, chance 0.000); linear
probe of captions: 0.519 ± 0.030 (untrained model 0.488 ± 0.008, chance 0.202); pretext task: loss 18.007 ±
0.148, mmm_image_accuracy 0.139 ± 0.007, mmm_text_accuracy 0.062 ± 0.013, itm_accuracy 0.625 ± 0.003,
contrastive_accuracy 0.052 ± 0.004.

The results are those of the settings below. model_cards/flava_emoji has the card, the metrics and the plots.
The minutes are those of runs with one thread each, while two other runs shared the two cores. The linear probe does not
beat the random encoder by more than twice the spread over seeds. The clip art (25 MB) and the reviews (13 MB) are
downloaded once (see recipes/data). --smoke uses only data of this repository.
"""

from emoji_pairs import FETCH, SETTINGS, UNPAIRED, UNPAIRED_SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.pairs import flava, tiny_flava

recipe = Recipe(
    name="flava_emoji",
    objective="flava",
    doc=__doc__,
    encoder=flava,
    smoke_encoder=tiny_flava,
    fetch=FETCH,
    settings={**SETTINGS, **UNPAIRED, "max_steps": 1000, "learning_rate": 2e-3, "output_dir": "runs/flava_emoji"},
    smoke={**UNPAIRED_SMOKE, "output_dir": "runs/flava_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
