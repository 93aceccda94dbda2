"""Patches of images: which pixels a patch has and in which order, and how random patches are drawn."""

import pytest
import torch
import torch.nn.functional as F

from hf_pretext.modules.patches import patchify, random_patches


def draw(batch: int, patches: int, ratio: float, seed: int = 0) -> torch.Tensor:
    return random_patches(batch, patches, ratio, torch.device("cpu"), torch.Generator().manual_seed(seed))


def test_patches_lie_row_by_row_and_hold_channel_row_column():
    pixels = torch.arange(16).view(1, 2, 2, 4)  # two channels of 2 x 4 pixels
    assert patchify(pixels, 2).tolist() == [[[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]]


def test_patches_put_back_are_the_image():
    pixels = torch.randn(2, 3, 12, 20)
    patches = patchify(pixels, 4)
    assert patches.shape == (2, 3 * 5, 3 * 16)
    assert torch.equal(F.fold(patches.mT, (12, 20), 4, stride=4), pixels)


def test_patches_times_a_kernel_are_a_patch_embedding():
    pixels, embedding = torch.randn(2, 3, 16, 24), torch.nn.Conv2d(3, 5, 8, stride=8)
    expected = embedding(pixels).flatten(2).mT
    torch.testing.assert_close(F.linear(patchify(pixels, 8), embedding.weight.flatten(1), embedding.bias), expected)


@pytest.mark.parametrize(("height", "width"), [(10, 8), (8, 10)])
def test_sides_that_are_no_multiples_are_refused(height, width):
    with pytest.raises(ValueError, match=f"Images of {height}x{width} pixels can't be cut into patches of 4x4"):
        patchify(torch.zeros(1, 3, height, width), 4)


@pytest.mark.parametrize(("ratio", "count"), [(0.4, 6), (0.47, 8), (0.01, 1), (1.0, 16)])
def test_each_image_has_as_many_patches_drawn_as_asked_and_at_least_one(ratio, count):
    drawn = draw(50, 16, ratio)
    assert drawn.shape == (50, 16) and drawn.dtype == torch.bool
    assert drawn.sum(1).tolist() == [count] * 50


def test_patches_are_drawn_again_for_each_image_and_all_alike():
    drawn = draw(4000, 10, 0.3)
    assert len(drawn.unique(dim=0)) == 120  # ways to draw 3 of 10
    assert torch.allclose(drawn.float().mean(0), torch.tensor(0.3), atol=0.03)


def test_the_same_generator_draws_the_same_patches():
    assert torch.equal(draw(8, 16, 0.5), draw(8, 16, 0.5)) and not torch.equal(draw(8, 16, 0.5), draw(8, 16, 0.5, 1))
