"""UniCL, the loss of Florence, on emoji: all images and captions of the same name are positive pairs.

accelerate launch recipes/unicl_emoji.py               # the full recipe: 3 seeds, then the metrics
python recipes/unicl_emoji.py --seed 0                 # one seed
python recipes/unicl_emoji.py --smoke                  # test run of all steps with a tiny encoder, takes seconds
python recipes/unicl_emoji.py --dataset path/to/pairs  # your own image-text pairs

It differs from contrastive_emoji in one setting: all pairs of a batch with equal names are positives. An emoji has
images in up to three styles, so names repeat.

Measured: 3 seeds, 10.4 minutes each (368 pairs/s) on 2 cores of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe (label `group`): 0.625 ± 0.007 (untrained encoder 0.490
± 0.004, raw pixels 0.515, majority class 0.202); kNN (label `group`): 0.629 ± 0.011 (untrained encoder 0.498 ±
0.005, raw pixels 0.529, majority class 0.202). Other metrics on the test split: image to caption, R@1: 0.248 ±
0.011 (untrained model 0.004 ± 0.000, chance 0.004); image to caption, R@10: 0.447 ± 0.004 (untrained model
0.047 ± 0.002, chance 0.040); zero-shot, top-1: 0.169 ± 0.023 (untrained model 0.147 ± 0.058, chance 0.111);
zero-shot, per class: 0.218 ± 0.023 (untrained model 0.109 ± 0.004, chance 0.111); matching by cosine, any
captions: 0.737 ± 0.001 (untrained model 0.505 ± 0.011, chance 0.500); matching by cosine, captions of one
class: 0.676 ± 0.001 (untrained model 0.500 ± 0.006, chance 0.500); pretext task: loss 6.406 ± 0.096, accuracy
0.274 ± 0.008.

The results are those of the settings below. model_cards/unicl_emoji has the card, the metrics and the plots.
"""

from emoji_pairs import SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.pairs import resnet_and_transformer, tiny_resnet_and_transformer

recipe = Recipe(
    name="unicl_emoji",
    objective="contrastive",
    doc=__doc__,
    encoder=resnet_and_transformer,
    smoke_encoder=tiny_resnet_and_transformer,
    settings={**SETTINGS, "positives": "label", "output_dir": "runs/unicl_emoji"},
    smoke={**SMOKE, "output_dir": "runs/unicl_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
