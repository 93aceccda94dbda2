"""K-means for many points that leaves no centre without points.

points (n, d) -> distinct points (m, d), weights (m,) -> k-means++ -> mini-batches -> rounds -> centres (K, d)

Mini-batch k-means is scikit-learn's (Sculley, "Web-Scale K-Means Clustering", WWW 2010,
https://dl.acm.org/doi/10.1145/1772690.1772862).
"""

import numpy as np
import torch
from torch import Tensor
from tqdm.std import tqdm

TILE = 2**24  # number of scores between points and centres in memory at a time
BATCH, FIRST = 4096, 3  # points per mini-batch; points per centre that k-means++ chooses the first centres from
TURNS, MOST_TURNS = 3, 20  # rounds after the mini-batches; maximum number of rounds, while a centre has no points
PASSES = 2 + TURNS  # passes over the points, if no extra rounds are needed
RARE = 0.1  # a centre with less than this share of the average number of points per centre is moved


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the index of each point's nearest centre, and the squared distance to it, both `(n,)`.

    points (`(n, d)`), centres (`(K, d)`). Only a tile of the `(n, K)` scores is in memory at a time."""
    half = centres.square().sum(1) / 2  # |x - c|^2 is smallest where x . c - |c|^2 / 2 is largest
    parts = []
    for part in points.split(max(TILE // max(centres.shape), 1)):
        codes = torch.addmm(-half, part, centres.T).argmax(1)
        parts.append((codes, (part - centres[codes]).square().sum(1)))
    codes, distances = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(distances)


def distinct(points: Tensor, in_order: bool = False) -> tuple[Tensor, Tensor]:
    """Returns the distinct points among points `(n, d)`, and how often each occurs: `(m, d)`, `(m,)`.

    in_order: True for the order in which they first occur; else they are sorted by their bytes, so that rounding
    changes their order.

    White backgrounds give thousands of patches with identical pixels. Only one of them may become a centre."""
    bytes_of_rows = points.contiguous().numpy().view(np.dtype((np.void, points.shape[1] * points.itemsize)))
    _, first, counts = np.unique(bytes_of_rows[:, 0], return_index=True, return_counts=True)  # far faster than axis=0
    order = np.argsort(first) if in_order else slice(None)
    return points[torch.from_numpy(first[order])], torch.from_numpy(counts[order]).float()


def first_centres(points: Tensor, weights: Tensor, size: int, seed: int) -> Tensor:
    """Chooses first centres `(size, d)` that are far apart, by k-means++ among the first `FIRST * size` points.

    points (`(n, d)`): in random order. weights (`(n,)`)."""
    from sklearn.cluster import kmeans_plusplus  # takes seconds to import
    from threadpoolctl import threadpool_limits

    some = slice(FIRST * size)
    with threadpool_limits(1, user_api="blas"):  # thousands of small products: threads would wait for each other
        centres, _ = kmeans_plusplus(points[some].numpy(), size, sample_weight=weights[some].numpy(), random_state=seed)
    return torch.from_numpy(centres)


def k_means(points: Tensor, weights: Tensor, size: int, seed: int, shown: tqdm) -> tuple[Tensor, Tensor, Tensor]:
    """Clusters distinct points `(n, d)` with weights `(n,)`: k-means++, mini-batches, then rounds over all points.

    shown: progress bar; counts all points `PASSES` times, or more often if extra rounds are needed. Returns centres
    `(size, d)`, the total weight of each centre's points `(size,)`, and each point's squared distance to its centre
    `(n,)`."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(points), generator=random)
    points, weights = points[order], weights[order]
    centres = mini_batches(points, weights, first_centres(points, weights, size, seed), shown)
    centres, counts, distances = settle(points, weights, centres, random, shown)
    return centres, counts, torch.empty_like(distances).index_copy_(0, order, distances)


def mini_batches(points: Tensor, weights: Tensor, centres: Tensor, shown: tqdm) -> Tensor:
    """Returns the centres `(K, d)` after one pass of mini-batch k-means over points in random order.

    scikit-learn can move rare centres (`reassignment_ratio`), but this is off. It calls a centre rare if it has few
    points compared with the most frequent centre. With white backgrounds that is true of most centres, and some still
    end without points."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(
        len(centres), init=centres.numpy(), n_init=1, random_state=0, reassignment_ratio=0, compute_labels=False
    )
    size = max(BATCH, len(centres))  # scikit-learn needs at least as many points as centres
    for part, weight in zip(points.split(size), weights.split(size), strict=True):
        means.partial_fit(part.numpy(), sample_weight=weight.numpy())
        shown.update(len(part))
    return torch.from_numpy(means.cluster_centers_)


def settle(
    points: Tensor, weights: Tensor, centres: Tensor, random: torch.Generator, shown: tqdm
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves centres to the means of their points, and rare centres to other points.

    Runs `TURNS` rounds, and more (up to `MOST_TURNS`) while a centre has no points. Returns centres `(K, d)`, the total
    weight of each centre's points `(K,)`, and each point's squared distance to its centre `(n,)`."""
    for turn in range(MOST_TURNS + 1):
        codes, distances = nearest(points, centres)
        counts = torch.bincount(codes, weights, minlength=len(centres))
        shown.update(len(points))
        rare = counts < RARE * counts.mean() if turn < TURNS else counts == 0
        if turn == MOST_TURNS or (turn >= TURNS and not rare.any()):
            break
        centres = means_of(points, weights, codes, centres)
        reseed(centres, rare, counts, points, weights * (distances > 0), random)
    return centres, counts, distances


def means_of(points: Tensor, weights: Tensor, codes: Tensor, centres: Tensor) -> Tensor:
    """Returns the weighted mean of each centre's points, `(K, d)`. A centre without points does not move."""
    sums, counts = torch.zeros_like(centres, dtype=torch.float64), torch.bincount(codes, weights, len(centres))
    parts = [values.split(max(TILE // points.shape[1] // 2, 1)) for values in (points, weights, codes)]
    for part, weight, part_codes in zip(*parts, strict=True):  # in parts, since float64 copies take memory
        sums.index_add_(0, part_codes, part.double() * weight[:, None])
    return torch.where(counts[:, None] > 0, sums / counts[:, None], centres).to(centres.dtype)


def reseed(
    centres: Tensor, rare: Tensor, counts: Tensor, points: Tensor, chances: Tensor, random: torch.Generator
) -> None:
    """Moves rare centres, in place, to points that are drawn without replacement.

    rare (`(K,)`, bool). counts (`(K,)`): points of each centre. chances (`(n,)`): relative probability of each point.
    If fewer points than rare centres have a probability above 0, the rare centres with the fewest points move."""
    emptiest = counts.masked_fill(~rare, torch.inf).argsort(stable=True)
    moves = min(int(rare.sum()), int((chances > 0).sum()))
    if moves:
        centres[emptiest[:moves]] = points[torch.multinomial(chances, moves, generator=random)]
