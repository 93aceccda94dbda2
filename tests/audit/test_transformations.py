"""Changes of images, texts and sounds, and what features show of them."""

import io
import math

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS
from transformers import AutoModel

from hf_pretext.audit.image_changes import background, by_jpeg, hue_rotated, shifted
from hf_pretext.audit.sound_changes import delayed, noisy, pitched
from hf_pretext.audit.transformations import (
    Transformation,
    image_transformations,
    level_features,
    sound_transformations,
    spaced_rows,
    text_transformations,
    transformation_metrics,
)
from hf_pretext.features import encode
from hf_pretext.modalities.image import Image, default_processor

SIDE, RATE = 32, 8000
IMAGE = Image(default_processor(SIDE))
ON_IMAGES = {each.name: each for each in image_transformations(IMAGE.mean, IMAGE.std)}
ON_TEXTS = {each.name: each for each in text_transformations()}
ON_SOUNDS = {each.name: each for each in sound_transformations()}
TEXTS = ["A red Fox  jumps over\nthe lazy dog and 3 cats ", "  Hi", "", "one two", "猫が好き", "Straße Ω"]


def photos(count: int = 12, side: int = SIDE) -> torch.Tensor:
    """Smooth noise, uint8 values in float, (count, 3, side, side)."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return (255 * F.interpolate(noise, size=side, mode="bicubic").clamp(0, 1)).round()


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return IMAGE.normalised_(pixels.clone())


def pixels_of(images: torch.Tensor) -> torch.Tensor:
    return images * IMAGE.std[:, None, None] + IMAGE.mean[:, None, None]


def waves() -> torch.Tensor:
    """Two tones, noise, and a short tone with padding, (4, RATE)."""
    time = torch.arange(RATE) / RATE
    noise = torch.rand(RATE, generator=torch.Generator().manual_seed(0)) - 0.5
    short = torch.where(time < 0.5, (2 * math.pi * 300 * time + 0.1).sin(), 0.0)
    tones = [(2 * math.pi * hertz * time + 0.1).sin() for hertz in (440, 1003)]
    return torch.stack([0.5 * tones[0], tones[1], noise, short])


def emoji_images(emoji, split: str, count: int) -> torch.Tensor:
    rows = emoji(split, count)["image"]
    return normalised(torch.stack([IMAGE({"image": row}, None)["pixel_values"].float() for row in rows]))


# images


@pytest.mark.parametrize("name", ON_IMAGES)
def test_the_first_level_leaves_images_as_they_are(name):
    images = normalised(photos())
    change = ON_IMAGES[name]
    torch.testing.assert_close(change.change(images, change.levels[0]), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ON_IMAGES)
def test_images_keep_shape_dtype_and_range_and_change(name, dtype):
    images = normalised(photos()).to(dtype)
    before = images.clone()
    for level in ON_IMAGES[name].levels[1:]:
        changed = ON_IMAGES[name].change(images, level)
        assert changed.shape == images.shape and changed.dtype == dtype
        assert pixels_of(changed).min() > -0.01 and pixels_of(changed).max() < 255.01
        assert (changed - images).abs().amax((1, 2, 3)).min() > 0.01
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_changes_of_images_depend_on_no_other_row_and_no_seed(name):
    images = normalised(photos())
    for level in ON_IMAGES[name].levels[1:]:
        together = ON_IMAGES[name].change(images, level)
        torch.manual_seed(1)
        alone = torch.cat([ON_IMAGES[name].change(image[None], level) for image in images])
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)
        assert torch.equal(ON_IMAGES[name].change(images, level), together)


@pytest.mark.parametrize(
    "name, forth, back", [("rotation", 90, 270), ("rotation", 180, 180), ("flip", True, True), ("hue", 120, 240)]
)
def test_inverse_changes_of_images(name, forth, back):
    images, change = normalised(photos()), ON_IMAGES[name].change
    torch.testing.assert_close(change(change(images, forth), back), images, rtol=0, atol=1e-4)


def test_a_shift_and_its_inverse_keep_the_middle():
    images, change = normalised(photos()), ON_IMAGES["shift"].change
    step = SIDE // 8
    moved = change(images, 1 / 8)
    torch.testing.assert_close(moved[..., step:], images[..., :-step], rtol=0, atol=1e-5)
    restored = change(moved, -1 / 8)
    torch.testing.assert_close(restored[..., :-step], images[..., :-step], rtol=0, atol=1e-5)


def test_a_shift_fills_in_the_background_or_mirrors():
    drawn = torch.full((1, 3, 16, 16), 250.0)
    drawn[..., 4:12, 2:9] = 10
    photo = photos(1, 16)
    assert background(torch.cat([drawn, photo]))[1].tolist() == [True, False]
    left, right = shifted(torch.cat([drawn, photo]), -1 / 4), shifted(torch.cat([drawn, photo]), 1 / 4)
    assert (left[0, ..., 12:] == 250).all() and (right[0, ..., :4] == 250).all()
    assert torch.equal(right[1, ..., :4], photo[0, ..., 1:5].flip(-1))
    assert torch.equal(left[1, ..., 12:], photo[0, ..., 11:15].flip(-1))


def test_hues_of_a_third_of_the_circle_permute_the_channels():
    pixels = photos()
    torch.testing.assert_close(hue_rotated(pixels, 120), pixels.roll(1, 1), rtol=0, atol=1e-3)


def test_gray_has_three_equal_channels_and_the_lightness_of_the_modality():
    images = normalised(photos())
    expected = IMAGE.in_gray().finish({"pixel_values": photos()})["pixel_values"]
    torch.testing.assert_close(ON_IMAGES["gray"].change(images, True), expected, rtol=0, atol=1e-4)


def test_jpeg_is_that_of_pillow():
    image = photos(1)[0].movedim(0, -1).to(torch.uint8).numpy()
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, format="jpeg", quality=20)
    expected = np.asarray(PIL.Image.open(file))
    assert np.array_equal(by_jpeg(image, 20), expected)
    changed = pixels_of(ON_IMAGES["jpeg"].change(normalised(photos(1)), 20))[0].movedim(0, -1)
    np.testing.assert_allclose(changed.numpy(), expected, atol=1e-3)
    assert np.abs(expected.astype(float) - image).mean() > 1


def test_blur_keeps_the_mean_and_smooths():
    images = normalised(photos(side=64) + 0.0)
    noisy_images = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    blurred = ON_IMAGES["blur"].change(noisy_images, 1 / 64)  # a standard deviation of one pixel
    torch.testing.assert_close(blurred.mean((2, 3)), noisy_images.mean((2, 3)), rtol=0, atol=0.02)
    assert blurred.diff(dim=-1).std() < 0.5 * noisy_images.diff(dim=-1).std()


def test_a_crop_enlarges_the_middle():
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[..., 8:24, 8:24] = 1
    enlarged = ON_IMAGES["crop"].change(image, 0.75)
    assert enlarged.mean() == pytest.approx((16 / 24) ** 2, abs=0.02)


def test_images_of_one_channel_and_oblong_images_are_refused():
    with pytest.raises(ValueError, match="3 channels"):
        image_transformations(torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="square images"):
        ON_IMAGES["rotation"].change(torch.zeros(1, 3, 16, 24), 90)


# texts


@pytest.mark.parametrize("name", ON_TEXTS)
def test_the_first_level_leaves_texts_as_they_are(name):
    assert ON_TEXTS[name].change(TEXTS, ON_TEXTS[name].levels[0]) == TEXTS


@pytest.mark.parametrize("name", ON_TEXTS)
def test_changes_of_texts_depend_on_no_other_row_and_no_seed(name):
    for level in ON_TEXTS[name].levels[1:]:
        together = ON_TEXTS[name].change(TEXTS, level)
        np.random.seed(1)
        assert [ON_TEXTS[name].change([text], level)[0] for text in TEXTS] == together
        assert together[0] != TEXTS[0]


def test_casing():
    assert ON_TEXTS["casing"].change(TEXTS[:2], "upper")[0] == "A RED FOX  JUMPS OVER\nTHE LAZY DOG AND 3 CATS "
    assert ON_TEXTS["casing"].change(["Ab Ω"], "lower") == ["ab ω"]


def test_word_order_keeps_words_and_white_space():
    text = TEXTS[0]
    for share, moved in ((0.5, 6), (1.0, 11)):  # of 11 words
        changed = ON_TEXTS["word_order"].change([text], share)[0]
        assert sorted(changed.split()) == sorted(text.split()) and len(changed) == len(text)
        assert sum(a != b for a, b in zip(changed.split(), text.split(), strict=True)) == moved
    assert ON_TEXTS["word_order"].change(TEXTS[1:4], 1.0) == ["  Hi", "", "two one"]


def test_deletion_keeps_the_order_and_one_word():
    words = [f"w{i}" for i in range(40)]
    for share in (0.25, 0.5):
        kept = ON_TEXTS["deletion"].change([" ".join(words)], share)[0].split(" ")
        assert len(kept) == round((1 - share) * 40) and kept == [word for word in words if word in kept]
    assert ON_TEXTS["deletion"].change(["  Hi", "", "a b"], 1.0)[:2] == ["  Hi", ""]
    assert ON_TEXTS["deletion"].change(["a b"], 1.0)[0] in ("a", "b")


# sounds


@pytest.mark.parametrize("name", ON_SOUNDS)
def test_the_first_level_leaves_sounds_as_they_are(name):
    assert torch.equal(ON_SOUNDS[name].change(waves(), ON_SOUNDS[name].levels[0]), waves())


@pytest.mark.parametrize("name", ON_SOUNDS)
def test_sounds_keep_shape_and_padding_and_depend_on_no_other_row(name):
    given = waves()
    for level in ON_SOUNDS[name].levels[1:]:
        together = ON_SOUNDS[name].change(given, level)
        assert together.shape == given.shape and together.dtype == given.dtype and together.isfinite().all()
        assert (together[3, RATE // 2 + 1 :] == 0).all()
        assert (together - given).abs().amax(1).min() > 0.01
        torch.manual_seed(1)
        assert torch.equal(torch.cat([ON_SOUNDS[name].change(wave[None], level) for wave in given]), together)
    assert torch.equal(given, waves())


def test_silence_stays_silence():
    silence = torch.zeros(2, 100)
    for change in ON_SOUNDS.values():
        assert all(torch.equal(change.change(silence, level), silence) for level in change.levels)


def test_gain_and_its_inverse():
    change = ON_SOUNDS["gain"].change
    assert change(waves(), -6.0)[1].abs().max() == pytest.approx(0.501, abs=1e-3)
    torch.testing.assert_close(change(change(waves(), -6.0), 6.0), waves())


def test_noise_has_the_level_and_differs_between_sounds():
    added = noisy(waves(), -10.0) - waves()
    ratio = added.square().sum(1) / waves().square().sum(1)
    torch.testing.assert_close(10 * ratio.log10(), torch.full((4,), -10.0), rtol=0, atol=0.2)
    assert abs(float(torch.corrcoef(added[:2])[0, 1])) < 0.05


def test_pitch_moves_the_frequency():
    for semitones in (-2.0, 2.0, 12.0):
        spectrum = torch.fft.rfft(pitched(waves(), semitones)[0, : RATE // 4]).abs()
        assert 4 * spectrum.argmax().item() == pytest.approx(440 * 2 ** (semitones / 12), abs=4)


def test_pitch_keeps_the_loudness():
    for semitones in (-2.0, 2.0):
        power = pitched(waves(), semitones)[:2].square().mean(1)
        torch.testing.assert_close(power, waves()[:2].square().mean(1), rtol=0.02, atol=0)


def test_pitch_and_its_inverse_keep_a_slow_tone():
    tone = waves()[:1]
    restored = pitched(pitched(tone, -12.0), 12.0)  # half of the speed, then twice
    torch.testing.assert_close(restored[:, 100 : RATE // 2 - 100], tone[:, 100 : RATE // 2 - 100], rtol=0, atol=0.03)


def test_a_delay_mirrors_the_beginning():
    wave = torch.arange(1.0, 9.0)[None]
    assert delayed(wave, 1 / 4).tolist() == [[3, 2, 1, 2, 3, 4, 5, 6]]


# features


class C4(torch.nn.Module):
    """Convolutions with each of a few filters in four rotations: features (B, 4 filters), or their mean over rotations,
    (B, filters). A rotation of the image permutes the former and leaves the latter unchanged."""

    def __init__(self, pooled: bool):
        super().__init__()
        filters = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        self.weight = torch.cat([torch.rot90(filters, turns, (2, 3)) for turns in range(4)])
        self.pooled = pooled

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = F.conv2d(images, self.weight).relu().mean((2, 3)).unflatten(1, (4, 6))
        return features.mean(1) if self.pooled else features.flatten(1)


def stripes(count: int, seed: int) -> torch.Tensor:
    """Images with a direction: smooth along their width, rough along their height."""
    noise = torch.rand(count, 3, SIDE, 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(SIDE, SIDE), mode="bilinear") * 2 - 1


STRIPES = {"train": stripes(600, 0).split(256), "validation": [stripes(150, 1)], "test": [stripes(200, 2)]}


def test_features_of_a_group_convolution_turn_with_the_image():
    measured = transformation_metrics(C4(pooled=False), STRIPES, [ON_IMAGES["rotation"]])
    assert measured["equivariance_rotation"] > 0.999
    assert measured["invariance_rotation"] < 0.3
    assert measured["parameter_bits_rotation"] > 0.9  # of a quarter turn; a half turn leaves stripes alike


def test_group_convolutions_pooled_over_rotations_are_invariant():
    measured = transformation_metrics(C4(pooled=True), STRIPES, [ON_IMAGES["rotation"]])
    assert measured["invariance_rotation"] == pytest.approx(1, abs=1e-4)
    assert measured["equivariance_rotation"] == pytest.approx(1, abs=1e-4)
    assert measured["parameter_bits_rotation"] < 0.02


def test_metrics_of_an_encoder_are_the_same_twice(emoji):
    encoder = AutoModel.from_config(CONFIGS["resnet"]()).eval()

    def embed(images):
        return encode(encoder, pixel_values=images)[-1]

    batches = {split: emoji_images(emoji, split, 40).split(16) for split in STRIPES}
    first = transformation_metrics(embed, batches, tuple(ON_IMAGES.values()))
    state = torch.get_rng_state()
    assert transformation_metrics(embed, batches, tuple(ON_IMAGES.values())) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert list(first)[:3] == ["invariance_rotation", "parameter_bits_rotation", "equivariance_rotation"]
    assert len(first) == 3 * len(ON_IMAGES) and all(map(math.isfinite, first.values()))
    assert first["invariance_jpeg"] > first["invariance_rotation"]


@pytest.mark.parametrize("value", [2.0, math.nan])
def test_constant_features_and_nan_are_undefined_with_a_warning(value, caplog):
    def embed(batch):
        return torch.full((len(batch), 4), value)

    texts = {split: [TEXTS * 4] for split in STRIPES}
    with caplog.at_level("WARNING", logger="hf_pretext"):
        measured = transformation_metrics(embed, texts, text_transformations())
    assert len(measured) == 9 and all(map(math.isnan, measured.values()))
    assert ("collapsed" if value == 2 else "diverged") in caplog.text


def test_texts_are_read_by_what_the_encoder_sees():
    """An encoder that counts capitals sees the casing and not the order; one that reads the first word does both."""

    def capitals(texts):
        return torch.tensor([[sum(map(str.isupper, text)), len(text)] for text in texts], dtype=torch.float)

    random = np.random.default_rng(0)
    words = ["Fox", "dog", "Cat", "bird", "fish", "Horse"]
    texts = {split: [[" ".join(random.choice(words, 8)) for _ in range(200)]] for split in STRIPES}
    measured = transformation_metrics(capitals, texts, text_transformations())
    assert measured["parameter_bits_casing"] > 1 and measured["invariance_casing"] < 0.5
    assert measured["invariance_word_order"] == pytest.approx(1) and measured["parameter_bits_word_order"] < 0.01


def test_a_name_twice_and_a_split_without_rows_are_refused():
    flip = ON_IMAGES["flip"]
    with pytest.raises(ValueError, match="same name: flip, flip"):
        transformation_metrics(C4(pooled=True), STRIPES, (flip, flip))
    with pytest.raises(ValueError, match="No rows of validation"):
        transformation_metrics(C4(pooled=True), {**STRIPES, "validation": []}, (flip,))
    assert transformation_metrics(C4(pooled=True), STRIPES, ()) == {}


def test_each_clean_batch_is_encoded_once():
    seen = []

    def embed(batch):
        seen.append(float(batch.sum()))
        return batch

    plus = [Transformation(name, (0, 1, 2), lambda batch, level: batch + level) for name in "ab"]
    batches = {split: [torch.zeros(2, 1), torch.ones(3, 1)] for split in STRIPES}
    first, second = level_features(embed, {split: iter(some) for split, some in batches.items()}, plus)
    assert len(seen) == 3 * 2 * (1 + 2 + 2)
    assert first[2]["test"][:, 0].tolist() == [2, 2, 3, 3, 3]
    assert first[0]["train"].tolist() == second[0]["train"].tolist()


@pytest.mark.parametrize("count", [3, 5, 10, 20])
def test_rows_are_evenly_spaced(count):
    rows = torch.arange(10)
    chosen = torch.cat(list(spaced_rows(rows.split(4), 10, count))).tolist()
    assert chosen == [i * 10 // min(count, 10) for i in range(min(count, 10))]
    texts = [[str(i) for i in part.tolist()] for part in rows.split(4)]
    assert sum(spaced_rows(texts, 10, count), []) == [str(i) for i in chosen]
