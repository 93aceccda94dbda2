"""Captioning on emoji: a small ViT learns to see by writing the name of each image.

accelerate launch recipes/captioning_emoji.py                # the full recipe: 3 seeds, then the metrics
python recipes/captioning_emoji.py --seed 0                  # one seed
python recipes/captioning_emoji.py --smoke                   # test run of all steps with a tiny encoder, takes seconds
python recipes/captioning_emoji.py --backward True           # VirTex: names also from right to left
python recipes/captioning_emoji.py --parallel_share 0.75     # CapPa: most names at once, from the image alone
python recipes/captioning_emoji.py --other_captions translations --caption_languages es fr de   # also other languages
python recipes/captioning_emoji.py --dataset path/to/pairs   # your own image-text pairs

Measured: 3 seeds, 10.1 minutes each (148 pairs/s) on 1 core of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe (label `group`): 0.514 ± 0.008 (untrained encoder 0.488
± 0.014, raw pixels 0.515, majority class 0.202); kNN (label `group`): 0.511 ± 0.014 (untrained encoder 0.476 ±
0.014, raw pixels 0.529, majority class 0.202). Other metrics on the test split: captioning, bits per
character: 2.543 ± 0.010 (untrained model 3.968 ± 0.021, chance 2.875); captioning, bits per character saved by
the image: 0.100 ± 0.004 (untrained model -0.013 ± 0.008, chance 0.000); generated captions, exact match: 0.000
± 0.000 (untrained model 0.000 ± 0.000, chance 0.000); generated captions, CIDEr-D: 0.209 ± 0.027 (untrained
model 0.000 ± 0.000, chance 0.008); image to caption by likelihood, R@10: 0.218 ± 0.014 (untrained model 0.033
± 0.008, chance 0.041); image to caption by mutual information, R@10: 0.348 ± 0.014 (untrained model 0.040 ±
0.030, chance 0.041); caption to image by likelihood, R@10: 0.393 ± 0.019 (untrained model 0.066 ± 0.022,
chance 0.063); pretext task: loss 5.461 ± 0.022, accuracy 0.344 ± 0.001.

The results are those of the settings below. model_cards/captioning_emoji has the card, the metrics and the plots.
"""

from emoji_pairs import SETTINGS, SMOKE

from hf_pretext import Recipe

INITIAL = 0.06  # standard deviation of initial weights: with 0.02, models this narrow learn from the image late


def vit_and_gpt2(
    image_size: int,
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    eos_token_id: int,
    image_width: int = 128,
    image_layers: int = 4,
    text_width: int = 128,
    text_layers: int = 2,
    patch_size: int = 8,
):
    """Returns the config of a model of a ViT and a decoder like GPT-2.

    image_width, image_layers, patch_size: hidden size, layers and side of a patch in pixels of the ViT.
    text_width, text_layers: hidden size and layers of the decoder.
    """
    from transformers import GPT2Config, VisionEncoderDecoderConfig, ViTConfig

    vision = ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=image_width,
        num_hidden_layers=image_layers,
        num_attention_heads=max(image_width // 64, 1),
        intermediate_size=image_width * 4,
        initializer_range=INITIAL,
    )
    text = GPT2Config(
        vocab_size=vocab_size,
        n_positions=max_length + 1,
        n_embd=text_width,
        n_layer=text_layers,
        n_head=max(text_width // 64, 1),
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        initializer_range=INITIAL,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),  # weight decay regularises more
    )
    return VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)


def tiny_vit_and_gpt2(image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int):
    """Returns a tiny config for --smoke."""
    sizes = {"image_width": 32, "image_layers": 2, "text_width": 32, "text_layers": 1, "patch_size": 16}
    return vit_and_gpt2(image_size, vocab_size, max_length, pad_token_id, eos_token_id, **sizes)


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
