"""Trained encoders beside what they have to beat: the same encoder at random, raw pixels, the commonest class.

encoders of several seeds + a labelled set -> {"trained", "random", "pixels", "majority"}: {figure: mean, std}
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from ..features import Pooling, extract
from .labelled import SPLITS, LabelledImages
from .transfer import beats, mean_and_spread, recompute_batch_norm, transfer

METHODS = ("linear_probe", "knn")
FIGURES = ("top1", "mean_class")
PROBED_PIXELS = 16  # raw pixels are probed at this side: 16 * 16 * 3 numbers, of the order of an encoder's width


def encoder_transfer(
    encoder: PreTrainedModel,
    labelled: LabelledImages,
    pooling: Pooling = "mean",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    description: str = "encoder",
    methods: Sequence[str] = METHODS,
    splits: Sequence[str] = SPLITS,
) -> dict:
    """Linear probe and kNN of one encoder, of every layer (see `transfer`)."""
    found = {
        split: extract(encoder, labelled.batches(split), "all", pooling, device, dtype, f"{description}: {split}")
        for split in splits
    }
    by_layer = {layer: {split: found[split][layer] for split in splits} for layer in found["train"]}
    return transfer(by_layer, labelled.labels, methods)


def random_transfer(build: Callable[[], PreTrainedModel], labelled: LabelledImages, **options) -> dict[str, dict]:
    """The same for a fresh encoder, with the statistics of batch norm as initialised and from one pass over train: a
    baseline gets the choices that the trained encoder's training made for it. Returns `{variant: transfer}`."""
    encoder = build()
    found = {"initial statistics": encoder_transfer(encoder, labelled, **options)}
    if recompute_batch_norm(encoder, labelled.batches("train")):
        found["recomputed statistics"] = encoder_transfer(encoder, labelled, **options)
    return found


def pixel_transfer(labelled: LabelledImages) -> dict:
    """kNN on all pixels of a picture, linear probe on pixels averaged to 16 x 16."""
    full, small = {}, {}
    for split in labelled.labels.splits:
        batches = [batch["pixel_values"].cpu() for batch in labelled.batches(split)]
        full[split] = torch.cat([b.flatten(1) for b in batches])
        small[split] = torch.cat([F.adaptive_avg_pool2d(b, PROBED_PIXELS).flatten(1) for b in batches])
    only_knn = transfer({"pixels": full}, labelled.labels, methods=("knn",))
    return {
        **only_knn,
        **transfer({f"pixels {PROBED_PIXELS}x{PROBED_PIXELS}": small}, labelled.labels, ("linear_probe",)),
    }


def compare(trained: Sequence[dict], random: Sequence[dict], pixels: dict, majority: dict[str, float]) -> dict:
    """Means and spreads on test, and whether the trained encoder beats the random one.

    trained, random: transfers, one a seed. Returns `{"figures": {who: {"knn_top1": {...}}}, "beats_random": {...}}`.
    """
    figures = {
        who: {
            f"{method}_{figure}": mean_and_spread([found[method]["test"][figure] for found in transfers])
            for method in METHODS
            for figure in FIGURES
        }
        for who, transfers in {"trained": trained, "random": random, "pixels": [pixels]}.items()
    }
    figures["majority"] = {
        f"{method}_{figure}": mean_and_spread([majority[figure]]) for method in METHODS for figure in FIGURES
    }
    top1 = {f"{method}_top1" for method in METHODS}
    verdicts = {name: beats(figures["trained"][name], figures["random"][name]) for name in sorted(top1)}
    return {"figures": figures, "beats_random": verdicts}


@torch.no_grad()
def pretext_figures(model, batches: Iterable[dict], device: torch.device | str = "cpu") -> dict[str, float]:
    """How well the pretext task itself is solved: loss and logs over batches, in `eval()`, weighted by their size."""
    training = model.training
    model.to(device).eval()
    sums, count = {}, 0
    for batch in batches:
        output = model(**{name: value.to(device) for name, value in batch.items()})
        size = len(next(iter(batch.values())))
        for name, value in {"loss": output.loss, **output.logs}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * size
        count += size
    model.train(training)
    return {name: value / count for name, value in sums.items()}
