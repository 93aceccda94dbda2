"""Small codebooks, and images to fit them to."""

import pytest
import torch
from conftest import CONFIGS, IMAGE
from threadpoolctl import threadpool_limits
from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

from hf_pretext.encoders import build_encoder
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modules.codebook import PatchCodebook, ReadyCodebook

PATCHES = {"vit": 8, "clip_vision": 8, "swin": 8, "resnet": 8, "timm_resnet18": 32}  # of encoders' last grids


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are tiny here: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def pixels_of(rows, side: int = IMAGE) -> torch.Tensor:
    processing = Image(default_processor(side))
    pixels = torch.stack([processing(row, None)["pixel_values"] for row in rows])
    return processing.finish({"pixel_values": pixels})["pixel_values"]


def fitted(images: torch.Tensor, size: int = 32, **settings) -> PatchCodebook:
    codebook = PatchCodebook(size, 8)
    codebook.fit(images.split(10), progress=False, **settings)
    return codebook


def ready(patch_size: int = 8, **settings) -> ReadyCodebook:
    """A codebook with random weights that are large enough for different images to get different codes."""
    inner = FlavaImageCodebook(FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=64))
    for parameter in inner.parameters():
        parameter.data.normal_(std=0.3) if parameter.ndim > 1 else parameter.data.zero_()
    return ReadyCodebook(inner, patch_size, **settings)


def unlike(codes: torch.Tensor) -> int:
    return len(codes.unique())


def encoder_of(kind: str):
    return build_encoder(CONFIGS[kind]())
