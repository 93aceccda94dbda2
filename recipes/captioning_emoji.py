"""Captioning on emoji: a small ViT learns to see by writing the name of each image.

accelerate launch recipes/captioning_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/captioning_emoji.py --seed 0                  # one seed
python recipes/captioning_emoji.py --smoke                   # test run of all steps with a tiny encoder, takes seconds
python recipes/captioning_emoji.py --backward True           # VirTex: names also from right to left
python recipes/captioning_emoji.py --parallel_share 0.75     # CapPa: most names at once, from the image alone
python recipes/captioning_emoji.py --other_captions translations --caption_languages es fr de   # also other languages
python recipes/captioning_emoji.py --dataset path/to/pairs   # your own image-text pairs

Measured: 3 seeds, 6.3 minutes each (170 pairs/s) on 1 core of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe (label `group`): 0.526 ± 0.016 (untrained encoder 0.488
± 0.014, raw pixels 0.515, majority class 0.202); kNN (label `group`): 0.492 ± 0.008 (untrained encoder 0.476 ±
0.014, raw pixels 0.529, majority class 0.202). Other metrics on the test split: captioning, bits per
character: 2.467 ± 0.011 (untrained model 3.968 ± 0.021, chance 2.875); captioning, bits per character saved by
the image: 0.110 ± 0.006 (untrained model -0.013 ± 0.008, chance 0.000); generated captions, exact match: 0.000
± 0.000 (untrained model 0.000 ± 0.000, chance 0.000); generated captions, CIDEr-D: 0.207 ± 0.012 (untrained
model 0.000 ± 0.000, chance 0.008); image to caption by likelihood, R@10: 0.213 ± 0.008 (untrained model 0.033
± 0.008, chance 0.041); image to caption by mutual information, R@10: 0.360 ± 0.030 (untrained model 0.040 ±
0.030, chance 0.041); caption to image by likelihood, R@10: 0.386 ± 0.016 (untrained model 0.066 ± 0.022,
chance 0.063); pretext task: loss 5.298 ± 0.024, accuracy 0.337 ± 0.006.

The results are those of the settings below. model_cards/captioning_emoji has the card, the metrics and the plots.
"""

from emoji_pairs import SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.pairs import tiny_vit_and_gpt2, vit_and_gpt2

recipe = Recipe(
    name="captioning_emoji",
    objective="captioning",
    doc=__doc__,
    encoder=vit_and_gpt2,
    smoke_encoder=tiny_vit_and_gpt2,
    settings={
        **{name: value for name, value in SETTINGS.items() if name != "prompts"},  # of zero-shot classification
        "vocab_size": 4000,
        "per_device_train_batch_size": 128,
        "max_steps": 500,
        "learning_rate": 2e-3,
        "weight_decay": 0.5,
        "output_dir": "runs/captioning_emoji",
    },
    smoke={**SMOKE, "output_dir": "runs/captioning_emoji-smoke"},
)

if __name__ == "__main__":
    recipe.main()
