"""UniCL, the loss of Florence, on emoji: pictures of the same name, drawn in up to three styles, are alike.

accelerate launch recipes/unicl_emoji.py             # as claimed: 3 seeds, then the figures
python recipes/unicl_emoji.py --seed 0               # one seed
python recipes/unicl_emoji.py --smoke                # does it all in seconds, learns nothing
python recipes/unicl_emoji.py --dataset path/to/pairs # your own pictures with captions

As contrastive_emoji, but all pairs in a batch whose names are equal are right answers.

Measured: 3 seeds, 1.7 minutes each (2305 pairs/s) on NVIDIA H200. linear probe, of `group`: 0.619 ± 0.002
(random 0.488 ± 0.004, pixels 0.502, majority 0.202); kNN, of `group`: 0.629 ± 0.005 (random 0.497 ± 0.005,
pixels 0.529, majority 0.202); picture to caption, R@1: 0.250 ± 0.011 (random 0.004 ± 0.000, chance 0.004);
picture to caption, R@10: 0.447 ± 0.009 (random 0.047 ± 0.002, chance 0.040); zero-shot, top-1: 0.165 ± 0.021
(random 0.147 ± 0.058, chance 0.111); zero-shot, per class: 0.211 ± 0.011 (random 0.109 ± 0.004, chance 0.111);
the pretext task itself on test: loss 6.440 ± 0.086, accuracy 0.280 ± 0.008.

The claim is for the settings below; model_cards/unicl_emoji holds its card, figures and pictures. Nine runs
shared the GPU.
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
