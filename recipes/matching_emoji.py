"""Image-text matching on emoji: a small ResNet, a small text transformer, and one over both tell right from wrong.

accelerate launch recipes/matching_emoji.py       # as claimed: 3 seeds, then the figures
python recipes/matching_emoji.py --seed 0         # one seed
python recipes/matching_emoji.py --smoke          # does it all in seconds, learns nothing
python recipes/matching_emoji.py --dataset path/to/pairs # your own pictures with captions

Measured: nothing yet.

The claim is for the settings below; model_cards/matching_emoji holds its card, figures and pictures.
"""

from emoji_pairs import SETTINGS, SMOKE, resnet_and_transformer, tiny_resnet_and_transformer

from hf_pretext import Recipe

recipe = Recipe(
    name="matching_emoji",
    objective="matching",
    doc=__doc__,
    encoder=resnet_and_transformer,
    smoke_encoder=tiny_resnet_and_transformer,
    settings={
        **SETTINGS,
        "negatives": "shuffled",  # hard ones take longer than these minutes to be told
        "per_device_train_batch_size": 128,
        "max_steps": 400,
        "output_dir": "runs/matching_emoji",
    },
    smoke={**SMOKE, "fusion_width": 32, "fusion_heads": 2, "output_dir": "runs/matching_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
