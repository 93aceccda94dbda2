"""Lab colours against published values, and the bins of the ab plane."""

import pytest
import torch

from hf_pretext.modules.lab import NEAREST, AbBins, ab_bins, gray_of, lab_of, rgb_of

# sRGB of 8 bits and its CIE Lab under D65, as in Bruce Lindbloom's calculator (brucelindbloom.com), two digits
PUBLISHED = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (255, 255, 0): (97.14, -21.55, 94.48),
    (0, 255, 255): (91.11, -48.09, -14.13),
    (255, 0, 255): (60.32, 98.23, -60.82),
    (128, 128, 128): (53.59, 0.0, 0.0),
    (128, 0, 0): (25.54, 48.05, 38.06),
    (0, 0, 128): (12.97, 47.50, -64.70),
}


def image_of(color) -> torch.Tensor:
    return torch.tensor(color, dtype=torch.float32).view(1, 3, 1, 1)


@pytest.mark.parametrize("color", PUBLISHED)
def test_lab_is_that_of_the_published_table(color):
    lab = lab_of(image_of(color) / 255).flatten()
    torch.testing.assert_close(lab, torch.tensor(PUBLISHED[color]), atol=0.03, rtol=0)


def test_colors_come_back():
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(rgb_of(lab_of(images)), images, atol=1e-4, rtol=0)
    outside = rgb_of(image_of((50.0, 100.0, 100.0)))
    assert outside.min() >= 0 and outside.max() <= 1


def test_grey_has_the_lightness_of_the_color():
    images = torch.rand(4, 3, 16, 16)
    lab = lab_of(gray_of(images).expand(-1, 3, -1, -1))
    torch.testing.assert_close(lab[:, 0], lab_of(images)[:, 0], atol=1e-2, rtol=0)
    assert lab[:, 1:].abs().max() < 0.02


@pytest.mark.parametrize(("size", "count"), [(10, 259), (20, 75)])
def test_bins_are_those_with_a_color_of_srgb(size, count):
    bins = ab_bins(size)
    assert bins.shape == (count, 2) and (bins % size == 0).all()
    ab = lab_of(torch.rand(1, 3, 500, 500))[0, 1:].flatten(1).T
    assert torch.cdist(ab, bins).amin(1).max() <= size / 2**0.5 + 1  # each colour is in a bin, or at the edge of one


@pytest.mark.parametrize("size", [2, 10, 50])
def test_a_color_is_described_by_its_nearest_bins(size):
    bins = ab_bins(size)
    ab = torch.cat([lab_of(torch.rand(2, 3, 30, 40))[:, 1:], (torch.rand(1, 2, 30, 40) - 0.5) * 250])  # some are none
    weights, nearest = AbBins(size)(ab)
    assert weights.shape == nearest.shape == (3, 30, 40, NEAREST)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 30, 40))
    distance = torch.cdist(ab.movedim(1, -1).flatten(0, 2).double(), bins.double())
    least, _ = distance.topk(NEAREST, largest=False)
    torch.testing.assert_close(distance.gather(1, nearest.view(-1, NEAREST)), least, atol=1e-4, rtol=0)
    gaussian = torch.exp(-(least[5] ** 2) / 50)
    torch.testing.assert_close(weights.view(-1, NEAREST)[5].double(), gaussian / gaussian.sum(), atol=1e-4, rtol=1e-3)


def test_smoothed_shares_sum_to_1_and_leave_no_near_bin_empty():
    bins = ab_bins(10)
    shares = torch.zeros(len(bins))
    center = (bins == 0).all(1).nonzero().item()
    shares[center] = 1.0
    result = AbBins(10).smoothed(shares)
    torch.testing.assert_close(result.sum(), torch.tensor(1.0))
    assert result.argmax() == center and (result[(bins.norm(dim=1) <= 10)] > 0.05).all()
