"""Transfer protocol: classification with the features of a frozen encoder.

    features of train, validation and test -> linear probe, kNN -> metrics on test, all choices made on validation

The layer and the strength of the probe are chosen on validation, in the same way for trained and random encoders. One
layer is chosen for all seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..features import frames_as_images
from .knn import DIVERGED, TEMPERATURE, K, knn_predict
from .linear_probe import probe_path

Splits = dict[str, Tensor]  # {"train", "validation", "test"} -> (examples, channels)
Layer = int | str
SPLITS = ("train", "validation", "test")
DRAW_SEED, DRAWS = 0, 5  # random subsets of the labels, for a share below 1


@dataclass
class Labels:
    """Labels of each split as integers `(n,)`, and the names of the classes."""

    splits: dict[str, np.ndarray]
    names: list[str]

    def majority(self) -> dict[str, float]:
        """Returns the accuracies on test of always predicting the majority class of train."""
        guess = np.bincount(self.splits["train"]).argmax()
        return accuracies(self.splits["test"], np.full_like(self.splits["test"], guess))


Method = Callable[[Splits, Labels], dict]


def accuracies(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns `top1`, and `mean_class`, the mean of the accuracies per class, over the classes in `true`."""
    classes = np.unique(true)
    per_class = [float((predicted[true == c] == c).mean()) for c in classes]
    return {"top1": float((predicted == true).mean()), "mean_class": float(np.mean(per_class))}


def transfer(features: dict[Layer, Splits], labels: Labels, methods: Mapping[str, Method]) -> dict:
    """Measures each method on the features of one encoder.

    features: `{layer: {split: (examples, channels)}}` with train, validation and, optionally, test. Returns for each
    method the metrics at the layer with the best top-1 on validation, and the metrics of every layer::

        {"linear_probe": {"layer": -2, "validation": {...}, "test": {"top1", "mean_class"}, "layers": {"-2": {...}}}}

    Raises `ValueError` for features that are not finite.
    """
    for splits in features.values():
        if not all(torch.isfinite(value).all() for value in splits.values()):
            raise ValueError(DIVERGED)
    return {
        name: best_layer({layer: measure(splits, labels) for layer, splits in features.items()})
        for name, measure in methods.items()
    }


def knn(splits: Splits, labels: Labels, k: int = K, temperature: float = TEMPERATURE) -> dict:
    """Measures kNN with train as the neighbours. Returns `{split: {"top1", "mean_class"}}` for the other splits."""
    known = labels.splits["train"]
    return {
        split: accuracies(labels.splits[split], knn_predict(splits["train"], known, splits[split], k, temperature))
        for split in splits
        if split != "train"
    }


def linear_probe(splits: Splits, labels: Labels, fraction: float = 1.0, **options) -> dict:
    """Measures a linear probe. Returns `{split: {"top1", "mean_class"}, "C": strength}`. options: of `probe_path`.

    fraction: share of the labels of train that the probe uses, drawn per class. Below 1, metrics are means over `DRAWS`
    draws, since results vary with so few labels. Draws are the same for every encoder. Then "C" is a list, one for each
    draw, and "labels" is the number of labels in a draw."""
    arrays = {split: value.double().numpy() if isinstance(value, Tensor) else value for split, value in splits.items()}
    known = labels.splits["train"]
    if fraction == 1:
        return _probed(arrays, labels, np.arange(len(known)), **options)
    by_seed = [_probed(arrays, labels, some_of_each(known, fraction, draw), **options) for draw in range(DRAWS)]
    others = [split for split in splits if split != "train"]
    means = {
        split: {name: float(np.mean([one[split][name] for one in by_seed])) for name in by_seed[0][split]}
        for split in others
    }
    return {**means, "C": [one["C"] for one in by_seed], "labels": len(some_of_each(known, fraction, 0))}


def _probed(arrays: dict[str, np.ndarray], labels: Labels, rows: np.ndarray, **options) -> dict:
    others = [split for split in arrays if split != "train"]
    unseen = [arrays[split] for split in others]
    path = probe_path(arrays["train"][rows], labels.splits["train"][rows], unseen, **options)
    candidates = [
        {
            **{split: accuracies(labels.splits[split], p) for split, p in zip(others, predicted, strict=True)},
            "C": strength,
        }
        for strength, predicted in path
    ]
    return max(candidates, key=lambda metrics: metrics["validation"]["top1"])


def some_of_each(labels: np.ndarray, fraction: float, draw: int) -> np.ndarray:
    """Draws a share of the rows of each class, at least one row. Returns sorted indices, the same ones for the same
    `draw`."""
    random = np.random.default_rng([DRAW_SEED, draw])
    parts = [random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return np.sort(np.concatenate([part[: max(1, round(fraction * len(part)))] for part in parts]))


METHODS: dict[str, Method] = {"linear_probe": linear_probe, "knn": knn}


def methods_of(fractions: Sequence[float] | None) -> dict[str, Method]:
    """Returns linear probes with these shares of the labels, and kNN, by name. None: one probe with all labels, and
    kNN."""
    return METHODS if fractions is None else {**label_fractions(*fractions), "knn": knn}


def label_fractions(*fractions: float) -> dict[str, Method]:
    """Returns linear probes with these shares of the labels, by name: `{"linear_probe_1%": ...}`."""
    return {f"linear_probe_{fraction:.0%}": partial(linear_probe, fraction=fraction) for fraction in fractions}


def best_layer(layers: dict[Layer, dict]) -> dict:
    """Returns a dict: "layer" (best top-1 on validation), the entries of that layer's metrics, and "layers":
    `{str(layer): metrics}`."""
    best = max(layers, key=lambda layer: layers[layer]["validation"]["top1"])
    return {"layer": best, **layers[best], "layers": {str(layer): metrics for layer, metrics in layers.items()}}


def chosen_together(by_seed: Sequence[dict[str, dict]]) -> list[dict]:
    """Chooses one layer and one variant for all seeds, by the mean top-1 on validation. A separate choice for each seed
    would fit the noise of its validation metrics.

    by_seed: for each seed `{variant: result of transfer}`; the first variant has all methods. Returns for each seed its
    metrics at this layer and variant.
    """
    chosen = [{} for _ in by_seed]
    first = next(iter(by_seed[0].values()))
    for method in first:
        scores = {
            (variant, layer): np.mean(
                [seed[variant][method]["layers"][layer]["validation"]["top1"] for seed in by_seed]
            )
            for variant in by_seed[0]
            if method in by_seed[0][variant]
            for layer in by_seed[0][variant][method]["layers"]
        }
        variant, layer = max(scores, key=scores.get)
        for of_seed, result in zip(by_seed, chosen, strict=True):
            layers = of_seed[variant][method]["layers"]
            result[method] = {"variant": variant, "layer": int(layer), **layers[layer], "layers": layers}
    return chosen


def mean_and_spread(values: list[float]) -> dict:
    """Returns mean and sample standard deviation over seeds. The standard deviation of one seed is None."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "values": [float(v) for v in values]}


def beats(ours: dict, other: dict) -> bool | None:
    """Returns True if the mean of `ours` exceeds the mean of `other` by more than 2 sqrt(s1^2 + s2^2), where s are the
    standard deviations over seeds. Returns None with fewer than 3 seeds on a side."""
    if min(len(ours["values"]), len(other["values"])) < 3:
        return None
    margin = 2 * np.hypot(ours["std"], other["std"])
    return bool(ours["mean"] - other["mean"] > margin * (1 + ROUNDING))  # rounding can't turn a tie into a win


ROUNDING = 1e-9


@torch.no_grad()
def recompute_batch_norm(encoder: torch.nn.Module, batches) -> bool:
    """Sets the statistics of batch norm from one pass over `batches`. Returns True if the encoder has batch norm.

    A single example after larger batches is left out: in a map of 1 x 1 it has no variance."""
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # average over all batches
    encoder.train()
    largest = 0
    for batch in batches:
        count = len(next(iter(batch.values())))
        largest = max(largest, count)
        if count > 1 or largest == 1:
            batch, _ = frames_as_images(encoder, {name: value.to(encoder.device) for name, value in batch.items()})
            encoder(**batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()
    return True
