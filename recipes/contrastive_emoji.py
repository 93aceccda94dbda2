"""CLIP on emoji: a small ResNet and a small BERT learn which name belongs to which picture.

accelerate launch recipes/contrastive_emoji.py                   # as claimed: 3 seeds, then the figures
python recipes/contrastive_emoji.py --seed 0                     # one seed
python recipes/contrastive_emoji.py --smoke                      # does it all in seconds, learns nothing
python recipes/contrastive_emoji.py --dataset path/to/pairs      # your own pictures with captions

Measured: nothing yet.

The claim is for the settings below; model_cards/contrastive_emoji holds its card, figures and pictures.
"""

from pathlib import Path

from hf_pretext import Recipe

EMOJI = Path(__file__).parent / "data" / "emoji"


def resnet_and_bert(
    image_size: int,
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    widths: tuple[int, ...] = (32, 64, 128, 256),
    depths: tuple[int, ...] = (2, 2, 2, 2),
    text_width: int = 192,
    text_layers: int = 4,
):
    """A ResNet of basic blocks, timm's, and a BERT."""
    from transformers import BertConfig, TimmWrapperConfig, VisionTextDualEncoderConfig

    sizes = {"channels": list(widths), "layers": list(depths), "stem_type": "deep", "stem_width": widths[0] // 2}
    vision = TimmWrapperConfig(architecture="resnet18", model_args=sizes, hidden_size=widths[-1])
    text = BertConfig(
        vocab_size=vocab_size,
        hidden_size=text_width,
        num_hidden_layers=text_layers,
        num_attention_heads=max(text_width // 64, 1),
        intermediate_size=text_width * 4,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
    )
    return VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=text_width)


def tiny_resnet_and_bert(image_size: int, vocab_size: int, max_length: int, pad_token_id: int):
    """The same kind, for --smoke."""
    return resnet_and_bert(image_size, vocab_size, max_length, pad_token_id, (8, 8, 16, 16), (1, 1, 1, 1), 64, 1)


recipe = Recipe(
    name="contrastive_emoji",
    objective="contrastive",
    doc=__doc__,
    encoder=resnet_and_bert,
    smoke_encoder=tiny_resnet_and_bert,
    settings={
        "dataset": [str(EMOJI)],
        "eval_dataset": str(EMOJI),
        "eval_label": "group",
        "text_column": "text",
        "other_captions": ["keywords", "translations"],
        "caption_weights": [0.5, 0.3, 0.2],
        "positives": "label",
        "prompts": ["{}", "a drawing of {}", "an emoji of {}"],
        "image_size": 64,
        "max_length": 32,
        "output_dir": "runs/contrastive_emoji",
        "per_device_train_batch_size": 256,
        "max_steps": 600,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "warmup_steps": 0.05,
        "lr_scheduler_type": "cosine",
        "logging_steps": 20,
        "save_steps": 200,
        "save_total_limit": 1,
    },
    smoke={
        "seeds": [0],
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "eval_rows": 64,
        "logging_steps": 2,
        "save_steps": 2,
        "output_dir": "runs/contrastive_emoji-smoke",
    },
)

if __name__ == "__main__":
    recipe.main()
