"""SigLIP on emoji: each picture and each name in a batch, does it fit or not?

accelerate launch recipes/siglip_emoji.py            # as claimed: 3 seeds, then the figures
python recipes/siglip_emoji.py --seed 0              # one seed
python recipes/siglip_emoji.py --smoke               # does it all in seconds, learns nothing
python recipes/siglip_emoji.py --dataset path/to/pairs # your own pictures with captions

As unicl_emoji, but with a sigmoid for each pair instead of a softmax over all.

Measured: nothing yet.

The claim is for the settings below; model_cards/siglip_emoji holds its card, figures and pictures.
"""

from emoji_pairs import SETTINGS, SMOKE, resnet_and_transformer, tiny_resnet_and_transformer

from hf_pretext import Recipe

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
