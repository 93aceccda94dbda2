"""The transfer protocol: what a frozen encoder is worth on labels it never saw.

    features of train, validation and test -> linear probe, kNN -> figures on test, all choices made on validation

Layer and probe strength are chosen on validation, for every encoder alike, whether trained or random.
"""

from dataclasses import dataclass

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


def transfer(features: dict[Layer, Splits], labels: Labels, k: int = K) -> dict:
    """Linear probe and kNN of one encoder.

    features: `{layer: {split: (examples, channels)}}`. Returns for each method its figures on test at the layer that is
    best on validation, and those of every layer::

        {"linear_probe": {"layer": -2, "validation": {...}, "test": {"top1", "mean_class"}, "layers": {"-2": {...}}}}
    """
    found: dict[str, dict] = {"linear_probe": {}, "knn": {}}
    for layer, splits in features.items():
        found["linear_probe"][layer] = _linear_probe(splits, labels)
        found["knn"][layer] = {
            split: accuracies(
                labels.splits[split], knn_predict(splits["train"], labels.splits["train"], splits[split], k)
            )
            for split in ("validation", "test")
        }
    return {method: _best(layers) for method, layers in found.items()}


def _linear_probe(splits: Splits, labels: Labels) -> dict:
    arrays = {split: value.double().numpy() for split, value in splits.items()}
    path = probe_path(arrays["train"], labels.splits["train"], [arrays["validation"], arrays["test"]])
    candidates = [
        {
            "validation": accuracies(labels.splits["validation"], validation),
            "test": accuracies(labels.splits["test"], test),
            "C": strength,
        }
        for strength, (validation, test) in path
    ]
    return max(candidates, key=lambda figures: figures["validation"]["top1"])


def _best(layers: dict[Layer, dict]) -> dict:
    best = max(layers, key=lambda layer: layers[layer]["validation"]["top1"])
    return {"layer": best, **layers[best], "layers": {str(layer): figures for layer, figures in layers.items()}}


def better(candidates: dict[str, dict]) -> dict:
    """Of several transfers (of one encoder with different statistics, say), each method's best on validation.

    candidates: `{variant: what transfer() returns}`. The variant taken is noted.
    """
    methods = next(iter(candidates.values()))
    chosen = {m: max(candidates, key=lambda v: candidates[v][m]["validation"]["top1"]) for m in methods}
    return {method: {"variant": variant, **candidates[variant][method]} for method, variant in chosen.items()}


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
