"""What the recipes on emoji with their names share: a small ResNet, a small text transformer, settings, and what is
beside the pairs of some: clip art without captions, film reviews without pictures."""

import sys
from pathlib import Path

DATA = Path(__file__).parent / "data"
EMOJI, SHAKESPEARE = str(DATA / "emoji"), str(DATA / "shakespeare")
ABOUT_EMOJI = (
    "The emoji are 4,552 drawings in up to three styles (Noto, its first edition, Fluent), split by their names: 9 of "
    "the 669 test pictures show an emoji that another style has in train under another name."
)
ABOUT_REVIEWS = (
    "The reviews are 25,000 of IMDB and 8,530 sentences of Rotten Tomatoes; a film may be in two splits. Their authors "
    "gave no licence that is known here, so none is said of the weights."
)
SETTINGS = {
    "dataset": [EMOJI],
    "eval_dataset": EMOJI,
    "eval_label": "group",
    "text_column": "text",
    "other_captions": ["keywords"],
    "caption_weights": [0.5, 0.5],
    "prompts": ["{}", "a drawing of {}", "an emoji of {}"],
    "license": "apache-2.0",  # as the pictures', see NOTICE
    "language": ["en"],
    "limits": ABOUT_EMOJI,
    "image_size": 64,
    "horizontal_flip": 0.5,  # though a few captions say left or right
    "crop_scale": 0.5,
    "color_jitter": 0.1,
    "max_length": 32,
    "vocab_size": 8000,
    "per_device_train_batch_size": 256,
    "max_steps": 900,
    "learning_rate": 1e-3,
    "adam_beta2": 0.98,
    "weight_decay": 0.5,
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
UNPAIRED = {
    "mixture_weights": [0.7, 0.15, 0.15],  # pairs, pictures alone, texts alone
    "license": None,
    "limits": f"{ABOUT_EMOJI} {ABOUT_REVIEWS}",
    "per_device_train_batch_size": 128,
}
UNPAIRED_SMOKE = {
    **SMOKE,
    "dataset": [EMOJI],
    "images_alone": [EMOJI],
    "texts_alone": [SHAKESPEARE],
    "codebook_size": 64,
    "codebook_patches": 4000,
}


def clip_art() -> list[str]:
    """Pictures without captions, fetched once."""
    sys.path.insert(0, str(DATA))
    from openclipart import openclipart

    return [str(openclipart())]


def film_reviews() -> list[str]:
    """Texts without pictures, fetched once."""
    sys.path.insert(0, str(DATA))
    from reviews import reviews

    return [str(reviews())]


FETCH = {"images_alone": clip_art, "texts_alone": film_reviews}


def resnet_and_transformer(
    image_size: int,
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    eos_token_id: int,
    widths: tuple[int, ...] = (32, 64, 128, 256),
    depths: tuple[int, ...] = (2, 2, 2, 2),
    text_width: int = 192,
    text_layers: int = 2,
):
    """A ResNet of basic blocks, timm's, and a text transformer as CLIP's."""
    from transformers import CLIPTextConfig, TimmWrapperConfig, VisionTextDualEncoderConfig

    sizes = {"channels": list(widths), "layers": list(depths), "stem_type": "deep", "stem_width": widths[0] // 2}
    vision = TimmWrapperConfig(architecture="resnet18", model_args=sizes, hidden_size=widths[-1])
    text = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=text_width,
        num_hidden_layers=text_layers,
        num_attention_heads=max(text_width // 64, 1),
        intermediate_size=text_width * 4,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
        bos_token_id=None,  # by itself that of CLIP's own vocabulary
        eos_token_id=eos_token_id,
    )
    return VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=text_width)


def tiny_resnet_and_transformer(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
):
    """The same kind, for --smoke."""
    sizes = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "text_width": 64, "text_layers": 1}
    return resnet_and_transformer(image_size, vocab_size, max_length, pad_token_id, eos_token_id, **sizes)
