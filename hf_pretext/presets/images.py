"""Configs of fresh encoders of images."""

from transformers import PreTrainedConfig

SMALL = {"image_size": 64, "per_device_train_batch_size": 32, "learning_rate": 1.5e-3}
LARGE = {"image_size": 224, "per_device_train_batch_size": 128, "learning_rate": 1e-3}
TILES = {**SMALL, "image_size": 96, "crop_scale": 0.3, "color_jitter": 0.1}


def resnet(image_size: int, early: bool = True) -> PreTrainedConfig:
    """Returns the config of a shallow ResNet of basic blocks.

    early: downsampling in the first stage, which keeps wide layers cheap."""
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=32,
        hidden_sizes=[64, 128, 256, 256],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=early,
    )


def tile_resnet(image_size: int) -> PreTrainedConfig:
    """Returns the config of the shallow ResNet for small tiles. Its maps do not become 1x1 before the last stage:
    strided convolutions of such maps give gradients that are NaN in bfloat16 on some CPUs."""
    return resnet(image_size, early=False)


def tiny_resnet(image_size: int) -> PreTrainedConfig:
    """Returns a tiny config for --smoke. It has no stage of 8 channels: for the gradient of their strided convolutions,
    oneDNN 3.12 writes outside of its memory if the batch is odd."""
    from transformers import ResNetConfig

    return ResNetConfig(embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1], layer_type="basic")


def resnet50(image_size: int) -> PreTrainedConfig:
    """Returns the config of a ResNet-50."""
    from transformers import ResNetConfig

    return ResNetConfig()


def vit(image_size: int, width: int = 192, layers: int = 6, patch_size: int = 8) -> PreTrainedConfig:
    """Returns the config of a small ViT with patches of 8x8 pixels."""
    from transformers import ViTConfig

    return ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=4 * width,
    )


def tiny_vit(image_size: int) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return vit(image_size, 32, 2)


def vit_small(image_size: int) -> PreTrainedConfig:
    """Returns the config of a ViT-S/16."""
    return vit(image_size, 384, 12, 16)
