"""Heads that predict for each cell of a grid, from any image encoder."""

import pytest
import torch
from conftest import CONFIGS, IMAGE, IMAGE_ENCODERS
from transformers import Dinov2WithRegistersConfig

from hf_pretext.encoders import build_encoder
from hf_pretext.modules.dense import DenseHead, as_map, chosen, maps_of, resized

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def outputs_of(encoder, batch: int = 2):
    return encoder(pixel_values=torch.randn(batch, 3, IMAGE, IMAGE), output_hidden_states=True)


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_every_encoder_gets_a_head_whose_levels_all_learn(name):
    encoder = build_encoder(CONFIGS[name]()).train()
    state = torch.get_rng_state()
    torch.manual_seed(3)
    head = DenseHead(encoder, 5, dim=16, layers=2)
    assert encoder.training, "the trial leaves the mode as it is"
    torch.set_rng_state(state)
    result = head(encoder, outputs_of(encoder), (6, 6))
    assert result.shape == (2, 5, 6, 6)
    result.square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in head.projections)
    assert head.levels[-1] == -1 and len(head.levels) >= 2


@pytest.mark.parametrize(
    ("shapes", "layers", "levels"),
    [
        ([(8, 4, 4)] * 13, 4, [-10, -7, -4, -1]),
        ([(8, 4, 4)] * 13, 1, [-1]),
        ([(8, 4, 4)] * 3, 4, [-2, -1]),
        ([(8, 16, 16), (8, 16, 16), (16, 8, 8), (32, 4, 4)], 1, [-3, -2, -1]),
        ([(8, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)], 1, [-4, -3, -2, -1]),
    ],
)
def test_levels(shapes, layers, levels):
    assert chosen(shapes, layers) == levels


def test_tokens_become_the_map_of_their_patches():
    tokens = torch.arange(1 + 4 + 16).view(1, -1, 1)  # a class token, four registers, 4 x 4 patches
    encoder = build_encoder(Dinov2WithRegistersConfig(**SMALL, num_register_tokens=4))
    assert as_map(encoder, tokens).tolist() == [[[[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]]]]
    assert as_map(encoder, tokens[:, :9]).tolist() == [[[[5, 6], [7, 8]]]]  # not all nine tokens


def test_patches_of_images_that_are_not_square_are_refused():
    encoder = build_encoder(Dinov2WithRegistersConfig(**SMALL, num_register_tokens=0))
    hidden = encoder(pixel_values=torch.randn(1, 3, 16, 24), interpolate_pos_encoding=True).last_hidden_state
    with pytest.raises(ValueError, match="gives 7 tokens, which are no square map of patches. Give square images"):
        as_map(encoder, hidden)


@pytest.mark.parametrize("name", ["vit", "resnet", "swin", "timm_resnet18"])
def test_the_last_map_is_the_output_of_the_encoder(name):
    encoder = build_encoder(CONFIGS[name]()).eval()
    outputs = outputs_of(encoder)
    hidden = outputs.last_hidden_state
    expected = hidden if hidden.ndim == 4 else hidden[:, -16:].mT.unflatten(2, (4, 4))
    assert torch.equal(maps_of(encoder, outputs)[-1], expected)


def test_maps_are_averaged_to_fewer_cells():
    values = torch.arange(16.0).view(1, 1, 4, 4)
    assert resized(values, (2, 2)).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert resized(values, (4, 4)) is values and resized(values, (8, 8)).shape == (1, 1, 8, 8)
