"""K-means: centres lie apart, settle, and none is left without points."""

from types import SimpleNamespace

import pytest
import torch
from codebooks import fitted, one_thread, pixels_of, unlike  # noqa: F401
from tqdm.auto import tqdm

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
    images = pixels_of(emoji())
    codebook = fitted(images)
    expected, largest = codebook(images), []
    product = torch.addmm
    monkeypatch.setattr(kmeans, "TILE", tile)
    monkeypatch.setattr(torch, "addmm", lambda *given: largest.append(product(*given).numel()) or product(*given))
    assert torch.equal(codebook(images), expected)
    assert max(largest) <= max(tile, 32)


def test_centres_distinguish_patches_as_well_as_k_means(emoji):
    images = pixels_of(emoji())
    from sklearn.cluster import KMeans

    patches = patchify(images, 8).flatten(0, 1).numpy()
    codebook = PatchCodebook(32, 8)
    best = KMeans(32, n_init=3, random_state=0).fit(patches).inertia_ / patches.size
    drawn = torch.cdist(torch.from_numpy(patches), torch.from_numpy(patches[:32])).amin(1).square().sum() / patches.size
    error = codebook.fit([images], progress=False)["error"]
    assert error < 1.1 * best
    assert error < 0.8 * drawn


def test_mini_batches_bring_centres_nearer(emoji, monkeypatch):
    images = pixels_of(emoji())
    monkeypatch.setattr(kmeans, "BATCH", 100)
    points, weights = kmeans.distinct(patchify(images, 8).flatten(0, 1))
    first = points[torch.randperm(len(points))[:32]]
    with bar(points) as shown:
        moved = kmeans.mini_batches(points, weights, first, shown)
    before, after = (float((kmeans.nearest(points, c)[1] * weights).sum()) for c in (first, moved))
    assert after < 0.9 * before


def test_codes_that_nobody_uses_get_other_patches(emoji, monkeypatch):
    images = pixels_of(emoji())
    usual = PatchCodebook(64, 8).fit([images], progress=False)
    monkeypatch.setattr(kmeans, "first_centres", lambda points, weights, size, seed: points[:1].repeat(size, 1))
    alive, dead = PatchCodebook(64, 8), PatchCodebook(64, 8)
    fit = alive.fit([images], progress=False)
    monkeypatch.setattr(kmeans, "reseed", lambda *given: None)
    assert dead.fit([images], progress=False)["dead"] > 40
    assert fit["dead"] == 0 and fit["error"] < 1.2 * usual["error"]
    assert alive.counts.min() >= 1 and unlike(alive(images)) == 64


def test_no_code_is_lost_to_what_is_a_centre_already(monkeypatch):
    """Where nearly all patches are the same white, it would be drawn again and again."""
    monkeypatch.setattr(kmeans, "first_centres", lambda points, weights, size, seed: points[:1].repeat(size, 1))
    images = torch.cat([torch.ones(20_000, 3, 8, 8), torch.randn(3, 3, 8, 8)])
    codebook = PatchCodebook(4, 8)
    assert codebook.fit([images], progress=False)["dead"] == 0
    assert codebook.counts.sort().values.tolist() == [1, 1, 1, 20_000]


def test_codes_of_odd_patches_are_given_to_the_many(emoji, monkeypatch):
    """Of first centres on noise, which no other patch is like, each would keep a single patch."""
    images = pixels_of(emoji())
    data = [torch.cat([20 * torch.randn(2, 3, 32, 32), images])]

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
    images = pixels_of(emoji())
    white = torch.ones(576, 3, 32, 32)
    codebook = PatchCodebook(64, 8)
    fit = codebook.fit(torch.cat([white, images]).split(64), progress=False)
    assert fit["patches"] == 10_240 and fit["dead"] == 0
    assert len(codebook.centres.unique(dim=0)) == 64
    assert unlike(codebook(white)) == 1 and unlike(codebook(images)) == 64
    alone = PatchCodebook(63, 8).fit([images], progress=False)["error"]
    assert fit["error"] * 10 < 1.2 * alone  # white has none, and takes no code from the rest


def bar(points: torch.Tensor) -> tqdm:
    return tqdm(total=len(points), disable=True)


def test_the_nearest_centre_and_its_squared_distance():
    points, centres = torch.tensor([[0.0, 0], [3, 4], [9, 0]]), torch.tensor([[0.0, 0], [10, 0]])
    codes, distances = kmeans.nearest(points, centres)
    assert codes.tolist() == [0, 0, 1] and distances.tolist() == [0, 25, 1]
    points, centres = torch.randn(500, 7), torch.randn(20, 7)
    codes, distances = kmeans.nearest(points, centres)
    expected = torch.cdist(points.double(), centres.double()).min(1)
    assert torch.equal(codes, expected.indices)
    torch.testing.assert_close(distances, expected.values.square().float())


def test_points_that_are_alike_are_one_with_their_number():
    points = torch.tensor([[1.0, 2], [0, 0], [1, 2], [2, 1], [1, 2]])
    different, counts = kmeans.distinct(points)
    found = {tuple(point): count for point, count in zip(different.tolist(), counts.tolist(), strict=True)}
    assert found == {(1, 2): 3, (0, 0): 1, (2, 1): 1} and len(different) == 3


def test_means_are_weighted_and_a_centre_without_points_stays(monkeypatch):
    points, weights = torch.tensor([[0.0, 0], [4, 8], [1, 1]]), torch.tensor([1.0, 3, 5])
    centres = torch.tensor([[7.0, 7], [9, 9], [2, 2]])
    for tile in (1, 2**24):  # a point at a time, all at once
        monkeypatch.setattr(kmeans, "TILE", tile)
        found = kmeans.means_of(points, weights, torch.tensor([0, 0, 2]), centres)
        assert found.tolist() == [[3, 6], [9, 9], [1, 1]] and found.dtype == torch.float32


def test_rare_centres_go_to_points_that_are_no_centre():
    points = torch.arange(5.0)[:, None]
    chances = torch.tensor([0.0, 0, 1, 1, 0])
    centres, rare = -torch.ones(4, 1), torch.tensor([True, False, True, True])
    kmeans.reseed(centres, rare, torch.tensor([2.0, 0, 0, 1]), points, chances, torch.Generator().manual_seed(0))
    assert centres[:2].flatten().tolist() == [-1, -1]  # the fullest of the rare, and one that is not rare
    assert sorted(centres[2:].flatten().tolist()) == [2, 3]
    kmeans.reseed(centres, rare, torch.zeros(4), points, torch.zeros(5), torch.Generator())
    assert sorted(centres.flatten().tolist()) == [-1, -1, 2, 3]


def test_planted_clusters_are_found_with_their_weights(monkeypatch):
    monkeypatch.setattr(kmeans, "FIRST", 1000)  # or the first centres are chosen among 18 points, which may miss some
    middles = 20 * torch.eye(6)
    kinds = torch.arange(6).repeat_interleave(torch.tensor([40, 60, 80, 120, 160, 200]))
    points, weights = middles[kinds] + torch.randn(len(kinds), 6), torch.randint(1, 5, (len(kinds),)).float()
    centres, counts, distances = kmeans.k_means(points, weights, 6, 0, bar(points))
    of = torch.cdist(middles, centres).argmin(1)
    assert of.sort().values.tolist() == list(range(6))
    for kind in range(6):
        weight, inside = weights[kinds == kind], points[kinds == kind]
        assert counts[of[kind]] == weight.sum()
        torch.testing.assert_close(centres[of[kind]], (inside * weight[:, None]).sum(0) / weight.sum())
    torch.testing.assert_close(distances, (points - centres[of[kinds]]).square().sum(1), atol=1e-3, rtol=1e-4)


def test_inertia_is_as_low_as_scikit_learns():
    from sklearn.cluster import KMeans

    points, weights = torch.randn(1500, 4) * torch.tensor([4.0, 2, 1, 1]), torch.randint(1, 9, (1500,)).float()
    best = KMeans(20, n_init=3, random_state=0).fit(points.numpy(), sample_weight=weights.numpy()).inertia_
    _, _, distances = kmeans.k_means(points, weights, 20, 0, bar(points))
    assert (distances * weights).sum() < 1.1 * best


def test_the_seed_says_which_centres():
    points, weights = torch.randn(300, 3), torch.ones(300)
    one, same, other = (kmeans.k_means(points, weights, 10, seed, bar(points))[0] for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_points_are_counted_once_for_each_pass():
    points, shown = torch.randn(300, 3), []
    kmeans.k_means(points, torch.ones(300), 10, 0, SimpleNamespace(update=shown.append))
    assert sum(shown) == kmeans.PASSES * 300
