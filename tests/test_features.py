from types import MethodType

import pytest
import torch
import transformers
from conftest import CONFIGS, IMAGE_ENCODERS, VIT, encoder_inputs, timm

from hf_pretext.encoders import build_encoder, takes_images
from hf_pretext.features import encode, extract, num_layers, pool, width


@pytest.mark.parametrize("name", CONFIGS)
def test_width_is_that_of_the_pooled_output(name):
    encoder = build_encoder(CONFIGS[name]()).eval()
    batch = encoder_inputs(encoder)
    with torch.no_grad():
        assert encode(encoder, **batch)[-1].shape == (2, width(encoder))


def test_pool_tokens_maps_and_class_token():
    tokens, maps = torch.randn(2, 5, 3), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(pool(tokens), tokens.mean(1))
    torch.testing.assert_close(pool(maps), maps.flatten(2).mean(2))
    torch.testing.assert_close(pool(tokens, pooling="cls"), tokens[:, 0])
    with pytest.raises(ValueError, match="class token"):
        pool(maps, pooling="cls")


def test_padding_does_not_count():
    encoder = build_encoder(CONFIGS["bert"]()).eval()
    ids = torch.randint(3, 50, (1, 6))
    padded = torch.cat([ids, torch.zeros(1, 4, dtype=torch.long)], 1)
    mask = torch.tensor([[1] * 6 + [0] * 4])
    with torch.no_grad():
        short = encode(encoder, (-1, -2), input_ids=ids, attention_mask=torch.ones(1, 6))
        long = encode(encoder, (-1, -2), input_ids=padded, attention_mask=mask)
    for layer in short:
        torch.testing.assert_close(short[layer], long[layer], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert"])
def test_padding_of_a_sound_does_not_count_where_its_time_is_shortened(kind):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    strides = dict(conv_dim=[16] * 3, conv_stride=[5, 4, 4], conv_kernel=[10, 4, 4], num_feat_extract_layers=3)
    config = getattr(transformers, f"{kind}Config")(
        **sizes, **strides, feat_extract_norm="layer", do_stable_layer_norm=True, num_conv_pos_embedding_groups=2
    )
    encoder, sound = build_encoder(config).eval(), torch.randn(2, 4000)
    padded, mask = torch.nn.functional.pad(sound, (0, 12000)), torch.zeros(2, 16000, dtype=torch.long)
    mask[:, :4000] = 1
    with torch.no_grad():
        short = encode(encoder, (-1, -2), input_values=sound, attention_mask=torch.ones(2, 4000, dtype=torch.long))
        long = encode(encoder, (-1, -2), input_values=padded, attention_mask=mask)
        unmasked = encode(encoder, input_values=padded)[-1]
    for layer in short:
        torch.testing.assert_close(short[layer], long[layer], atol=1e-5, rtol=1e-5)
    assert (unmasked - short[-1]).norm() > 0.1 * short[-1].norm()  # the check can fail


def test_a_row_of_padding_alone_is_zero_not_nan():
    assert torch.equal(pool(torch.randn(1, 3, 2), torch.zeros(1, 3)), torch.zeros(1, 2))


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_extract_gives_all_layers_in_one_pass(name):
    encoder = build_encoder(CONFIGS[name]()).train()
    batch = encoder_inputs(encoder)
    passes = []
    encoder.register_forward_hook(lambda *_: passes.append(1))
    count = num_layers(encoder.eval(), **batch)
    encoder.train()
    passes.clear()
    features = extract(encoder, [batch, batch], "all", description=None)
    assert len(passes) <= 3  # two batches, and one look at how many layers there are
    assert sorted(features) == list(range(-count, 0))
    assert all(value.shape[0] == 4 and value.dtype == torch.float32 for value in features.values())
    assert encoder.training  # as it was
    with torch.no_grad():
        expected = encode(encoder.eval(), **batch)[-1]
    torch.testing.assert_close(features[-1][:2], expected)
    torch.testing.assert_close(features[-1][2:], expected)


def test_inner_layer_is_the_hidden_state_of_that_stage():
    encoder = build_encoder(CONFIGS["resnet"]()).eval()
    batch = encoder_inputs(encoder)
    with torch.no_grad():
        hidden = encoder(**batch, output_hidden_states=True).hidden_states
        found = encode(encoder, (-1, -2), **batch)
    torch.testing.assert_close(found[-2], hidden[-2].mean((2, 3)))
    assert found[-2].shape[1] == 16


def test_half_precision_where_asked():
    encoder = build_encoder(CONFIGS["vit"]())
    batch = encoder_inputs(encoder)
    full = extract(encoder, [batch], description=None)[-1]
    half = extract(encoder, [batch], dtype=torch.bfloat16, description=None)[-1]
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=0.1, rtol=0.1)


def test_nothing_to_extract_is_an_error():
    with pytest.raises(ValueError, match="gave no batch"):
        extract(build_encoder(CONFIGS["vit"]()), [], description=None)


FILMED = ["vit", "resnet", "timm_resnet18", "convnext", "swin"]


@pytest.mark.parametrize("name", FILMED)
def test_an_image_encoder_is_averaged_over_frames_at_each_layer(name):
    encoder = build_encoder(CONFIGS[name]()).eval()
    video = torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        layers = range(-num_layers(encoder, pixel_values=video), 0)
        found = encode(encoder, layers, pixel_values=video)
        by_frame = [encode(encoder, layers, pixel_values=video[:, i]) for i in range(3)]
    assert num_layers(encoder, pixel_values=video) == num_layers(encoder, pixel_values=video[:, 0]) == len(found)
    for layer, features in found.items():
        torch.testing.assert_close(features, torch.stack([each[layer] for each in by_frame]).mean(0))
    assert torch.equal(extract(encoder, [{"pixel_values": video}], description=None)[-1], found[-1])


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (CONFIGS["videomae"], "pixel_values"),
        (lambda: transformers.TimesformerConfig(**VIT, patch_size=8, num_frames=4), "pixel_values"),
        (lambda: transformers.VivitConfig(**VIT, num_frames=4, tubelet_size=[2, 8, 8]), "pixel_values"),
    ],
)
def test_a_video_encoder_takes_the_frames_together(config, name):
    encoder = build_encoder(config()).eval()
    video, shapes = torch.randn(2, 4, 3, 32, 32), []
    assert not takes_images(encoder)
    encoder.register_forward_pre_hook(lambda _, args, inputs: shapes.append(inputs[name].shape), with_kwargs=True)
    with torch.no_grad():
        assert encode(encoder, **{name: video})[-1].shape == (2, 32)
    assert shapes == [video.shape]


def test_a_log_mel_image_of_one_channel_is_encoded_as_an_image():
    for config in (
        transformers.ResNetConfig(num_channels=1, embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1]),
        transformers.ViTConfig(**{**VIT, "image_size": [24, 40]}, num_channels=1, patch_size=8),
        timm("resnet18", in_chans=1),
    ):
        encoder = build_encoder(config).eval()
        assert takes_images(encoder, channels=1) and not takes_images(encoder)
        with torch.no_grad():
            assert encode(encoder, pixel_values=torch.randn(2, 1, 24, 40))[-1].shape == (2, width(encoder))


def test_an_encoder_is_tried_once_and_not_in_its_compiled_form():
    encoder, passes = build_encoder(CONFIGS["vit"]()).train(), []
    encoder.register_forward_hook(lambda *_: passes.append(1))
    video, state, compiled = torch.randn(2, 3, 3, 32, 32), torch.get_rng_state(), []
    original = type(encoder).forward

    def as_compiled(self, *args, **kwargs):
        compiled.append(1)
        return original(self, *args, **kwargs)

    encoder.forward = MethodType(as_compiled, encoder)
    first, second = (encode(encoder, pixel_values=video)[-1] for _ in range(2))
    assert len(passes) == 3 and len(compiled) == 2  # one trial, two videos
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state) and encoder.training
    assert takes_images(encoder) and len(passes) == 3


def test_frames_are_averaged_in_a_compiled_function():
    encoder, video = build_encoder(CONFIGS["resnet"]()).eval(), torch.randn(2, 3, 3, 32, 32)
    together = torch.compile(lambda video: encode(encoder, pixel_values=video)[-1], backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(together(video), encode(encoder, pixel_values=video)[-1])
