"""What the recipes on emoji with their names share: a small ResNet beside a small BERT, and their settings."""

from pathlib import Path

EMOJI = str(Path(__file__).parent / "data" / "emoji")
SETTINGS = {
    "dataset": [EMOJI],
    "eval_dataset": EMOJI,
    "eval_label": "group",
    "text_column": "text",
    "other_captions": ["keywords", "translations"],
    "caption_weights": [0.5, 0.3, 0.2],
    "prompts": ["{}", "a drawing of {}", "an emoji of {}"],
    "image_size": 64,
    "horizontal_flip": 0.0,  # some captions say left or right
    "max_length": 32,
    "vocab_size": 4000,
    "per_device_train_batch_size": 256,
    "max_steps": 600,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "warmup_steps": 0.05,
    "lr_scheduler_type": "cosine",
    "logging_steps": 20,
    "save_steps": 200,
    "save_total_limit": 1,
}
SMOKE = {
    "seeds": [0],
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "eval_rows": 64,
    "logging_steps": 2,
    "save_steps": 2,
}


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
