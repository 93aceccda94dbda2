import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS
from contract import check_bfloat16, check_contract

from hf_pretext.encoders import build_encoder
from hf_pretext.objectives.relative_position import RelativePositionForPreTraining, dropped, pixelated, projected

SIDE = 48


def model_of(name: str = "resnet", **settings) -> RelativePositionForPreTraining:
    return RelativePositionForPreTraining.from_encoder(build_encoder(CONFIGS[name]()), **settings)


@pytest.mark.parametrize("name", ["vit", "siglip_vision", "resnet", "regnet", "timm_efficientnet_b0"])
def test_contract(name, tmp_path):
    batch = {"pixel_values": torch.randn(2, 3, SIDE, SIDE)}
    check_contract(RelativePositionForPreTraining, build_encoder(CONFIGS[name]()), batch, tmp_path)


@pytest.mark.parametrize("side", [48, 96, 192])
def test_neighbouring_tiles_are_about_as_far_apart_as_in_the_paper(side):
    """There, tiles of 96 pixels are 48 pixels apart, give or take 7."""
    tiles = model_of(color="keep").tiles(torch.arange(float(side)).expand(500, 3, side, side))
    lefts = tiles[:, :, 0, 0, 0].view(-1, 3, 3)
    distance = (lefts.diff(dim=2) - tiles.shape[-1]) / tiles.shape[-1]
    assert distance.min() >= 0.35 and distance.max() <= 0.7 and distance.min() < distance.max()


@pytest.mark.parametrize("color", ["drop", "project", "keep"])
def test_loss_is_that_of_pairs_one_by_one(color):
    model = model_of(color=color, pixelated_share=0.5, standardize=True).eval()
    images = torch.randn(3, 3, SIDE, SIDE)
    output, losses = model(pixel_values=images), []
    for tiles in model.tiles(images):
        features = model.encoder(tiles).last_hidden_state.mean((2, 3))
        for label, place in enumerate([0, 1, 2, 3, 5, 6, 7, 8]):
            logits = model.pretext_head(torch.cat([features[4], features[place]])[None])
            losses.append(F.cross_entropy(logits, torch.tensor([label])))
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    assert output.features.shape == (27, 16) and output.logits.shape == (24, 8)
    assert output.labels.tolist() == 3 * list(range(8))


def test_dropped_channels_are_noise_of_a_hundredth():
    tiles = torch.randn(300, 3, 16, 16) * 5
    result = dropped(tiles)
    same = (result == tiles).flatten(2).all(2)
    assert (same.sum(1) == 1).all()  # one channel is kept
    assert (same.float().mean(0) - 1 / 3).abs().max() < 0.1
    deviation = result.std((2, 3))
    noise = deviation[~same].view(300, 2) / deviation[same][:, None]
    assert (noise.mean() - 0.01).abs() < 0.001


def test_projection_is_idempotent_and_hides_aberration():
    tiles = torch.rand(4, 9, 3, 8, 8)
    once = projected(tiles)
    torch.testing.assert_close(projected(once), once)
    assert (once - tiles).abs().max() > 0.01
    aberration = torch.tensor([-1.0, 2.0, -1.0]).view(3, 1, 1) * torch.rand(4, 9, 1, 8, 8)
    torch.testing.assert_close(projected(tiles + aberration), once)


def test_autocast_leaves_no_aberration_in_projected_tiles():
    tiles = torch.rand(4, 9, 3, 8, 8)
    aberration = torch.tensor([-1.0, 2.0, -1.0]).view(3, 1, 1) * torch.rand(4, 9, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        once, again = projected(tiles), projected(tiles + aberration)
    assert once.dtype == torch.float32
    torch.testing.assert_close(again, once)


def test_pixelated_tiles_have_fewer_different_pixels():
    tiles = torch.arange(400.0).view(20, 20).expand(200, 9, 3, -1, -1)
    result = pixelated(tiles, 0.4)
    counts = torch.tensor([len(tile[0].unique()) for tile in result.flatten(0, 1)])
    assert ((counts == 400).float().mean() - 0.6 - 0.4 / 11).abs() < 0.04  # of 11 sizes one is the tile's
    assert counts.min() == 100 and set(counts.tolist()) == {n * n for n in range(10, 21)}
    assert torch.equal(pixelated(tiles, 1e-9), tiles)
    small = torch.rand(2, 9, 3, 6, 6)
    assert torch.equal(pixelated(small, 1.0), small)  # nothing is coarser than 10 pixels


def test_pixels_of_one_square_are_one_of_them():
    tiles = torch.arange(20.0).expand(50, 9, 3, 20, 20)
    rows = pixelated(tiles, 1.0)[:, :, 0, 0]
    assert (rows <= torch.arange(20)).all() and (rows.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("color", ["drop", "project", "keep"])
def test_bfloat16_gives_about_the_loss_of_float32(color):
    check_bfloat16(model_of("vit", color=color), {"pixel_values": torch.rand(4, 3, SIDE, SIDE)})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixelated_share": 2.0}, "pixelated_share must be between 0 and 1"),
        ({"head_dim": 0}, "head_dim must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        model_of(**settings)
