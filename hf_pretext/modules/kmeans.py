"""K-means of many points, in which no centre is left without any.

points (n, d) -> different ones (m, d), weights (m,) -> k-means++ -> mini-batches -> rounds -> centres (K, d)

Mini-batch k-means is scikit-learn's (Sculley, "Web-Scale K-Means Clustering", WWW 2010,
https://dl.acm.org/doi/10.1145/1772690.1772862).
"""

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

TILE = 2**24  # scores of points by centres that are held at a time
BATCH, FIRST = 4096, 3  # points of a mini-batch; how many points per centre the first centres are chosen among
TURNS, MOST_TURNS = 3, 20  # how often centres move after the mini-batches, and at most, while one has no point
PASSES = 2 + TURNS  # over the points, where no more turns are needed
RARE = 0.1  # centres with less than this share of the points that one has on average are put elsewhere


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The number of each point's nearest centre, and the squared distance to it, both `(n,)`.

    points (`(n, d)`), centres (`(K, d)`). Of the `(n, K)` scores a tile is held at a time."""
    half = centres.square().sum(1) / 2  # |x - c|^2 is least where x . c - |c|^2 / 2 is greatest
    parts = []
    for part in points.split(max(TILE // max(centres.shape), 1)):
        codes = torch.addmm(-half, part, centres.T).argmax(1)
        parts.append((codes, (part - centres[codes]).square().sum(1)))
    codes, distances = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(distances)


def distinct(points: Tensor) -> tuple[Tensor, Tensor]:
    """The different ones of points `(n, d)`, and how often each is there: `(m, d)`, `(m,)`.

    A white background is thousands of patches with the very same pixels: only one of them may become a centre."""
    bytes_of_rows = points.contiguous().numpy().view(np.dtype((np.void, points.shape[1] * points.itemsize)))
    _, first, counts = np.unique(bytes_of_rows[:, 0], return_index=True, return_counts=True)  # far faster than axis=0
    return points[torch.from_numpy(first)], torch.from_numpy(counts).float()


def first_centres(points: Tensor, weights: Tensor, size: int, seed: int) -> Tensor:
    """`(size, d)` of shuffled points, drawn by k-means++ among the first few, so that they lie apart."""
    from sklearn.cluster import kmeans_plusplus  # seconds to import
    from threadpoolctl import threadpool_limits

    some = slice(FIRST * size)
    with threadpool_limits(1, user_api="blas"):  # thousands of small products: threads would wait for each other
        centres, _ = kmeans_plusplus(points[some].numpy(), size, sample_weight=weights[some].numpy(), random_state=seed)
    return torch.from_numpy(centres)


def k_means(points: Tensor, weights: Tensor, size: int, seed: int, shown: tqdm) -> tuple[Tensor, Tensor, Tensor]:
    """Centres of different points `(n, d)` with weights `(n,)`: k-means++, mini-batches, then rounds over all of them.

    shown: counts `PASSES` times the points. Returns centres `(size, d)`, the weight that each has `(size,)`, and each
    point's squared distance to its own `(n,)`."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(points), generator=random)
    points, weights = points[order], weights[order]
    centres = mini_batches(points, weights, first_centres(points, weights, size, seed), shown)
    centres, counts, distances = settle(points, weights, centres, random, shown)
    return centres, counts, torch.empty_like(distances).index_copy_(0, order, distances)


def mini_batches(points: Tensor, weights: Tensor, centres: Tensor, shown: tqdm) -> Tensor:
    """Centres after one pass of mini-batch k-means over shuffled points.

    scikit-learn's own cure for rare centres (`reassignment_ratio`) is off: rare is what has few points beside the
    commonest one, as most centres have where backgrounds are white, and some end without any all the same."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(
        len(centres), init=centres.numpy(), n_init=1, random_state=0, reassignment_ratio=0, compute_labels=False
    )
    size = max(BATCH, len(centres))  # it wants no fewer points than centres
    for part, weight in zip(points.split(size), weights.split(size), strict=True):
        means.partial_fit(part.numpy(), sample_weight=weight.numpy())
        shown.update(len(part))
    return torch.from_numpy(means.cluster_centers_)


def settle(
    points: Tensor, weights: Tensor, centres: Tensor, random: torch.Generator, shown: tqdm
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves centres to the means of their points, and those that hardly any point is near to somewhere else, `TURNS`
    times, and further while any has no point.

    Returns centres `(K, d)`, how many points each has `(K,)`, and each point's squared distance to its own `(n,)`."""
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
    """The weighted means of each centre's points, `(K, d)`; a centre without points stays."""
    sums, counts = torch.zeros_like(centres, dtype=torch.float64), torch.bincount(codes, weights, len(centres))
    parts = [values.split(max(TILE // points.shape[1] // 2, 1)) for values in (points, weights, codes)]
    for part, weight, part_codes in zip(*parts, strict=True):  # in float64 a part at a time
        sums.index_add_(0, part_codes, part.double() * weight[:, None])
    return torch.where(counts[:, None] > 0, sums / counts[:, None], centres).to(centres.dtype)


def reseed(
    centres: Tensor, rare: Tensor, counts: Tensor, points: Tensor, chances: Tensor, random: torch.Generator
) -> None:
    """Puts rare centres (`(K,)`, bool), in place, on points drawn with these chances `(n,)`; where few points have any,
    those centres with the least points."""
    emptiest = counts.masked_fill(~rare, torch.inf).argsort(stable=True)
    wanted = min(int(rare.sum()), int((chances > 0).sum()))
    if wanted:
        centres[emptiest[:wanted]] = points[torch.multinomial(chances, wanted, generator=random)]
