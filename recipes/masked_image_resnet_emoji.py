"""Masked images on emoji with a ResNet: hidden patches are replaced by a learned one and predicted.

accelerate launch recipes/masked_image_resnet_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/masked_image_resnet_emoji.py --seed 0                  # one seed
python recipes/masked_image_resnet_emoji.py --smoke                   # a test of all steps, takes seconds
python recipes/masked_image_resnet_emoji.py --dataset path/to/images  # your own images; no labels needed

Measured: nothing yet.

The results are those of the settings below. model_cards/masked_image_resnet_emoji has the card, the metrics
and the plots.
"""

from emoji_images import DATA_64, SETTINGS, SMOKE, resnet, tiny_resnet

from hf_pretext import Recipe

recipe = Recipe(
    name="masked_image_resnet_emoji",
    objective="masked_image",
    doc=__doc__,
    encoder=resnet,
    smoke_encoder=tiny_resnet,
    settings={
        **SETTINGS,
        **DATA_64,
        "crop_scale": 0.5,
        "color_jitter": 0.0,
        "patch_size": 8,
        "mask_ratio": 0.5,
        "decoder_dim": 128,
        "fine_tune": 5,
        "per_device_train_batch_size": 32,
        "num_train_epochs": 34,
        "output_dir": "runs/masked_image_resnet_emoji",
    },
    smoke={**SMOKE, "output_dir": "runs/masked_image_resnet_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
