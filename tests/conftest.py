"""Tiny encoders of every kind that a test may want, and the rule that nothing here touches the network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import functools
import sys
from pathlib import Path

import pytest
import torch
import transformers

from hf_pretext.modalities.image import default_processor

REPOSITORY = Path(__file__).parent.parent
sys.path.append(str(REPOSITORY / "recipes"))  # where a recipe that is run finds its neighbours
EMOJI = REPOSITORY / "hf_pretext" / "samples" / "emoji"

IMAGE = 32
VIT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=IMAGE)
TEXT = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
SPECIAL = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)


def timm(architecture: str, **model_args):
    return transformers.AutoConfig.for_model("timm_wrapper", architecture=architecture, model_args=model_args or None)


CONFIGS = {
    "vit": lambda: transformers.ViTConfig(**VIT, patch_size=8),
    "dinov2": lambda: transformers.Dinov2Config(**VIT, patch_size=8),
    "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1]),
    "resnet": lambda: transformers.ResNetConfig(  # not 8 channels: see `tiny_resnet` of recipes/emoji_images.py
        embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1], layer_type="basic"
    ),
    "swin": lambda: transformers.SwinConfig(
        image_size=IMAGE, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "clip_vision": lambda: transformers.CLIPVisionConfig(**VIT, patch_size=8),
    "siglip_vision": lambda: transformers.SiglipVisionConfig(**VIT, patch_size=8),
    "timm_resnet18": lambda: timm("resnet18"),
    "timm_efficientnet_b0": lambda: timm("efficientnet_b0"),
    "timm_vit_tiny": lambda: timm("vit_tiny_patch16_224", img_size=IMAGE),
    "dinov3": lambda: transformers.DINOv3ViTConfig(**VIT, patch_size=8),
    "regnet": lambda: transformers.RegNetConfig(
        embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1], groups_width=8, layer_type="y"
    ),
    "bert": lambda: transformers.BertConfig(**TEXT),
    "modernbert": lambda: transformers.ModernBertConfig(**TEXT, **SPECIAL),
    "ast": lambda: transformers.ASTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_length=64, num_mel_bins=32
    ),
    "videomae": lambda: transformers.VideoMAEConfig(**VIT, patch_size=8, num_frames=4),
}
IMAGE_ENCODERS = [name for name in CONFIGS if name not in ("bert", "modernbert", "ast", "videomae")]


class Processor:
    """An image-text processor: a tokenizer and an image processor."""

    def __init__(self, tokenizer, image_processor=None, side: int = 16):
        self.tokenizer, self.image_processor = tokenizer, image_processor or default_processor(side)


def encoder_inputs(encoder) -> dict[str, torch.Tensor]:
    """A batch of two that the encoder takes."""
    torch.manual_seed(1)
    config = encoder.config
    if encoder.main_input_name == "input_ids":
        return {"input_ids": torch.randint(3, 50, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    if encoder.main_input_name == "input_values":
        return {"input_values": torch.randn(2, config.max_length, config.num_mel_bins)}
    frames = (config.num_frames,) if hasattr(config, "num_frames") else ()
    return {"pixel_values": torch.randn(2, *frames, 3, IMAGE, IMAGE)}


@functools.cache
def _rows(split: str):
    import datasets

    return datasets.load_dataset("parquet", data_files=str(EMOJI / f"{split}-*.parquet"), split="train")


@pytest.fixture
def emoji():
    """The first `count` rows of a split of the embedded set, as a `datasets.Dataset`."""
    return lambda split="train", count=64: _rows(split).select(range(count))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of a module's own tests: nothing of another is found, nothing stays."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("home"))
        patch.setattr("huggingface_hub.constants.HF_HOME", folder)
        patch.setenv("HF_HOME", folder)
        yield folder


@pytest.fixture
def fitted_codebooks(monkeypatch):
    """Codebooks that are fitted to the images of a test when an objective opens them."""

    def fit_to(images):
        from hf_pretext.modules import masked_pairs

        begun = masked_pairs.open_codebook

        def open_fitted(*arguments):
            codebook = begun(*arguments)
            codebook.fit([images], progress=False)
            return codebook

        monkeypatch.setattr(masked_pairs, "open_codebook", open_fitted)

    return fit_to


@pytest.fixture(autouse=True)
def seeded():
    transformers.set_seed(0)
