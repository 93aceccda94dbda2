"""CLIP on emoji: a small ResNet and a small text transformer learn which name belongs to which picture.

accelerate launch recipes/contrastive_emoji.py       # as claimed: 3 seeds, then the figures
python recipes/contrastive_emoji.py --seed 0         # one seed
python recipes/contrastive_emoji.py --smoke          # does it all in seconds, learns nothing
python recipes/contrastive_emoji.py --dataset path/to/pairs # your own pictures with captions

Measured: nothing yet.

The claim is for the settings below; model_cards/contrastive_emoji holds its card, figures and pictures.
"""

from emoji_pairs import SETTINGS, SMOKE, resnet_and_transformer, tiny_resnet_and_transformer

from hf_pretext import Recipe

recipe = Recipe(
    name="contrastive_emoji",
    objective="contrastive",
    doc=__doc__,
    encoder=resnet_and_transformer,
    smoke_encoder=tiny_resnet_and_transformer,
    settings={**SETTINGS, "output_dir": "runs/contrastive_emoji"},
    smoke={**SMOKE, "output_dir": "runs/contrastive_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
