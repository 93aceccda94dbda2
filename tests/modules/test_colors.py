"""Changes of colour: the same as one after another, for each image by its own draws."""

import math

import pytest
import torch
from torchvision.transforms import v2

from hf_pretext.modules.colors import COLOR_DRAWS, GRAY, change_colors, hue_rotation

ALL = dict(jitter=0.4, hue=0.1, grayscale=0.2, channel_shuffle=0.5)


def images(count: int = 6, low: float = 0.0, high: float = 255.0) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, 3, 5, 7)


def one_after_another(image: torch.Tensor, draw: torch.Tensor, jitter, hue, grayscale, channel_shuffle) -> torch.Tensor:
    """One image in float64: hue, saturation, channels, brightness, contrast, and clamped at the end alone."""
    pixels, draw, gray = image.double().flatten(1), draw.double(), torch.tensor(GRAY, dtype=torch.float64)
    brightness, contrast, saturation = (1 + jitter * (2 * draw[:3] - 1)).tolist()
    axis = torch.full((3, 1), 1 / math.sqrt(3), dtype=torch.float64)
    angle = 2 * math.pi * hue * (2 * draw[4] - 1)
    along = axis * (axis * pixels).sum(0)
    around = torch.linalg.cross(axis.expand_as(pixels), pixels, dim=0)
    pixels = along + (pixels - along) * angle.cos() + around * angle.sin()
    level = gray @ pixels
    pixels = level + (0.0 if draw[3] < grayscale else saturation) * (pixels - level)
    if draw[5:8].float().sum() * 997 % 1 < channel_shuffle:
        pixels = pixels[draw[5:8].argsort()]
    pixels = brightness * pixels
    level = (gray @ pixels).mean()
    return (level + contrast * (pixels - level)).clamp(0, 255).view_as(image).float()


def test_all_changes_at_once_equal_one_after_another():
    pixels, draws = images(64), torch.rand(64, COLOR_DRAWS)
    expected = torch.stack([one_after_another(*both, **ALL) for both in zip(pixels, draws, strict=True)])
    found = change_colors(pixels, draws, **ALL)
    assert found.shape == pixels.shape and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    assert (found - pixels).abs().mean() > 10


def test_saturation_equals_torchvisions():
    pixels, draws = images(8, 40, 200), torch.full((8, COLOR_DRAWS), 0.5)
    draws[:, 2] = torch.linspace(0, 1, 8)
    found = change_colors(pixels, draws, jitter=0.4)
    for image, ours, draw in zip(pixels, found, draws, strict=True):
        expected = v2.functional.adjust_saturation(image / 255, 1 + 0.4 * (2 * draw[2].item() - 1)) * 255
        torch.testing.assert_close(ours, expected, atol=0.1, rtol=0)


def test_each_image_is_changed_by_its_own_draws_and_level():
    pixels, draws = images(), torch.rand(6, COLOR_DRAWS)
    together = change_colors(pixels, draws, **ALL)
    alone = torch.cat([change_colors(pixels[i : i + 1], draws[i : i + 1], **ALL) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-2, rtol=0)
    twice = change_colors(pixels[:1].expand(6, -1, -1, -1), draws, **ALL)
    assert all(not torch.allclose(twice[0], other, atol=1) for other in twice[1:])


def test_pixels_stay_between_0_and_255_and_the_input_as_it_was():
    pixels, draws = images(), torch.full((6, COLOR_DRAWS), 0.99)
    before = pixels.clone()
    found = change_colors(pixels, draws, jitter=1.0)
    assert found.min() == 0 and found.max() == 255
    assert torch.equal(pixels, before)


def test_without_settings_or_at_middle_draws_nothing_changes():
    pixels, middle = images(), torch.full((6, COLOR_DRAWS), 0.5)
    torch.testing.assert_close(change_colors(pixels, torch.rand(6, COLOR_DRAWS)), pixels, atol=1e-3, rtol=0)
    torch.testing.assert_close(change_colors(pixels, middle, jitter=0.4, hue=0.2), pixels, atol=1e-2, rtol=0)


def test_contrast_keeps_the_mean_grey():
    pixels, draws = images(6, 100, 150), torch.full((6, COLOR_DRAWS), 0.5)
    draws[:, 1] = 0.9
    gray = torch.tensor(GRAY)
    found = change_colors(pixels, draws, jitter=0.5)
    levels = [torch.einsum("bchw,c->b", values, gray) / 35 for values in (pixels, found)]
    torch.testing.assert_close(*levels, atol=1e-2, rtol=0)
    assert (found.std((1, 2, 3)) > 1.2 * pixels.std((1, 2, 3))).all()


@pytest.mark.parametrize(("turn", "order"), [(0, [0, 1, 2]), (1 / 3, [2, 0, 1]), (2 / 3, [1, 2, 0]), (1, [0, 1, 2])])
def test_a_third_of_the_circle_moves_each_channel_to_the_next(turn, order):
    rotation = hue_rotation(torch.tensor([2 * math.pi * turn]))[0]
    torch.testing.assert_close(rotation @ torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 2, 3])[order])


def test_hues_turn_by_rotations_that_keep_grey():
    angles = torch.tensor([0.3, -1.2, 2.5])
    rotations = hue_rotation(angles)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(3, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(3))
    torch.testing.assert_close(rotations.sum(2), torch.ones(3, 3))
    torch.testing.assert_close(rotations[0] @ rotations[1], hue_rotation(angles[:1] + angles[1:2])[0])
