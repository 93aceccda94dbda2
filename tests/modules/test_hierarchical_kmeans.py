"""Hierarchical k-means: planted clusters of clusters, empty leaves, and the nearest centres by hand."""

import pytest
import torch

from hf_pretext.modules.hierarchical_kmeans import fit_tree, leaves


def planted(branches: int = 3, per_leaf: int = 40, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in `branches` far apart clusters, each of `branches` near ones, and the number of the near one."""
    random = torch.Generator().manual_seed(0)
    far = torch.eye(width)[:branches] * 100
    near = torch.eye(width)[-branches:] * 10
    centres = (far[:, None] + near).flatten(0, 1)
    labels = torch.arange(branches**2).repeat_interleave(per_leaf)
    points = centres[labels] + torch.randn(len(labels), width, generator=random)
    order = torch.randperm(len(points), generator=random)
    return points[order], labels[order]


def same_partition(first: torch.Tensor, second: torch.Tensor) -> bool:
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(first.unique()) == len(second.unique())


def test_planted_clusters_are_recovered_at_each_level():
    points, labels = planted()
    tree, counts = fit_tree(points, levels=2, branches=3)
    codes = leaves(points, tree, counts)
    assert [tuple(centres.shape) for centres in tree] == [(3, 5), (9, 5)]
    assert same_partition(codes, labels) and same_partition(codes // 3, labels // 3)
    assert counts.tolist() == [40] * 9
    for code in range(9):
        torch.testing.assert_close(tree[1][code], points[codes == code].mean(0), rtol=0, atol=0.1)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_code_of_a_point_is_that_of_the_nearest_centres_by_hand(levels):
    points, (tree, counts) = planted()[0], fit_tree(planted()[0], levels, branches=4)
    codes = leaves(points, tree, counts)
    assert torch.equal(torch.bincount(codes, minlength=4**levels).float(), counts)
    for point, code in zip(points[::20], codes[::20].tolist(), strict=True):
        node = 0
        for level, centres in enumerate(tree, 1):
            below = counts.view(4**level, -1).sum(1)
            children = [child for child in range(4 * node, 4 * node + 4) if below[child] > 0]
            node = min(children, key=lambda child: float((point - centres[child]).square().sum()))
        assert node == code


def test_a_cluster_with_fewer_points_than_branches_leaves_the_others_empty():
    points = torch.cat([torch.zeros(30, 2), torch.tensor([[9.0, 0.0], [9.5, 0.0]]).repeat(5, 1)])
    tree, counts = fit_tree(points, levels=2, branches=4)
    assert int((counts > 0).sum()) == 3 and counts.sum() == 40 and sorted(counts.tolist())[-3:] == [5, 5, 30]
    anywhere = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * 20
    assert set(leaves(anywhere, tree, counts).tolist()) <= set(counts.nonzero()[:, 0].tolist())


def test_the_same_points_and_seed_give_the_same_tree():
    points, _ = planted()
    first, second, other = (fit_tree(points, 2, 4, seed) for seed in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(first[0], second[0], strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first[0], other[0], strict=True))


def test_points_are_encoded_in_parts(monkeypatch):
    points, _ = planted()
    tree, counts = fit_tree(points, 2, 3)
    codes = leaves(points, tree, counts)
    monkeypatch.setattr("hf_pretext.modules.hierarchical_kmeans.TILE", 100)
    assert torch.equal(leaves(points, tree, counts), codes)
