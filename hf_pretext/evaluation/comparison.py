"""Trained encoders beside what they have to beat: the same at random, what needs no encoder, the commonest class.

encoders of several seeds + a labelled set -> {"trained", "random", "pixels", "majority"}: {figure: mean, std}
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ..features import Pooling, extract
from ..utils.paths import relative
from .labelled import SPLITS, Labelled, LabelledImages
from .transfer import METHODS, Method, beats, mean_and_spread, recompute_batch_norm, transfer

FIGURES = ("top1", "mean_class")
PROBED_PIXELS = 16  # raw pixels are probed at this side: 16 * 16 * 3 numbers, of the order of an encoder's width
COMPARED_PIXELS = 64  # and compared at this side at most: the whole set lies in memory


def encoder_transfer(
    encoder: PreTrainedModel,
    labelled: Labelled,
    methods: Mapping[str, Method] = METHODS,
    pooling: Pooling = "mean",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    description: str = "encoder",
    splits: Sequence[str] = SPLITS,
) -> dict:
    """What each method finds in the features of one encoder, of every layer (see `transfer`)."""
    found = {
        split: extract(encoder, labelled.batches(split), "all", pooling, device, dtype, f"{description}: {split}")
        for split in splits
    }
    by_layer = {layer: {split: found[split][layer] for split in splits} for layer in found["train"]}
    return transfer(by_layer, labelled.labels, methods)


def random_transfer(build: Callable[[], PreTrainedModel], labelled: Labelled, **options) -> dict[str, dict]:
    """The same for a fresh encoder, with the statistics of batch norm as initialised and from one pass over train: a
    baseline gets the choices that the trained encoder's training made for it. Returns `{variant: transfer}`."""
    encoder = build()
    found = {"initial statistics": encoder_transfer(encoder, labelled, **options)}
    if recompute_batch_norm(encoder, labelled.batches("train")):
        found["recomputed statistics"] = encoder_transfer(encoder, labelled, **options)
    return found


def pixel_transfer(labelled: LabelledImages) -> dict:
    """kNN on the pixels of a picture, averaged to 64 x 64 where they are more; linear probe on 16 x 16."""
    full, small = {}, {}
    for split in labelled.labels.splits:
        parts = [
            (averaged(pixels, COMPARED_PIXELS), averaged(pixels, PROBED_PIXELS))
            for pixels in (batch["pixel_values"] for batch in labelled.batches(split))
        ]
        full[split], small[split] = map(torch.cat, zip(*parts, strict=True))
    return {
        **transfer({"pixels": full}, labelled.labels, {"knn": METHODS["knn"]}),
        **transfer(
            {f"pixels {PROBED_PIXELS}x{PROBED_PIXELS}": small},
            labelled.labels,
            {"linear_probe": METHODS["linear_probe"]},
        ),
    }


def averaged(pixels: Tensor, side: int) -> Tensor:
    """Pictures (`(B, 3, H, W)`) at no more than this side, as vectors: `(B, pixels)`."""
    height, width = (min(side, length) for length in pixels.shape[-2:])
    return F.adaptive_avg_pool2d(pixels, (height, width)).flatten(1)


def compare(
    trained: Sequence[dict], random: Sequence[dict], baselines: Mapping[str, dict], majority: Mapping[str, float]
) -> dict:
    """Means and spreads on test, and whether the trained encoder beats the random one.

    trained, random: transfers, one a seed. baselines: transfers of what needs no encoder, by name. Returns
    `{"methods": [...], "figures": {who: {"knn_top1": {...}}}, "beats_random": {"knn_top1": ...}}`.
    """
    methods = list(trained[0])
    contenders = {"trained": trained, "random": random, **{name: [found] for name, found in baselines.items()}}
    figures = {
        who: {
            f"{method}_{figure}": mean_and_spread([found[method]["test"][figure] for found in transfers])
            for method in methods
            for figure in FIGURES
        }
        for who, transfers in contenders.items()
    }
    figures["majority"] = {
        f"{method}_{figure}": mean_and_spread([majority[figure]]) for method in methods for figure in FIGURES
    }
    names = [f"{method}_top1" for method in methods]
    verdicts = {name: beats(figures["trained"][name], figures["random"][name]) for name in names}
    return {"methods": methods, "figures": figures, "beats_random": verdicts}


def described(labelled: Labelled) -> dict:
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
    """Means and spreads of what whole models are worth, one of each a seed, beside chance: `{who: {name: {...}}}`, of
    what chance tells of."""
    measured = {"trained": trained, "random": random, "chance": [chance]}
    return {
        who: {name: mean_and_spread([found[name] for found in all_found]) for name in chance}
        for who, all_found in measured.items()
    }


@torch.no_grad()
def pretext_figures(model, batches: Iterable[dict], device: torch.device | str = "cpu") -> dict[str, float]:
    """How well the pretext task itself is solved: loss and logs over batches, in `eval()`, weighted by how much there
    was to tell in each (its labels; its examples where there are none). A perplexity is that of the mean loss."""
    training = model.training
    model.to(device).eval()
    sums, count = {}, 0
    for batch in batches:
        output = model(**{name: value.to(device) for name, value in batch.items()})
        size = len(next(iter(batch.values())) if output.labels is None else output.labels)
        for name, value in {"loss": output.loss, **output.logs}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * size
        count += size
    model.train(training)
    means = {name: value / count for name, value in sums.items()}
    return {**means, "perplexity": math.exp(means["loss"])} if "perplexity" in means else means
