"""UniCL, the loss of Florence, on emoji: pictures of the same name, drawn in up to three styles, are alike.

accelerate launch recipes/unicl_emoji.py             # as claimed: 3 seeds, then the figures
python recipes/unicl_emoji.py --seed 0               # one seed
python recipes/unicl_emoji.py --smoke                # does it all in seconds, learns nothing
python recipes/unicl_emoji.py --dataset path/to/pairs # your own pictures with captions

As contrastive_emoji, but all pairs in a batch whose names are equal are right answers.

Measured: nothing yet.

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
