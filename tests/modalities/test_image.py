import colorsys
import io

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import v2
from transformers import AutoImageProcessor, ViTImageProcessor

from hf_pretext.data.decoding import pixels_of, to_rgb
from hf_pretext.modalities.image import (
    Augmentation,
    Image,
    default_processor,
    load_processor,
    target_size,
)
from hf_pretext.modules.colors import COLOR_DRAWS
from hf_pretext.modules.crops import crop_and_resize, random_box


def row(height=48, width=64) -> dict:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return {"image": {"bytes": buffer.getvalue(), "path": None}}


NO_CHANGE = Augmentation(crop_scale=1.0, horizontal_flip=0.0, color_jitter=0.0)


def changed(draws=None, **settings) -> torch.Tensor:
    pixels = torch.rand(16, 3, 8, 8) * 255
    draws = torch.rand(16, COLOR_DRAWS) if draws is None else draws
    return pixels, Augmentation(**{"color_jitter": 0.0, **settings}).change_colors(pixels, draws)


def test_evaluation_is_the_processor_itself():
    processor = default_processor(32)
    processing = Image(processor)
    example = processing(row(), None)
    assert example["pixel_values"].dtype == torch.uint8
    batch = processing.finish({"pixel_values": example["pixel_values"][None]})
    image = PIL.Image.open(io.BytesIO(row()["image"]["bytes"]))
    expected = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values"], expected, atol=1e-5, rtol=0)


def test_training_example_is_a_crop_of_the_right_size_with_its_draws():
    processing = Image(default_processor(32), Augmentation())
    example = processing(row(), np.random.default_rng(0))
    assert example["pixel_values"].shape == (3, 32, 32) and example["pixel_values"].dtype == torch.uint8
    assert example["colors"].shape == (COLOR_DRAWS,)
    same = processing(row(), np.random.default_rng(0))
    other = processing(row(), np.random.default_rng(1))
    assert torch.equal(example["pixel_values"], same["pixel_values"])
    assert not torch.equal(example["pixel_values"], other["pixel_values"])
    batch = processing.finish({name: value[None] for name, value in example.items()})
    assert list(batch) == ["pixel_values"]
    assert batch["pixel_values"].min() >= -1 and batch["pixel_values"].max() <= 1


def test_a_crop_scale_of_1_gives_the_geometry_of_evaluation():
    squashing = ViTImageProcessor(size={"height": 32, "width": 32})
    for processor in (default_processor(32), squashing):
        training = Image(processor, NO_CHANGE)
        for height, width in ((48, 64), (200, 40), (32, 32)):
            one = {**row(height, width), "key": f"{height}"}
            for random in (0, 1):
                example = training(one, np.random.default_rng(random))
                assert torch.equal(example["pixel_values"], training.evaluation()(one, None)["pixel_values"])
                assert example["colors"].shape == (COLOR_DRAWS,)


def test_decoded_images_are_kept_up_to_a_limit(monkeypatch):
    from hf_pretext.modalities import image as module

    decoded = []
    copied = []
    monkeypatch.setattr(module, "to_rgb", lambda *args: decoded.append(args) or to_rgb(*args))
    monkeypatch.setattr(module, "pixels_of", lambda *args: copied.append(args[1:]) or pixels_of(*args))
    monkeypatch.setattr(module, "KEPT_BYTES", 2 * 48 * 64 * 3)
    processing = Image(default_processor(32), Augmentation())
    rows = [{**row(), "key": str(i)} for i in range(3)]
    first = [processing(r, np.random.default_rng(i))["pixel_values"] for i, r in enumerate(rows)]
    again = [processing(r, np.random.default_rng(i))["pixel_values"] for i, r in enumerate(rows)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(decoded) == 4  # the third had no room
    assert [len(box) for box in copied] == [0, 0, 1, 1]  # and only its crop was copied


@pytest.mark.parametrize(("height", "width"), [(48, 64), (32, 33), (40, 200)])
def test_a_crop_is_the_same_whether_its_image_is_kept_or_not(height, width):
    processing = Image(default_processor(32), Augmentation(crop_scale=0.2))
    one = row(height, width)
    for seed in range(20):
        kept, alone = (
            processing({**one, **key}, np.random.default_rng(seed))["pixel_values"] for key in ({"key": "a"}, {})
        )
        assert torch.equal(kept, alone)
    assert len(processing._kept) == 1


def test_a_crop_leaves_a_pillow_image_of_a_row_as_it_is():
    """It would stay small for the next epoch."""
    buffer, random = io.BytesIO(), np.random.default_rng(0)
    PIL.Image.fromarray(random.integers(0, 256, (640, 640, 3), np.uint8)).save(buffer, "JPEG")
    image, images = PIL.Image.open(buffer), Image(ViTImageProcessor(size={"height": 8, "width": 8}), Augmentation())
    first, second = (images({"image": image}, np.random.default_rng(0))["pixel_values"] for _ in range(2))
    assert torch.equal(first, second) and image.size == (640, 640)


def test_no_augmentation_leaves_the_image():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    box = random_box((32, 32), 1.0, np.random.default_rng(0).random(4))
    assert torch.equal(crop_and_resize(image, box, (32, 32)), image)
    pixels, same = changed()
    torch.testing.assert_close(same, pixels, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (20, 100)])
def test_crops_keep_at_least_their_share(size):
    smallest = []
    coordinates = torch.stack(torch.meshgrid(torch.arange(200), torch.arange(100), indexing="ij")).float()
    for seed in range(200):
        crop = crop_and_resize(coordinates, random_box((200, 100), 0.4, np.random.default_rng(seed).random(4)), size)
        assert crop.shape == (2, *size)
        (top, bottom), (left, right) = (crop[i].aminmax() for i in (0, 1))
        smallest.append(float((bottom - top + 1) * (right - left + 1)) / 20_000)
    assert 0.3 < min(smallest) < 0.45  # interpolation averages the outermost pixels
    assert max(smallest) > 0.7


def test_brightness_and_contrast_equal_torchvision():
    draws = torch.rand(16, COLOR_DRAWS)
    draws[:, 2] = 0.5  # same saturation
    pixels, found = changed(draws, color_jitter=0.4)
    for image, ours, draw in zip(pixels, found, draws, strict=True):
        brightness, contrast = (1 + 0.4 * (2 * draw[:2] - 1)).tolist()
        image = image * brightness / 255
        gray = v2.functional.rgb_to_grayscale(image)
        expected = (contrast * image + (1 - contrast) * gray.mean()).clamp(0, 1) * 255  # not clamped in between
        torch.testing.assert_close(ours, expected, atol=0.3, rtol=0)


def test_grayscale_equals_torchvision():
    pixels, found = changed(grayscale=1.0)
    torch.testing.assert_close(found, v2.functional.rgb_to_grayscale(pixels, num_output_channels=3), atol=0.1, rtol=0)


def test_grayscale_comes_as_often_as_asked():
    draws = torch.rand(4000, COLOR_DRAWS)
    pixels = torch.rand(4000, 3, 2, 2) * 255
    found = Augmentation(color_jitter=0.0, grayscale=0.3).change_colors(pixels, draws)
    gray = (found.amax(1) - found.amin(1)).amax((1, 2)) < 1e-2
    assert 0.27 < gray.float().mean() < 0.33


def test_channel_shuffle_swaps_channels_as_often_as_asked():
    draws = torch.rand(4000, COLOR_DRAWS)
    pixels = torch.rand(4000, 3, 2, 2) * 255
    found = Augmentation(color_jitter=0.0, channel_shuffle=0.6).change_colors(pixels, draws)
    torch.testing.assert_close(found.sort(1).values, pixels.sort(1).values, atol=1e-2, rtol=0)
    moved = (found - pixels).abs().amax((1, 2, 3)) > 1e-2
    assert 0.47 < moved.float().mean() < 0.53  # one permutation of six changes nothing


def test_hue_turns_colours_and_keeps_grey():
    draws = torch.full((1, COLOR_DRAWS), 0.5)
    draws[:, 4] = 1 - 1e-7  # as far as allowed: here a third of the circle
    red = torch.tensor([180.0, 60, 60]).view(1, 3, 1, 1)
    gray = torch.full((1, 3, 1, 1), 99.0)
    settings = Augmentation(color_jitter=0.0, hue=1 / 3)
    torch.testing.assert_close(settings.change_colors(gray, draws), gray, atol=1e-2, rtol=0)
    turned = settings.change_colors(red, draws).flatten().tolist()
    assert colorsys.rgb_to_hsv(*turned)[0] == pytest.approx(1 / 3, abs=0.01)


def test_pixels_stay_in_range():
    _, found = changed(color_jitter=1.0, hue=0.5)
    assert found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_scale": 0.0}, "crop_scale must be above 0"),
        ({"crop_scale": 1.5}, "crop_scale"),
        ({"hue": 0.6}, "hue must be between 0 and 0.5"),
        ({"grayscale": -0.1}, "grayscale"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(Exception, match=message):
        Augmentation(**settings)


def test_processor_an_encoder_brings_is_used(tmp_path):
    own = default_processor(48)
    own.image_mean = [0.1, 0.2, 0.3]
    own.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    found = load_processor(str(tmp_path), None, 224)
    assert list(found.image_mean) == [0.1, 0.2, 0.3]
    assert target_size(found) == (48, 48)
    assert target_size(load_processor(str(tmp_path), 32, 224)) == (32, 32)


def test_default_processor_survives_saving(tmp_path):
    default_processor(40).save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert target_size(again) == (40, 40)
    image = PIL.Image.open(io.BytesIO(row()["image"]["bytes"]))
    ours = default_processor(40)(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(again(image, return_tensors="pt")["pixel_values"], ours)


def test_encoder_without_a_processor_gets_the_fallback(tmp_path):
    assert target_size(load_processor(None, None, 24)) == (24, 24)
    assert target_size(load_processor(str(tmp_path), None, 24)) == (24, 24)
