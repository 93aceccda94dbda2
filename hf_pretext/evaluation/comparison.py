"""Trained encoders next to what they have to beat: random ones, what needs no encoder, the majority class.

encoders of several seeds + a labelled set -> {"trained", "random", "pixels", "majority"}: {metric: mean, std}
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from transformers import PreTrainedModel

from ..features import Pooling, extract
from ..utils.paths import relative
from .labelled_set import LabelledSet
from .measure import evaluated
from .transfer import METHODS, SPLITS, Method, beats, mean_and_spread, recompute_batch_norm, transfer

METRICS = ("top1", "mean_class")
UNMEASURED = {"mean": None, "std": None, "values": []}  # by a method that a baseline has no answer to


def encoder_transfer(
    encoder: PreTrainedModel,
    labelled: LabelledSet,
    kind: str,
    methods: Mapping[str, Method] = METHODS,
    pooling: Pooling = "mean",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    description: str = "encoder",
    splits: Sequence[str] = SPLITS,
) -> dict:
    """Metrics of each method on the features of one encoder, of every layer (see `transfer`).

    kind: of the data that the encoder takes."""
    features = {
        split: extract(encoder, labelled.batches(split, kind), "all", pooling, device, dtype, f"{description}: {split}")
        for split in splits
    }
    by_layer = {layer: {split: features[split][layer] for split in splits} for layer in features["train"]}
    return transfer(by_layer, labelled.labels, methods)


def random_transfer(
    build: Callable[[], PreTrainedModel], labelled: LabelledSet, kind: str, **options
) -> dict[str, dict]:
    """The same for a fresh encoder, with the statistics of batch norm as initialised and from one pass over train: a
    baseline gets the choices that the trained encoder's training made for it. Returns `{variant: transfer}`."""
    encoder = build()
    variants = {"initial statistics": encoder_transfer(encoder, labelled, kind, **options)}
    if recompute_batch_norm(encoder, labelled.batches("train", kind)):
        variants["recomputed statistics"] = encoder_transfer(encoder, labelled, kind, **options)
    return variants


def compare(
    trained: Sequence[dict], random: Sequence[dict], baselines: Mapping[str, dict], majority: Mapping[str, float]
) -> dict:
    """Means and spreads on test, and whether the trained encoder beats the random one.

    trained, random: transfers, one a seed. baselines: transfers of what needs no encoder, by name. Returns
    `{"methods": [...], "figures": {who: {"knn_top1": {...}}}, "beats_random": {"knn_top1": ...}}`.
    """
    methods = list(trained[0])
    contenders = {"trained": trained, "random": random, **{name: [measured] for name, measured in baselines.items()}}
    by_who = {
        who: {f"{method}_{metric}": over_seeds(transfers, method, metric) for method in methods for metric in METRICS}
        for who, transfers in contenders.items()
    }
    by_who["majority"] = {
        f"{method}_{metric}": mean_and_spread([majority[metric]]) for method in methods for metric in METRICS
    }
    names = [f"{method}_top1" for method in methods]
    verdicts = {name: beats(by_who["trained"][name], by_who["random"][name]) for name in names}
    return {"methods": methods, "figures": by_who, "beats_random": verdicts}


def over_seeds(transfers: Sequence[dict], method: str, metric: str) -> dict:
    """Mean and spread of one metric on test; `UNMEASURED` where a method gave none."""
    if method not in transfers[0]:
        return UNMEASURED
    return mean_and_spread([measured[method]["test"][metric] for measured in transfers])


def described(labelled: LabelledSet) -> dict:
    """What results say of a labelled set."""
    return {
        "dataset": relative(labelled.name),
        "revision": labelled.revision,
        "label": labelled.label,
        "classes": labelled.labels.names,
        "rows": {split: len(values) for split, values in labelled.labels.splits.items()},
        "left_out": dict(labelled.left_out),
    }


def compare_measures(
    trained: Sequence[Mapping[str, float]], random: Sequence[Mapping[str, float]], chance: Mapping[str, float]
) -> dict:
    """Means and spreads of measures of whole models, one of each a seed, next to chance: `{who: {name: {...}}}`, of the
    metrics that have a chance level."""
    measured = {"trained": trained, "random": random, "chance": [chance]}
    return {
        who: {name: mean_and_spread([metrics[name] for metrics in of_who]) for name in chance}
        for who, of_who in measured.items()
    }


@torch.no_grad()
def pretext_metrics(model, batches: Iterable[dict], device: torch.device | str = "cpu") -> dict[str, float]:
    """How well the pretext task itself is solved: loss and logs over batches, in `eval()`, weighted by how much there
    was to predict in each (its labels; its examples where there are none). A perplexity is that of the mean loss."""
    sums, count = {}, 0
    with evaluated(model, device):
        for batch in batches:
            output = model(**{name: value.to(device) for name, value in batch.items()})
            size = len(next(iter(batch.values())) if output.labels is None else output.labels)
            for name, value in {"loss": output.loss, **output.logs}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
            count += size
    means = {name: value / count for name, value in sums.items()}
    return {**means, "perplexity": math.exp(means["loss"])} if "perplexity" in means else means
