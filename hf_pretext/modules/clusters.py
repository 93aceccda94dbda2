"""Clusters of the rows of the training data, fitted to features again and again; each row keeps its code.

keys (n,), features (n, d) on each rank -> sample on the main process -> k-means -> centres (K, d), on all ranks
features -> index of the nearest centre -> codes (N,) by key, on all ranks

Features are compared by direction: the mean of the sample is subtracted, and vectors get length 1.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.progress import progress
from ..utils.ranks import on_main_process
from .distributed import by_row
from .kmeans import PASSES, distinct, k_means, nearest

NONE = -1  # code of a row without features


class Clusters(nn.Module):
    """Clusters of several kinds of features, and the code of each row of the training data in each.

    widths: channels of the features, by name of the clusters. Clusters of several kinds of features together have the
    width of each: they are made of unit vectors side by side, so that all kinds have the same weight. size: number of
    clusters of each name.

    Buffers by name: `codes` (`(N,)`, int32; `NONE` for a row without a code; N is 0 until `set_rows`), `means`
    (`(d,)`), `centres` (`(size, d)`); and `rounds`: how often clusters were fitted, `seed`: of the next fit, int32.
    """

    def __init__(self, widths: Mapping[str, Sequence[int]], size: int, rows: int = 0):
        super().__init__()
        self.widths, self.size = {name: tuple(parts) for name, parts in widths.items()}, size
        for name, parts in self.widths.items():
            self.register_buffer(f"means_{name}", torch.zeros(sum(parts), dtype=torch.float32))
            self.register_buffer(f"centres_{name}", torch.zeros(size, sum(parts), dtype=torch.float32))
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int32))
        self.register_buffer("seed", torch.randint(2**31 - 1, (), dtype=torch.int32))
        self.set_rows(rows)

    def set_rows(self, rows: int) -> None:
        """Makes room for the codes of a number of rows; all are `NONE`, and no clusters are fitted yet."""
        self._seen_fitted = False
        self.rounds.zero_()
        for name in self.widths:
            self.register_buffer(f"codes_{name}", torch.full((rows,), NONE, dtype=torch.int32, device=self.seed.device))

    def codes(self, name: str) -> Tensor:
        """Returns the codes of all rows, `(N,)`, int32."""
        return getattr(self, f"codes_{name}")

    def codes_of(self, name: str, keys: Tensor) -> Tensor:
        """Returns the codes of some rows, `(B,)`, int64, `NONE` for rows without a code. keys: of the rows, `(B,)`.

        Raises `ValueError` if no clusters were fitted yet."""
        if not self._seen_fitted:  # checked once: on a GPU the check waits for all kernels that are queued
            if not int(self.rounds):
                raise ValueError(
                    "The rows have no clusters yet. Train with PretextTrainer, which fits them before each round, or "
                    "call before_round(batches) first."
                )
            self._seen_fitted = True
        return self.codes(name)[keys].long()

    @torch.no_grad()
    def assign(self, name: str, *features: Tensor) -> Tensor:
        """Returns the index of the nearest centre of each example, `(B,)`, int64. features: `(B, d)` of each kind."""
        with torch.autocast(features[0].device.type, enabled=False):  # features are compared in float32
            points = self._points(name, features)
            return nearest(points, getattr(self, f"centres_{name}"))[0]

    def _points(self, name: str, features: Sequence[Tensor]) -> Tensor:
        """Returns what is clustered: features minus their mean, of length 1, side by side."""
        means = getattr(self, f"means_{name}").split(self.widths[name])
        return torch.cat(
            [F.normalize(part.float() - mean, dim=1) for part, mean in zip(features, means, strict=True)], 1
        )

    @torch.no_grad()
    def fit(self, name: str, keys: Tensor, features: Sequence[Tensor], sampled: int) -> Tensor:
        """Fits the centres and assigns the rows of this rank. All ranks call it together, each with its rows. Returns
        the new codes of all rows, `(N,)`, int32, and leaves the old ones in `codes`.

        keys (`(n,)`), features (`(n, d)` of each kind): on the CPU. sampled: most rows that the centres are fitted to;
        only the main process has all of their features. The result does not depend on the order of the rows or on the
        number of ranks, but for rounding."""
        rows, device, seed = len(self.codes(name)), self.seed.device, int(self.seed) + int(self.rounds)
        present = by_row(rows, keys, torch.ones(len(keys), dtype=torch.int32), True, device).bool()
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
        drawn = order[present[order]][:sampled].sort().values
        place = torch.full((rows,), NONE).index_copy_(0, drawn, torch.arange(len(drawn)))[keys]
        chosen = place != NONE
        sample = by_row(len(drawn), place[chosen], torch.cat(features, 1)[chosen], False, device)
        with torch.autocast(device.type, enabled=False):
            fitted = on_main_process(lambda: self._fitted(name, sample, seed))
        for kind, value in zip(("means", "centres"), fitted, strict=True):
            getattr(self, f"{kind}_{name}").copy_(value)
        assigned = [self.assign(name, *(part.to(device) for part in parts)).cpu() for parts in in_parts(features)]
        codes = torch.cat([*assigned, torch.zeros(0, dtype=torch.int64)]).int()
        return by_row(rows, keys, codes - NONE, True, device) + NONE

    def _fitted(self, name: str, sample: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Returns the means `(d,)` and the centres `(size, d)` of a sample of features `(n, d)`, on the main process.
        Centres repeat if fewer of the features than clusters are distinct: then some clusters get no rows.

        Raises `ValueError` for fewer rows than clusters."""
        check_size(self.size, len(sample))
        getattr(self, f"means_{name}").copy_(sample.mean(0))
        points = self._points(name, [part.to(self.seed.device) for part in sample.split(self.widths[name], 1)]).cpu()
        points, weights = distinct(points, in_order=True)  # as on any number of ranks, but for rounding
        if len(points) <= self.size:
            centres = points[torch.arange(self.size) % len(points)]
        else:
            with progress(total=PASSES * len(points), description="clustering", unit="rows") as shown:
                centres, *_ = k_means(points, weights, self.size, seed, shown)
        return getattr(self, f"means_{name}").cpu(), centres

    def keep(self, codes: Mapping[str, Tensor]) -> None:
        """Replaces the codes of all rows, `(N,)` by name, at the end of a fit of all clusters."""
        for name, values in codes.items():
            self.codes(name).copy_(values)
        self.rounds += 1


def in_parts(features: Sequence[Tensor], rows: int = 2**14):
    """Iterates over parts of features of the same rows: a tuple of `(rows, d)` tensors, one for each kind."""
    return zip(*(part.split(rows) for part in features), strict=True)


def check_size(size: int, rows: int) -> None:
    """Raises `ValueError` for more clusters than rows."""
    if size > rows:
        raise ValueError(
            f"num_clusters is {size:,}, but the data has only {rows:,} rows that can be used. Give fewer clusters "
            "(--num_clusters), or more data."
        )


def used_share(codes: Tensor, size: int) -> float:
    """Returns the share of the clusters that have rows. codes: `(N,)`."""
    return len(codes[codes != NONE].unique()) / size


def mutual_information(first: Tensor, second: Tensor) -> float | None:
    """Returns the normalised mutual information of two codes of the same rows, `(N,)` each, 0 (independent) to 1 (equal
    up to the numbers of the clusters). Rows without a code in one of them are left out; None if no row is left."""
    from sklearn.metrics import normalized_mutual_info_score  # takes seconds to import

    known = (first != NONE) & (second != NONE)
    if not known.any():
        return None
    return float(normalized_mutual_info_score(first[known].cpu().numpy(), second[known].cpu().numpy()))
