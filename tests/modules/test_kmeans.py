"""K-means: centres lie apart, settle, and none is left without points."""

import pytest
import torch
from codebooks import fitted, one_thread, pixels_of, unlike  # noqa: F401

from hf_pretext.modules import codebook as quantize
from hf_pretext.modules import kmeans
from hf_pretext.modules.codebook import PatchCodebook
from hf_pretext.modules.patches import patchify


def test_first_centres_lie_apart():
    crowd = torch.full((17, 5), 3.0) + 0.01 * torch.randn(17, 5)
    points = torch.cat([crowd, 10 * torch.eye(5), -10 * torch.eye(5)[:2]])[torch.randperm(24)]
    centres = kmeans.first_centres(points, torch.ones(24), 8, seed=0)
    assert (torch.cdist(centres, crowd).amin(1) < 1).sum() == 1
    assert all(any(torch.equal(centre, point) for point in points) for centre in centres)


@pytest.mark.parametrize("tile", [1, 200, 32 * 700])  # a patch, some, not a whole number of tiles
def test_codes_do_not_depend_on_how_many_scores_are_held(emoji, tile, monkeypatch):
    pictures = pixels_of(emoji())
    codebook = fitted(pictures)
    expected, largest = codebook(pictures), []
    product = torch.addmm
    monkeypatch.setattr(kmeans, "TILE", tile)
    monkeypatch.setattr(torch, "addmm", lambda *given: largest.append(product(*given).numel()) or product(*given))
    assert torch.equal(codebook(pictures), expected)
    assert max(largest) <= max(tile, 32)


def test_centres_tell_patches_apart_as_well_as_k_means(emoji):
    pictures = pixels_of(emoji())
    from sklearn.cluster import KMeans

    patches = patchify(pictures, 8).flatten(0, 1).numpy()
    codebook = PatchCodebook(32, 8)
    best = KMeans(32, n_init=3, random_state=0).fit(patches).inertia_ / patches.size
    drawn = torch.cdist(torch.from_numpy(patches), torch.from_numpy(patches[:32])).amin(1).square().sum() / patches.size
    error = codebook.fit([pictures], progress=False)["error"]
    assert error < 1.1 * best
    assert error < 0.8 * drawn


def test_mini_batches_bring_centres_nearer(emoji, monkeypatch):
    pictures = pixels_of(emoji())
    monkeypatch.setattr(kmeans, "BATCH", 100)
    points, weights = kmeans.distinct(patchify(pictures, 8).flatten(0, 1))
    first = points[torch.randperm(len(points))[:32]]
    with quantize.bar(len(points), "", False) as shown:
        moved = kmeans.mini_batches(points, weights, first, shown)
    before, after = (float((kmeans.nearest(points, c)[1] * weights).sum()) for c in (first, moved))
    assert after < 0.9 * before


def test_codes_that_nobody_uses_get_other_patches(emoji, monkeypatch):
    pictures = pixels_of(emoji())
    usual = PatchCodebook(64, 8).fit([pictures], progress=False)
    monkeypatch.setattr(kmeans, "first_centres", lambda points, weights, size, seed: points[:1].repeat(size, 1))
    alive, dead = PatchCodebook(64, 8), PatchCodebook(64, 8)
    told = alive.fit([pictures], progress=False)
    monkeypatch.setattr(kmeans, "reseed", lambda *given: None)
    assert dead.fit([pictures], progress=False)["dead"] > 40
    assert told["dead"] == 0 and told["error"] < 1.2 * usual["error"]
    assert alive.counts.min() >= 1 and unlike(alive(pictures)) == 64


def test_no_code_is_lost_to_what_is_a_centre_already(monkeypatch):
    """Where nearly all patches are the same white, it would be drawn again and again."""
    monkeypatch.setattr(kmeans, "first_centres", lambda points, weights, size, seed: points[:1].repeat(size, 1))
    pictures = torch.cat([torch.ones(20_000, 3, 8, 8), torch.randn(3, 3, 8, 8)])
    codebook = PatchCodebook(4, 8)
    assert codebook.fit([pictures], progress=False)["dead"] == 0
    assert codebook.counts.sort().values.tolist() == [1, 1, 1, 20_000]


def test_codes_of_odd_patches_are_given_to_the_many(emoji, monkeypatch):
    """Of first centres on noise, which no other patch is like, each would keep a single patch."""
    pictures = pixels_of(emoji())
    data = [torch.cat([20 * torch.randn(2, 3, 32, 32), pictures])]

    def brightest(points, weights, size, seed):
        return points[points.square().sum(1).argsort(descending=True)[:size]]

    monkeypatch.setattr(kmeans, "first_centres", brightest)
    given, kept = PatchCodebook(64, 8), PatchCodebook(64, 8)
    given.fit(data, progress=False)
    monkeypatch.setattr(kmeans, "RARE", 0.0)
    kept.fit(data, progress=False)
    assert (kept.counts == 1).sum() >= 32
    assert (given.counts == 1).sum() < 16 and given.perplexity > 1.2 * kept.perplexity


def test_a_white_background_takes_one_code(emoji):
    """Where 9 of 10 patches are the same white, as in many sets of drawings."""
    pictures = pixels_of(emoji())
    white = torch.ones(576, 3, 32, 32)
    codebook = PatchCodebook(64, 8)
    told = codebook.fit(torch.cat([white, pictures]).split(64), progress=False)
    assert told["patches"] == 10_240 and told["dead"] == 0
    assert len(codebook.centres.unique(dim=0)) == 64
    assert unlike(codebook(white)) == 1 and unlike(codebook(pictures)) == 64
    alone = PatchCodebook(63, 8).fit([pictures], progress=False)["error"]
    assert told["error"] * 10 < 1.2 * alone  # white has none, and takes no code from the rest
