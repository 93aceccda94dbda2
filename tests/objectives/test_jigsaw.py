import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS
from contract import check_bfloat16, check_contract

from hf_pretext.encoders import build_encoder
from hf_pretext.modules.tiles import standardized
from hf_pretext.objectives.jigsaw import (
    MOST,
    JigsawForPreTraining,
    JigsawTask,
    candidates_of,
    distant,
    mosaic,
    reordered,
)

SIDE = 48


def model_of(name: str = "resnet", **settings) -> JigsawForPreTraining:
    return JigsawForPreTraining.from_encoder(build_encoder(CONFIGS[name]()), **{"num_permutations": 8, **settings})


@pytest.mark.parametrize("name", ["vit", "dinov2", "resnet", "clip_vision", "timm_resnet18", "dinov3"])
def test_contract(name, tmp_path):
    batch = {"pixel_values": torch.randn(2, 3, SIDE, SIDE)}
    check_contract(JigsawForPreTraining, build_encoder(CONFIGS[name]()), batch, tmp_path, grid=2, num_permutations=24)


@pytest.mark.parametrize("name", ["swin", "convnext", "timm_vit_tiny"])
def test_contract_with_resized_tiles(name, tmp_path):
    batch = {"pixel_values": torch.randn(2, 3, SIDE, SIDE)}
    check_contract(
        JigsawForPreTraining, build_encoder(CONFIGS[name]()), batch, tmp_path, grid=2, num_permutations=4, tile_size=32
    )


@pytest.mark.parametrize(
    ("tiles", "count", "least"), [(4, 24, 2), (9, 64, 7), (9, 100, 6), (9, 1_000, 5), (16, 100, 12)]
)
def test_permutations_differ_in_many_places(tiles, count, least):
    orders = distant(tiles, count)
    assert orders.shape == (count, tiles) and (np.sort(orders, axis=1) == np.arange(tiles)).all()
    distances = (orders[:, None] != orders[None]).sum(2)
    assert distances[~np.eye(count, dtype=bool)].min() >= least
    assert len(np.unique(orders, axis=0)) == count


def test_the_candidates_are_different_and_enough_for_the_largest_set():
    """Random orders of nine tiles repeat: 100,000 draws have 87,486 different ones."""
    candidates = candidates_of(9)
    assert len(np.unique(candidates, axis=0)) == len(candidates) < 100_000
    most = JigsawTask(num_permutations=MOST).num_permutations
    assert most <= len(candidates) and most <= len(candidates_of(16))
    assert len(candidates_of(4)) == 24


def test_each_permutation_is_the_farthest_from_those_before():
    orders = distant(4, 24).tolist()
    left = [list(order) for order in orders]
    for at in range(1, 24):
        nearest = {
            tuple(o): min(sum(x != y for x, y in zip(o, b, strict=True)) for b in orders[:at]) for o in left[at:]
        }
        assert nearest[tuple(orders[at])] == max(nearest.values())


def test_the_label_says_the_order():
    """Cells are painted with their numbers: the shuffled tiles show the permutation."""
    model = model_of(gray_share=0.0, channel_shift=2)
    cells = torch.arange(9.0).view(1, 1, 3, 3).repeat_interleave(16, 2).repeat_interleave(16, 3)
    tiles, labels = model.shuffled(cells.expand(200, 3, -1, -1))
    shown = tiles.mean((2, 3, 4)).round().long()
    assert torch.equal(shown, model.pretext_head.permutations[labels])
    assert len(labels.unique()) == 8
    assert torch.equal(reordered(tiles, shown.argsort(1)).mean((2, 3, 4)).round().long()[0], torch.arange(9))


def test_loss_is_that_of_tiles_one_by_one():
    model = model_of("vit", num_permutations=6).eval()
    images = torch.randn(3, 3, SIDE, SIDE)
    output = model(pixel_values=images)
    tiles, labels = model.shuffled(images)
    losses = []
    for image, label in zip(tiles, labels, strict=True):
        each = [
            model.encoder(standardized(tile)[None], interpolate_pos_encoding=True).last_hidden_state.mean(1)
            for tile in image
        ]
        joined = torch.cat([model.pretext_head["tile"](feature) for feature in each], dim=1)
        losses.append(F.cross_entropy(model.pretext_head["permutation"](joined), label[None]))
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    assert output.features.shape == (27, 32) and output.logits.shape == (3, 6)


def test_grey_images_have_equal_channels():
    model, images = model_of(gray_share=1.0), torch.rand(4, 3, SIDE, SIDE)
    tiles, _ = model.shuffled(images)
    assert torch.equal(tiles[:, :, 0], tiles[:, :, 1])
    tiles, _ = model_of(gray_share=0.0).shuffled(images)
    assert not torch.equal(tiles[:, :, 0], tiles[:, :, 1])


def test_brightness_of_an_image_changes_nothing_of_standardized_tiles():
    images = torch.rand(4, 3, SIDE, SIDE)
    model = model_of().eval()
    torch.testing.assert_close(model(pixel_values=images).loss, model(pixel_values=2 * images + 1).loss)
    model = model_of(standardize=False).eval()
    assert (model(pixel_values=images).loss - model(pixel_values=2 * images + 1).loss).abs() > 1e-4


def test_the_permutations_come_from_the_checkpoint(tmp_path):
    model = model_of()
    model.pretext_head.permutations.copy_(model.pretext_head.permutations.flip(0))
    model.save_pretrained(tmp_path)
    loaded = JigsawForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded.pretext_head.permutations, model.pretext_head.permutations)
    assert not torch.equal(loaded.pretext_head.permutations, torch.from_numpy(distant(9, 8)))


def test_illustration_shows_the_shuffled_tiles_and_the_predicted_order(monkeypatch):
    """Cells are painted with their numbers, and each image gets the logits of its permutation."""
    model = model_of(num_permutations=64).eval()
    numbers = torch.arange(9.0).view(1, 9, 1, 1, 1)
    images = numbers.view(1, 1, 3, 3).repeat_interleave(16, 2).repeat_interleave(16, 3).expand(6, 3, -1, -1)
    tiles, labels = model.shuffled(images)
    perfect = F.one_hot(labels, 64).float()
    monkeypatch.setattr(model.pretext_head["permutation"], "forward", lambda features: perfect)
    shown = model.illustrate(pixel_values=images)
    assert list(shown) == ["image", "shuffled", "predicted order"] and torch.equal(shown["image"], images)
    assert torch.equal(shown["shuffled"], mosaic(tiles))
    assert torch.equal(shown["predicted order"], mosaic(numbers.expand_as(tiles)))
    assert not torch.equal(shown["predicted order"], shown["shuffled"])


def test_bfloat16_gives_about_the_loss_of_float32():
    check_bfloat16(model_of("vit"), {"pixel_values": torch.rand(4, 3, SIDE, SIDE)})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": 1}, "grid must be at least 2"),
        ({"grid": 2, "num_permutations": 25}, "between 2 and 24 for 4 tiles, but is 25"),
        ({"num_permutations": 1}, "between 2 and 50,000 for 9 tiles"),
        ({"gray_share": 1.5}, "gray_share must be between 0 and 1"),
        ({"channel_shift": -1}, "channel_shift must be at least 0"),
        ({"gap": -1}, "gap must be 0 or more"),
        ({"tile_size": 0}, "tile_size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        model_of(**settings)
