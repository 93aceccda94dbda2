"""Patches of images: which pixels a patch has and in which order, and how random patches are drawn."""

import pytest
import torch
import torch.nn.functional as F

from hf_pretext.modules.patches import (
    ASPECT,
    blocks_of_patches,
    draw_blocks,
    patchify,
    random_patches,
    square_of_patches,
    unpatchify,
)

CPU = torch.device("cpu")


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


def test_unpatchify_is_the_inverse_of_patchify():
    pixels = torch.randn(2, 3, 12, 12)
    assert torch.equal(unpatchify(patchify(pixels, 4), 4), pixels)


def test_blocks_have_the_sizes_and_aspects_of_beit():
    """Of 14 x 14 patches, 75 hidden: areas of 16 to 75 patches, ratios of the sides from 0.3 to 1 / 0.3."""
    top, left, height, width = draw_blocks(5_000, 14, 75, CPU)
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 14).all() and (left + width <= 14).all()
    area, ratio = (height * width).float(), height / width
    assert 12 <= area.min() <= 20 and 66 <= area.max() <= 84 and abs(area.mean() - (16 + 75) / 2) < 2
    assert 0.75 * ASPECT < ratio.min() < 1.1 * ASPECT and 0.9 / ASPECT < ratio.max() < 1 / (0.75 * ASPECT)
    assert ratio.log().mean().abs() < 0.02  # as often high as wide
    tops = torch.bincount(top[height == 7]).float()
    assert len(tops) == 8 and tops.std() < 0.15 * tops.mean()  # at any place


@pytest.mark.parametrize(("side", "ratio"), [(14, 0.4), (8, 0.6), (4, 0.4), (16, 0.9), (2, 0.5)])
def test_blocks_hide_an_exact_share_in_few_pieces(side, ratio):
    drawn = blocks_of_patches(200, side, ratio, CPU)
    assert drawn.shape == (200, side * side) and (drawn.sum(1) == round(side * side * ratio)).all()
    assert len(drawn.unique(dim=0)) > 1
    single = random_patches(200, side * side, ratio, CPU)
    if side > 4:  # neighbours share their fate
        assert edges(drawn, side) < 0.7 * edges(single, side)


def edges(drawn: torch.Tensor, side: int) -> float:
    """Neighbouring patches of which one is drawn, per image."""
    grid = drawn.unflatten(1, (side, side))
    return float((grid[:, 1:] != grid[:, :-1]).sum() + (grid[:, :, 1:] != grid[:, :, :-1]).sum()) / len(drawn)


@pytest.mark.parametrize(("side", "ratio", "length"), [(8, 0.25, 4), (8, 0.3, 4), (4, 0.99, 3), (8, 0.001, 1)])
def test_one_square_of_patches(side, ratio, length):
    drawn = square_of_patches(300, side, ratio, CPU).unflatten(1, (side, side))
    rows, columns = drawn.any(2), drawn.any(1)
    assert (rows.sum(1) == length).all() and (columns.sum(1) == length).all()
    assert (drawn.sum((1, 2)) == length**2).all() and (rows.int().diff(dim=1).abs().sum(1) <= 2).all()
    assert rows.any(0).all() and columns.any(0).all()  # at any place
