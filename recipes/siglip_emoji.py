"""SigLIP on emoji: for each image and each name of a batch, the model predicts whether they match.

accelerate launch recipes/siglip_emoji.py               # the full recipe: 3 seeds, then the metrics
python recipes/siglip_emoji.py --seed 0                 # one seed
python recipes/siglip_emoji.py --smoke                  # test run of all steps with a tiny encoder, takes seconds
python recipes/siglip_emoji.py --dataset path/to/pairs  # your own image-text pairs

It differs from unicl_emoji in one setting: the loss is a sigmoid for each pair instead of a softmax over the batch.

Measured: 3 seeds, 10.5 minutes each (366 pairs/s) on 2 cores of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe (label `group`): 0.611 ± 0.014 (untrained encoder 0.490
± 0.004, raw pixels 0.515, majority class 0.202); kNN (label `group`): 0.616 ± 0.004 (untrained encoder 0.498 ±
0.005, raw pixels 0.529, majority class 0.202). Other metrics on the test split: image to caption, R@1: 0.234 ±
0.012 (untrained model 0.004 ± 0.000, chance 0.004); image to caption, R@10: 0.436 ± 0.008 (untrained model
0.047 ± 0.002, chance 0.040); zero-shot, top-1: 0.149 ± 0.008 (untrained model 0.147 ± 0.058, chance 0.111);
zero-shot, per class: 0.208 ± 0.016 (untrained model 0.109 ± 0.004, chance 0.111); matching by cosine, any
captions: 0.721 ± 0.009 (untrained model 0.505 ± 0.011, chance 0.500); matching by cosine, captions of one
class: 0.680 ± 0.011 (untrained model 0.500 ± 0.006, chance 0.500); pretext task: loss 10.295 ± 0.169, accuracy
0.266 ± 0.011.

The results are those of the settings below. model_cards/siglip_emoji has the card, the metrics and the plots.
"""

from emoji_pairs import SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.pairs import resnet_and_transformer, tiny_resnet_and_transformer

recipe = Recipe(
    name="siglip_emoji",
    objective="contrastive",
    doc=__doc__,
    encoder=resnet_and_transformer,
    smoke_encoder=tiny_resnet_and_transformer,
    settings={**SETTINGS, "loss": "sigmoid", "positives": "label", "output_dir": "runs/siglip_emoji"},
    smoke={**SMOKE, "output_dir": "runs/siglip_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
