"""Hierarchical k-means: a tree of centres, whose leaves are the codes of points.

points (n, d) -> k-means into `branches` clusters -> k-means in each of them -> ... -> branches ** levels leaves
point (d,) -> nearest centre of the first level -> nearest of its children -> ... -> code of a leaf

Nister and Stewenius, "Scalable Recognition with a Vocabulary Tree", CVPR 2006.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..utils.progress import progress
from .kmeans import TILE, distinct, k_means, nearest


def fit_tree(points: Tensor, levels: int, branches: int, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Clusters points `(n, d)` into `branches` clusters, and each cluster again, `levels` times in all.

    A cluster with fewer distinct points than `branches` is divided into these points. Its other children, and all that
    is below them, stay empty: their centres are 0 and their leaves have no points. The same points and seed give the
    same tree.

    Returns the centres of each level, `(branches ** level, d)` for level 1 to `levels`, with the children of a centre
    in a row, and the number of points of each leaf, `(branches ** levels,)`."""
    points, weights = distinct(points)
    codes, tree = torch.zeros(len(points), dtype=torch.long), []
    for level in range(1, levels + 1):
        centres = points.new_zeros(branches**level, points.shape[1])
        counts = torch.bincount(codes, minlength=branches ** (level - 1))
        members = codes.argsort(stable=True).split(counts.tolist())
        for node, rows in enumerate(members):
            children, nearest_of_rows = divided(points[rows], weights[rows], branches, seed)
            first = node * branches
            centres[first : first + len(children)] = children
            codes[rows] = first + nearest_of_rows
        tree.append(centres)
    return tree, torch.bincount(codes, weights, minlength=branches**levels).to(weights.dtype)


def divided(points: Tensor, weights: Tensor, branches: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns at most `branches` centres `(k, d)` of distinct points `(n, d)`, and the nearest of each point, `(n,)`.

    weights: `(n,)`, how often each point occurs."""
    if len(points) <= branches:
        return points, torch.arange(len(points))
    centres, *_ = k_means(points, weights, branches, seed, progress(shown=False))
    return centres, nearest(points, centres)[0]


def leaves(points: Tensor, tree: Sequence[Tensor], counts: Tensor) -> Tensor:
    """Returns the code of each point, `(n,)`, below branches ** levels: the leaf at the end of the nearest centres.

    points: `(n, d)`. tree, counts: see `fit_tree`. Empty leaves, and centres with nothing but empty leaves below them,
    are never chosen."""
    branches, codes = len(tree[0]), torch.zeros(len(points), dtype=torch.long, device=points.device)
    for centres in tree:
        children = centres.view(-1, branches, centres.shape[1])  # (nodes, branches, d)
        half = children.square().sum(2) / 2  # |x - c|^2 is smallest where x . c - |c|^2 / 2 is largest
        half = half.masked_fill(counts.view(len(children), branches, -1).sum(2) == 0, torch.inf)
        parts = []
        size = max(TILE // centres.shape[1] // branches, 1)
        for some, nodes in zip(points.split(size), codes.split(size), strict=True):
            scores = (children[nodes] @ some[:, :, None])[:, :, 0] - half[nodes]
            parts.append(nodes * branches + scores.argmax(1))
        codes = torch.cat(parts)
    return codes
