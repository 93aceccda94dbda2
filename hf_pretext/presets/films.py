"""Configs of fresh encoders of sounds and films."""

from transformers import PreTrainedConfig

from . import Preset
from .texts import clip_text

FRAMES = {
    "seconds": 1.0,
    "num_frames": 4,
    "video_size": 64,
    "per_device_train_batch_size": 64,
    "learning_rate": 1.5e-3,
}
SMALL = {**FRAMES, "num_mel_bins": 64}  # of films with sound
LARGE_FRAMES = {"seconds": 2.0, "num_frames": 8, "video_size": 160, "learning_rate": 1e-3}
LARGE = {**LARGE_FRAMES, "num_mel_bins": 128}
WORDS = 12  # visual words of a film


def resnet(channels: int, width: int = 32, depth: int = 4, blocks: int = 1) -> PreTrainedConfig:
    """Returns the config of a ResNet of basic blocks, `blocks` for each of `depth` stages.

    channels: 3 for images, 1 for log-mel."""
    from transformers import ResNetConfig

    return ResNetConfig(
        num_channels=channels,
        embedding_size=width,
        hidden_sizes=[width * 2**stage for stage in range(depth)],
        depths=[blocks] * depth,
        layer_type="basic",
    )


def sound_resnet() -> PreTrainedConfig:
    """Returns the config of a ResNet on log-mel, an image of one channel."""
    return resnet(1)


def tiny_sound_resnet() -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return resnet(1, 8, 2)


def large_sound_resnet() -> PreTrainedConfig:
    """Returns the config of a ResNet-18 on log-mel."""
    return resnet(1, 64, blocks=2)


def two_resnets(width: int = 32, depth: int = 4, blocks: int = 1) -> PreTrainedConfig:
    """Returns the config of a ResNet on log-mel and one on frames."""
    from ..modules.composite_config import CompositeConfig

    encoders = {"audio": resnet(1, width, depth, blocks), "video": resnet(3, width, depth, blocks)}
    return CompositeConfig(encoders={kind: config.to_diff_dict() for kind, config in encoders.items()})


def tiny_resnets() -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return two_resnets(16, 2)


def large_resnets() -> PreTrainedConfig:
    """Returns the config of a ResNet-18 on log-mel and one on frames."""
    return two_resnets(64, blocks=2)


def resnet_and_transformer(
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    eos_token_id: int,
    width: int = 16,
    text_width: int = 128,
    text_layers: int = 2,
) -> PreTrainedConfig:
    """Returns the config of a ResNet on frames, whose first maps are of a quarter of the size, and a CLIP text encoder.

    width: channels of the stem of the ResNet. text_width, text_layers: hidden size and layers of the text encoder."""
    from transformers import ResNetConfig

    from ..modules.composite_config import CompositeConfig

    video = ResNetConfig(
        embedding_size=width,
        hidden_sizes=[4 * width, 8 * width, 8 * width],
        depths=[1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=True,
    )
    text = clip_text(vocab_size, max_length, pad_token_id, eos_token_id, text_width, text_layers)
    text.initializer_factor = 8.0  # else all sentences are nearly the same at the start, and learning begins late
    encoders = {"video": video, "text": text}
    return CompositeConfig(encoders={kind: config.to_diff_dict() for kind, config in encoders.items()})


def tiny_resnet_and_transformer(
    vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return resnet_and_transformer(vocab_size, max_length, pad_token_id, eos_token_id, 4, 32)


def large_resnet_and_transformer(
    vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int
) -> PreTrainedConfig:
    """Returns the config of a wider ResNet and a CLIP text encoder of width 512."""
    return resnet_and_transformer(vocab_size, max_length, pad_token_id, eos_token_id, 64, 512, 8)


def bert(vocab_size: int, max_length: int, pad_token_id: int, width: int = 128, layers: int = 4) -> PreTrainedConfig:
    """Returns the config of a small BERT for a text and the 12 visual words of its film. The objective adds visual
    words to the vocabulary."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 4,
        max_position_embeddings=max_length + WORDS + 1,
        pad_token_id=pad_token_id,
    )


def tiny_bert(vocab_size: int, max_length: int, pad_token_id: int) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return bert(vocab_size, max_length, pad_token_id, width=32, layers=2)


def large_bert(vocab_size: int, max_length: int, pad_token_id: int) -> PreTrainedConfig:
    """Returns the config of a BERT-medium."""
    return bert(vocab_size, max_length, pad_token_id, 512, 8)


SOUND_AND_FRAMES = Preset(
    encoder=two_resnets,
    large=large_resnets,
    tiny=tiny_resnets,
    dataset="emoji_films",
    samples=48_000,
    settings=SMALL,
    for_large=LARGE,
)
FILMS_AND_TEXTS = Preset(
    encoder=resnet_and_transformer,
    large=large_resnet_and_transformer,
    tiny=tiny_resnet_and_transformer,
    dataset="babyai_films/babyai",
    samples=108_000,
    settings={
        **FRAMES,
        "full_video": True,
        "num_frames": 8,
        "max_length": 32,
        "vocab_size": 8000,
        "temperature": 0.07,
        "per_device_train_batch_size": 32,
        "learning_rate": 2e-3,
    },
    for_large=LARGE_FRAMES,
)
FILMS_AS_WORDS = Preset(
    encoder=bert,
    large=large_bert,
    tiny=tiny_bert,
    dataset="babyai_films/babyai",
    samples=116_000,
    settings={
        **FRAMES,
        "seconds": 1.5 * WORDS,
        "num_frames": 3 * WORDS,  # two each second
        "num_words": WORDS,
        "max_step": 2,
        "video_mask_ratio": 0.25,
        "max_length": 32,
        "vocab_size": 8000,
    },
    for_large={"vocab_size": 32_000},
    smoke={"num_frames": WORDS, "branches": 4, "word_pieces": 200},
    needs="--word_encoder microsoft/resnet-18",
)
