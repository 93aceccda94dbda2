"""Configs of fresh models of images and texts."""

from transformers import PreTrainedConfig

from .texts import clip_text

SMALL = {
    "image_size": 64,
    "horizontal_flip": 0.5,
    "crop_scale": 0.5,
    "color_jitter": 0.1,
    "max_length": 32,
    "vocab_size": 8000,
    "per_device_train_batch_size": 256,
    "learning_rate": 1e-3,
    "adam_beta2": 0.98,
    "weight_decay": 0.5,
}
LARGE = {
    "image_size": 224,
    "max_length": 77,
    "vocab_size": 32_000,
    "per_device_train_batch_size": 256,
    "weight_decay": 0.2,
    "learning_rate": 5e-4,
}
INITIAL = 0.06  # standard deviation of initial weights: with 0.02, models this narrow learn from the image late
EXTRA_POSITIONS = 1  # of the decoder: the start token


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
) -> PreTrainedConfig:
    """Returns the config of a model with two encoders: a timm ResNet of basic blocks, and CLIP's text transformer.

    widths, depths: channels and blocks of the four stages of the ResNet.
    text_width, text_layers: hidden size and layers of the text transformer. text_width is also the embedding size.
    """
    from transformers import TimmWrapperConfig, VisionTextDualEncoderConfig

    sizes = {"channels": list(widths), "layers": list(depths), "stem_type": "deep", "stem_width": widths[0] // 2}
    vision = TimmWrapperConfig(architecture="resnet18", model_args=sizes, hidden_size=widths[-1])
    text = clip_text(vocab_size, max_length, pad_token_id, eos_token_id, text_width, text_layers)
    return VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=text_width)


def tiny_resnet_and_transformer(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    sizes = {"widths": (16, 16, 16, 16), "depths": (1, 1, 1, 1), "text_width": 64, "text_layers": 1}
    return resnet_and_transformer(image_size, vocab_size, max_length, pad_token_id, eos_token_id, **sizes)


def large_resnet_and_transformer(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns the config of a ResNet of the size of ResNet-34 and CLIP's text transformer of width 512."""
    sizes = {"widths": (64, 128, 256, 512), "depths": (3, 4, 6, 3), "text_width": 512, "text_layers": 8}
    return resnet_and_transformer(image_size, vocab_size, max_length, pad_token_id, eos_token_id, **sizes)


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
    initial: float = INITIAL,
) -> PreTrainedConfig:
    """Returns the config of a model of a ViT and a decoder like GPT-2.

    image_width, image_layers, patch_size: hidden size, layers and side of a patch in pixels of the ViT.
    text_width, text_layers: hidden size and layers of the decoder. initial: standard deviation of initial weights.
    """
    from transformers import GPT2Config, VisionEncoderDecoderConfig, ViTConfig

    vision = ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=image_width,
        num_hidden_layers=image_layers,
        num_attention_heads=max(image_width // 64, 1),
        intermediate_size=image_width * 4,
        initializer_range=initial,
    )
    text = GPT2Config(
        vocab_size=vocab_size,
        n_positions=max_length + EXTRA_POSITIONS,
        n_embd=text_width,
        n_layer=text_layers,
        n_head=max(text_width // 64, 1),
        bos_token_id=eos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        initializer_range=initial,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),  # weight decay regularises more
    )
    return VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)


def tiny_vit_and_gpt2(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    sizes = {"image_width": 32, "image_layers": 2, "text_width": 32, "text_layers": 1, "patch_size": 16}
    return vit_and_gpt2(image_size, vocab_size, max_length, pad_token_id, eos_token_id, **sizes)


def large_vit_and_gpt2(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns the config of a ViT-S/16 and a decoder of width 512 and 6 layers."""
    sizes = {"image_width": 384, "image_layers": 12, "text_width": 512, "text_layers": 6, "patch_size": 16}
    return vit_and_gpt2(image_size, vocab_size, max_length, pad_token_id, eos_token_id, **sizes, initial=0.02)


def flava(
    image_size: int,
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    eos_token_id: int,
    width: int = 128,
    layers: tuple[int, int, int] = (3, 2, 2),
) -> PreTrainedConfig:
    """Returns the config of a small FLAVA with patches of 16x16 pixels.

    layers: layers of the image encoder, of the text encoder and of the multimodal encoder.
    """
    from transformers import FlavaConfig

    sizes = {"hidden_size": width, "num_attention_heads": max(width // 64, 1), "intermediate_size": 4 * width}
    image, text, multimodal = ({**sizes, "num_hidden_layers": count} for count in layers)
    return FlavaConfig(
        image_config={**image, "image_size": image_size, "patch_size": 16},
        text_config={
            **text,
            "vocab_size": vocab_size,
            "max_position_embeddings": max_length,
            "pad_token_id": pad_token_id,
        },
        multimodal_config=multimodal,
        hidden_size=width,
        projection_dim=width,
        init_codebook=False,
    )


def tiny_flava(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return flava(image_size, vocab_size, max_length, pad_token_id, eos_token_id, 32, (1, 1, 1))


def large_flava(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns the config of a FLAVA whose image encoder has the size of ViT-S/16."""
    return flava(image_size, vocab_size, max_length, pad_token_id, eos_token_id, 384, (12, 8, 6))


def multiway(
    image_size: int,
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    eos_token_id: int,
    width: int = 128,
    layers: int = 4,
) -> PreTrainedConfig:
    """Returns the config of a small Multiway Transformer with patches of 16x16 pixels.

    The top half of the layers has an expert for image-text pairs.
    """
    from ..modules.multiway import MultiwayConfig

    return MultiwayConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=4 * width,
        num_fusion_layers=layers // 2,
        image_size=image_size,
        patch_size=16,
        vocab_size=vocab_size,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
    )


def tiny_multiway(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return multiway(image_size, vocab_size, max_length, pad_token_id, eos_token_id, 32, 2)


def large_multiway(
    image_size: int, vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns the config of a Multiway Transformer of the size of ViT-S/16."""
    return multiway(image_size, vocab_size, max_length, pad_token_id, eos_token_id, 384, 12)
