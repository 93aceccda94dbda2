"""Comparison of trained encoders with random encoders, baselines without an encoder, and the majority class.

encoders of several seeds + a labelled set -> {"trained", "random", "pixels", "majority"}: {metric: mean, std}
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..features import Pooling, extract
from ..modeling import PretextOutput
from ..utils.paths import relative
from .fine_tune import FINE_TUNE, FineTuning, fine_tune
from .labelled_set import LabelledSet
from .measure import evaluated
from .transfer import METHODS, SPLITS, Method, beats, best_layer, mean_and_spread, recompute_batch_norm, transfer

METRICS = ("top1", "mean_class")
START = "start"  # the pretrained encoder that training started from, as it was
GRAY = "_gray"  # end of the names of methods on gray images
UNMEASURED = {"mean": None, "std": None, "values": []}  # metrics of a method that a baseline does not support


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
    fine_tuning: FineTuning | None = None,
) -> dict:
    """Measures each method on the features of every layer of one encoder (see `transfer`).

    kind: kind of data of the encoder, for example "image". description: label of the progress bar. splits: at least
    train and validation. fine_tuning: also measures a fine-tuned copy of an image encoder, as a method that has only
    the output as its layer. Returns the metrics by method. Raises `ValueError` for features that are not finite."""
    features = {
        split: extract(encoder, labelled.batches(split, kind), "all", pooling, device, dtype, f"{description}: {split}")
        for split in splits
    }
    by_layer = {layer: {split: features[split][layer] for split in splits} for layer in features["train"]}
    measured = transfer(by_layer, labelled.labels, methods)
    if fine_tuning is not None:
        tuned = fine_tune(encoder, labelled, fine_tuning, pooling, device, f"{description}: fine-tuning")
        measured[FINE_TUNE] = best_layer({-1: tuned})
    return measured


def trained_transfer(encoder: PreTrainedModel, labelled: LabelledSet, kind: str, **options) -> dict[str, dict]:
    """Measures a trained encoder. options: of `encoder_transfer`. Returns `{"as trained": transfer}`, in the format of
    `random_transfer`."""
    return {"as trained": encoder_transfer(encoder, labelled, kind, **options)}


def random_transfer(
    build: Callable[[], PreTrainedModel], labelled: LabelledSet, kind: str, **options
) -> dict[str, dict]:
    """Measures a random encoder. Its batch norm has the initial statistics, or statistics recomputed in one pass over
    train: a trained encoder has statistics of its data, so a fair baseline needs the choice.

    build: makes the encoder. options: of `encoder_transfer`. Returns `{variant: transfer}`, with one variant for an
    encoder without batch norm. Fine-tuning replaces the statistics, so only the first variant has it."""
    encoder = build()
    variants = {"initial statistics": encoder_transfer(encoder, labelled, kind, **options)}
    if recompute_batch_norm(encoder, labelled.batches("train", kind)):
        variants["recomputed statistics"] = encoder_transfer(
            encoder, labelled, kind, **{**options, "fine_tuning": None}
        )
    return variants


def with_gray(measure: Callable[..., dict[str, dict]], labelled: LabelledSet, gray: bool, **options) -> dict[str, dict]:
    """Measures transfer on a labelled set and, if `gray` is set, again on its images in grey: the results on colours
    alone would mislead for an encoder that saw only grey images.

    measure: (labelled set, **options) -> `{name: transfer}`. options: as of `encoder_transfer`. On grey images, a
    linear probe and kNN are measured, as the methods "linear_probe_gray" and "knn_gray"."""
    measured = measure(labelled, **options)
    if gray:
        options = {**options, "methods": METHODS, "fine_tuning": None}
        for name, on_gray in measure(labelled.in_gray(), **options).items():
            measured[name] |= {f"{method}{GRAY}": result for method, result in on_gray.items()}
    return measured


def compare(
    trained: Sequence[dict],
    random: Sequence[dict],
    baselines: Mapping[str, dict],
    majority: Mapping[str, float],
    start: dict | None = None,
) -> dict:
    """Computes mean and standard deviation of each test metric over seeds, and compares trained with random encoders,
    and with the pretrained encoder that training started from.

    trained, random: metrics of one encoder for each seed. baselines: metrics by name. majority: see `Labels.majority`.
    start: metrics of the pretrained encoder; None for training from scratch.
    Returns what results.json contains: `methods`, the names; for each contender `{"knn_top1": {"mean", "std",
    "values"}}`; and `beats_random` and, with a start, `beats_start`, `{"knn_top1": True, False or None}` (see `beats`).
    """
    methods = list(trained[0])
    begun = {} if start is None else {START: [start]}
    others = {name: [measured] for name, measured in baselines.items()}
    contenders = {"trained": trained, **begun, "random": random, **others}
    by_who = {
        who: {f"{method}_{metric}": over_seeds(transfers, method, metric) for method in methods for metric in METRICS}
        for who, transfers in contenders.items()
    }
    by_who["majority"] = {
        f"{method}_{metric}": mean_and_spread([majority[metric]]) for method in methods for metric in METRICS
    }
    names = [f"{method}_top1" for method in methods]
    verdicts = {name: beats(by_who["trained"][name], by_who["random"][name]) for name in names}
    begun = {} if start is None else {"beats_start": {name: improves(by_who, name) for name in names}}
    return {"methods": methods, "figures": by_who, "beats_random": verdicts, **begun}


def improves(by_who: Mapping[str, dict], name: str) -> bool | None:
    """Returns True if trained encoders beat the pretrained encoder in a metric. It is one encoder, without a spread.
    Returns None with fewer than 3 trained seeds."""
    trained, start = by_who["trained"][name], by_who[START][name]
    return beats(trained, {**start, "std": 0.0, "values": trained["values"]})


def over_seeds(transfers: Sequence[dict], method: str, metric: str) -> dict:
    """Returns mean and standard deviation of one metric on test; `UNMEASURED` if the method was not measured."""
    if method not in transfers[0]:
        return UNMEASURED
    return mean_and_spread([measured[method]["test"][metric] for measured in transfers])


def described(labelled: LabelledSet, fine_tuning: FineTuning | None = None) -> dict:
    """Describes a labelled set for results.json: source, label, classes, how it was opened, rows of each split, rows
    left out. With fine-tuning, also its settings."""
    return {
        "dataset": relative(labelled.name),
        "revision": labelled.revision,
        "label": labelled.label,
        "classes": labelled.labels.names,
        "rows": {split: len(values) for split, values in labelled.labels.splits.items()},
        "left_out": dict(labelled.left_out),
        **({"opened_with": labelled.opened_with} if labelled.opened_with else {}),
        **({FINE_TUNE: asdict(fine_tuning)} if fine_tuning else {}),
    }


def compare_measures(
    trained: Sequence[Mapping[str, float]],
    random: Sequence[Mapping[str, float]],
    chance: Mapping[str, float],
    start: Mapping[str, float] | None = None,
) -> dict:
    """Computes mean and standard deviation over seeds of the metrics of full models, next to the chance level.

    trained, random: metrics of one model for each seed. start: metrics of the model that training started from; None
    for training from scratch. Returns `{"trained", "start", "random", "chance": {metric: {"mean", "std", "values"}}}`,
    for the metrics that have a chance level."""
    begun = {} if start is None else {START: [start]}
    measured = {"trained": trained, **begun, "random": random, "chance": [chance]}
    return {
        who: {name: mean_and_spread([metrics[name] for metrics in of_who]) for name in chance}
        for who, of_who in measured.items()
    }


@torch.no_grad()
def pretext_metrics(
    model,
    batches: Iterable[dict],
    device: torch.device | str = "cpu",
    more: Callable[[PretextOutput], Mapping[str, Tensor | float]] = lambda output: {},
) -> dict[str, float]:
    """Measures the pretext task: returns the means of the loss and of the logged metrics over batches, in `eval()`.

    Batches are weighted by their number of labels; without labels, by their number of examples. A perplexity is
    computed from the mean loss. more: further values of an output, by name."""
    sums, count = {}, 0
    with evaluated(model, device):
        for batch in batches:
            output = model(**{name: value.to(device) for name, value in batch.items()})
            size = len(next(iter(batch.values())) if output.labels is None else output.labels)
            for name, value in {"loss": output.loss, **output.logs, **more(output)}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
            count += size
    means = {name: value / count for name, value in sums.items()}
    return {**means, "perplexity": math.exp(means["loss"])} if "perplexity" in means else means
