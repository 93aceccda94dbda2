"""Tiles of images: where they are cut, what they hide, and which encoders take them."""

import numpy as np
import pytest
import torch
from conftest import CONFIGS, IMAGE_ENCODERS

from hf_pretext.encoders import build_encoder
from hf_pretext.modules.tiles import TileTask, check_takes, cut_tiles, encode_tiles, standardized, tile_side


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(images: np.ndarray, grid: int, side: int, shift: int) -> np.ndarray:
    """Tiles cut one by one, with the same draws."""
    batch, channels, size, _ = images.shape
    cell, room, random = size // grid, size // grid - side, seeded()
    places = torch.randint(room + 1, (2, batch, grid * grid, 1), generator=random).expand(-1, -1, -1, channels)
    moved = torch.zeros(2, batch, grid * grid, channels, dtype=torch.long)
    if shift:
        moved = torch.randint(-shift, shift + 1, moved.shape, generator=random)
    tiles = np.empty((batch, grid * grid, channels, side, side), images.dtype)
    for b in range(batch):
        for n in range(grid * grid):
            for c in range(channels):
                y, x = (min(max(int(places[i, b, n, c] + moved[i, b, n, c]), 0), room) for i in range(2))
                top, left = n // grid * cell + y, n % grid * cell + x
                tiles[b, n, c] = images[b, c, top : top + side, left : left + side]
    return tiles


@pytest.mark.parametrize(
    ("size", "grid", "side", "shift"), [(24, 3, 6, 0), (24, 2, 9, 2), (25, 3, 8, 3), (16, 4, 4, 0)]
)
def test_tiles_are_those_of_the_reference(size, grid, side, shift):
    images = torch.rand(3, 3, size, size)
    tiles = cut_tiles(images, grid, side, shift, seeded())
    assert np.array_equal(tiles.numpy(), reference(images.numpy(), grid, side, shift))


@pytest.mark.parametrize("shift", [0, 5])
def test_tiles_stay_in_their_cells(shift):
    """Each cell is painted in a colour of its own: a tile has one colour."""
    colors = torch.arange(9.0).view(1, 1, 3, 3).expand(50, 3, -1, -1)
    images = colors.repeat_interleave(10, 2).repeat_interleave(10, 3)
    tiles = cut_tiles(images, 3, 7, shift)
    assert torch.equal(tiles, torch.arange(9.0).view(1, 9, 1, 1, 1).expand(50, 9, 3, 7, 7))


def test_all_places_of_a_cell_are_drawn_equally_often():
    rows = torch.arange(12.0).view(1, 1, 12, 1).expand(4_000, 1, 12, 12)
    tops = cut_tiles(rows, 2, 4)[..., 0, 0].flatten()
    counts = torch.bincount(tops.long(), minlength=12)
    assert counts[3:6].sum() == 0 and counts[9:].sum() == 0
    assert (counts[[0, 1, 2, 6, 7, 8]] / 16_000 - 1 / 6).abs().max() < 0.015


@pytest.mark.parametrize(("apart", "least", "most"), [(0, 0, 8), (3, 3, 5), (4, 4, 4), (9, 4, 4)])
def test_tiles_are_as_far_apart_as_asked_or_as_there_is_room(apart, least, most):
    rows = torch.arange(36.0).view(1, 1, 36, 1).expand(2_000, 1, 36, 36)
    tops = cut_tiles(rows, 3, 8, apart=apart)[..., 0, 0, 0].view(-1, 3, 3)  # cells of 12 pixels
    distance = tops.diff(dim=1) - 8
    assert (distance.min(), distance.max()) == (least, most)
    assert (tops.mean((0, 2)) - torch.tensor([2.0, 14.0, 26.0])).abs().max() < 0.6  # about the middle


def test_channels_are_moved_apart():
    images = torch.arange(20.0).expand(100, 3, 20, 20)
    tiles = cut_tiles(images, 2, 4, channel_shift=2)
    lefts = tiles[..., 0, 0]  # (B, cells, C): column of each channel
    assert (lefts[..., 0] != lefts[..., 1]).any() and (lefts.amax(2) - lefts.amin(2)).max() <= 4
    still = cut_tiles(images, 2, 4)[..., 0, 0]
    assert torch.equal(still[..., 0], still[..., 1])


def test_standardized_tiles_have_mean_0_and_deviation_1():
    tiles = torch.rand(5, 4, 3, 8, 8) * 7 + 3
    tiles[0, 0] = 4.0  # constant
    result = standardized(tiles)
    assert torch.equal(result[0, 0], torch.zeros(3, 8, 8))
    torch.testing.assert_close(result[1:].mean((-3, -2, -1)), torch.zeros(4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(result[1:].std((-3, -2, -1)), torch.ones(4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardized(3 * tiles[1:] + 1), result[1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "settings", "side"),
    [
        ("resnet", {}, 27),
        ("resnet", {"gap": 5}, 27),
        ("resnet", {"gap": 0}, 32),
        ("vit", {}, 24),
        ("vit", {"gap": 2}, 30),
        ("vit", {"tile_size": 32}, 27),  # resized, so it need not be a multiple of the patch size
    ],
)
def test_side_of_a_tile(name, settings, side):
    encoder, images = build_encoder(CONFIGS[name]()), torch.zeros(1, 3, 96, 96)
    assert tile_side(encoder, images, 3, TileTask(**settings), 7) == side


def test_a_side_that_leaves_no_tile_is_refused():
    encoder = build_encoder(CONFIGS["resnet"]())
    with pytest.raises(ValueError, match="Cells of 10x10 pixels have no room for a tile with a gap of 10 pixels"):
        tile_side(encoder, torch.zeros(1, 3, 30, 30), 3, TileTask(gap=10), 7)
    with pytest.raises(ValueError, match="Cells of 0x0 pixels have no room for a tile with a gap of 0 pixels"):
        tile_side(encoder, torch.zeros(1, 3, 2, 2), 3, TileTask(), 7)
    with pytest.raises(ValueError, match=r"square images, but got 30x32 .* give --image_size"):
        tile_side(encoder, torch.zeros(1, 3, 30, 32), 3, TileTask(), 7)


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_an_encoder_takes_tiles_or_says_which(name):
    encoder, tiles = build_encoder(CONFIGS[name]()), torch.rand(4, 3, 24, 24)
    if name in ("swin", "timm_vit_tiny", "convnext"):
        with pytest.raises(ValueError, match=r"does not take tiles of 24x24 pixels: .*Give --tile_size \d+"):
            encode_tiles(encoder, tiles)
        fresh = build_encoder(CONFIGS[name]())  # Swin keeps the windows of the smallest image that it saw
        assert len(encode_tiles(fresh, tiles, tile_size=32)) == 4
    else:
        assert len(encode_tiles(encoder, tiles)) == 4


def test_a_tile_that_is_no_multiple_of_the_patch_size_is_refused():
    with pytest.raises(ValueError, match=r"tiles of 27x27 pixels: 27 is not a multiple of its patch size 8"):
        encode_tiles(build_encoder(CONFIGS["vit"]()), torch.rand(2, 3, 27, 27))


def test_trying_a_size_changes_nothing():
    encoder, state = build_encoder(CONFIGS["resnet"]()).train(), torch.get_rng_state()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    check_takes(encoder, 24, {})
    assert encoder.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
