"""Small dual encoders, and batches of image-text pairs for them."""

import torch
import transformers
from conftest import CONFIGS, IMAGE, TEXT, VIT
from torch import nn

from hf_pretext import ContrastiveForPreTraining

VISION = {**VIT, "patch_size": 8}


WORDS = {**TEXT, "max_position_embeddings": 16}


ENDS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)


def align_config():
    vision = dict(image_size=IMAGE, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=24)
    return transformers.AlignConfig(vision_config=vision, text_config=WORDS, projection_dim=80)


PAIRS = {
    "clip": lambda: transformers.CLIPConfig(vision_config=VISION, text_config={**WORDS, **ENDS}, projection_dim=24),
    "siglip": lambda: transformers.SiglipConfig(vision_config=VISION, text_config={**WORDS, **ENDS}),
    "siglip2": lambda: transformers.Siglip2Config(
        vision_config={**VISION, "num_patches": 16}, text_config={**WORDS, **ENDS}
    ),
    "chinese_clip": lambda: transformers.ChineseCLIPConfig(vision_config=VISION, text_config=WORDS, projection_dim=24),
    "align": align_config,
}


TOWERS = ("vit", "swin", "convnext", "timm_resnet18")


def pair_of(name: str, **settings) -> ContrastiveForPreTraining:
    if name in PAIRS:
        model = ContrastiveForPreTraining.from_encoder(PAIRS[name](), **settings)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and name == "align":  # or its image embeddings start at 1e-17
                nn.init.kaiming_normal_(module.weight)
        return model
    return ContrastiveForPreTraining.from_encoders(CONFIGS[name](), CONFIGS["bert"](), 24, **settings)


def batch_of(count: int = 6, length: int = 7, seed: int = 1) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 50, (count, length), generator=random)
    ids[:, -1] = 2  # the end token, at which some text encoders pool
    return {
        "pixel_values": torch.randn(count, 3, IMAGE, IMAGE, generator=random),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }


def same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or dict(atol=1e-10, rtol=1e-10)))
