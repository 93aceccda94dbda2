"""UniCL, the loss of Florence, on emoji: pictures of the same name, drawn in up to three styles, are alike.

accelerate launch recipes/unicl_emoji.py             # as claimed: 3 seeds, then the figures
python recipes/unicl_emoji.py --seed 0               # one seed
python recipes/unicl_emoji.py --smoke                # does it all in seconds, learns nothing
python recipes/unicl_emoji.py --dataset path/to/pairs # your own pictures with captions

As contrastive_emoji, but all pairs in a batch whose names are equal are right answers.

Measured: 3 seeds, 10.4 minutes each (368 pairs/s) on 2 cores of Intel(R) Xeon(R) Processor. On the test split:
linear probe (label `group`): 0.625 ± 0.007 (random 0.490 ± 0.004, pixels 0.515, majority 0.202); kNN (label
`group`): 0.629 ± 0.011 (random 0.498 ± 0.005, pixels 0.529, majority 0.202); image to caption, R@1: 0.248 ±
0.011 (random 0.004 ± 0.000, chance 0.004); image to caption, R@10: 0.447 ± 0.004 (random 0.047 ± 0.002, chance
0.040); zero-shot, top-1: 0.169 ± 0.023 (random 0.147 ± 0.058, chance 0.111); zero-shot, per class: 0.218 ±
0.023 (random 0.109 ± 0.004, chance 0.111); matching by cosine, any captions: 0.737 ± 0.001 (random 0.505 ±
0.011, chance 0.500); matching by cosine, captions of one class: 0.676 ± 0.001 (random 0.500 ± 0.006, chance
0.500); pretext task: loss 6.406 ± 0.096, accuracy 0.274 ± 0.008.

The claim is for the settings below; model_cards/unicl_emoji holds its card, figures and pictures.
"""

from emoji_pairs import SETTINGS, SMOKE, resnet_and_transformer, tiny_resnet_and_transformer

from hf_pretext import Recipe

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
