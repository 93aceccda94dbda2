"""The transfer protocol: what a frozen encoder is worth on labels it never saw.

    features of train, validation and test -> linear probe, kNN -> figures on test, all choices made on validation

Layer and probe strength are chosen on validation, for every encoder alike, whether trained or random; the layer once
for all seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .knn import K, knn_predict
from .linear_probe import probe_path

Splits = dict[str, Tensor]  # {"train", "validation", "test"} -> (examples, channels)
Layer = int | str


@dataclass
class Labels:
    """Integer labels of each split, and the names behind them."""

    splits: dict[str, np.ndarray]
    names: list[str]

    def majority(self) -> dict[str, float]:
        """What guessing the commonest class of train gives on test."""
        guess = np.bincount(self.splits["train"]).argmax()
        return accuracies(self.splits["test"], np.full_like(self.splits["test"], guess))


def accuracies(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Top-1, and the mean of the accuracies of the classes that occur."""
    classes = np.unique(true)
    per_class = [float((predicted[true == c] == c).mean()) for c in classes]
    return {"top1": float((predicted == true).mean()), "mean_class": float(np.mean(per_class))}


def transfer(
    features: dict[Layer, Splits], labels: Labels, methods: Sequence[str] = ("linear_probe", "knn"), k: int = K
) -> dict:
    """Linear probe and kNN of one encoder.

    features: `{layer: {split: (examples, channels)}}` with train, validation and, where figures on it are wanted, test.
    Returns for each method its figures on test at the layer that is best on validation, and those of every layer::

        {"linear_probe": {"layer": -2, "validation": {...}, "test": {"top1", "mean_class"}, "layers": {"-2": {...}}}}
    """
    measure = {"linear_probe": _linear_probe, "knn": partial(_knn, k=k)}
    return {
        method: _best({layer: measure[method](splits, labels) for layer, splits in features.items()})
        for method in methods
    }


def _knn(splits: Splits, labels: Labels, k: int) -> dict:
    known = labels.splits["train"]
    return {
        split: accuracies(labels.splits[split], knn_predict(splits["train"], known, splits[split], k))
        for split in splits
        if split != "train"
    }


def _linear_probe(splits: Splits, labels: Labels) -> dict:
    arrays = {split: value.double().numpy() for split, value in splits.items()}
    others = [split for split in splits if split != "train"]
    path = probe_path(arrays["train"], labels.splits["train"], [arrays[split] for split in others])
    candidates = [
        {
            **{split: accuracies(labels.splits[split], p) for split, p in zip(others, predicted, strict=True)},
            "C": strength,
        }
        for strength, predicted in path
    ]
    return max(candidates, key=lambda figures: figures["validation"]["top1"])


def _best(layers: dict[Layer, dict]) -> dict:
    best = max(layers, key=lambda layer: layers[layer]["validation"]["top1"])
    return {"layer": best, **layers[best], "layers": {str(layer): figures for layer, figures in layers.items()}}


def chosen_together(found: Sequence[dict[str, dict]]) -> list[dict]:
    """One layer, and one variant, for all seeds: the one that is best on validation in their mean. A choice for each
    seed alone would follow the noise of its validation figures.

    found: for each seed `{variant: what transfer() returns}`. Returns for each seed its figures at that choice.
    """
    chosen = [{} for _ in found]
    first = next(iter(found[0].values()))
    for method in first:
        scores = {
            (variant, layer): np.mean([seed[variant][method]["layers"][layer]["validation"]["top1"] for seed in found])
            for variant in found[0]
            for layer in found[0][variant][method]["layers"]
        }
        variant, layer = max(scores, key=scores.get)
        for of_seed, result in zip(found, chosen, strict=True):
            layers = of_seed[variant][method]["layers"]
            result[method] = {"variant": variant, "layer": int(layer), **layers[layer], "layers": layers}
    return chosen


def mean_and_spread(values: list[float]) -> dict:
    """Mean and sample standard deviation over seeds; no spread is claimed for one."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "values": [float(v) for v in values]}


def beats(ours: dict, other: dict) -> bool | None:
    """Whether the difference of the means is above 2 sqrt(s1^2 + s2^2); None with fewer than 3 seeds on a side."""
    if min(len(ours["values"]), len(other["values"])) < 3:
        return None
    return bool(ours["mean"] - other["mean"] > 2 * np.hypot(ours["std"], other["std"]))


@torch.no_grad()
def recompute_batch_norm(encoder: torch.nn.Module, batches) -> bool:
    """Sets batch norm's statistics to those of one pass over `batches`. Returns whether there is any batch norm."""
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    encoder.train()
    for batch in batches:
        encoder(**{name: value.to(encoder.device) for name, value in batch.items()})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()
    return True
