"""Is it working? Metrics of a model that need no labels, on rows that it was not trained on.

model, HealthRows -> loss and accuracy of the pretext task; for each encoder spread, effective rank, dead channels,
agreement of nearest neighbours; each next to chance where that is known

- The spread is 0 for an encoder that gives all rows the same features: it has collapsed. Independent features have 1.
- The effective rank (RankMe, Garrido et al. 2023, https://arxiv.org/abs/2210.02885) is a warning, not a score: close to
  1, the features are of few directions; but of two encoders, the one with the higher rank may be the worse one.
- Dead channels are the share of the channels that are constant over all rows.
- The agreement of nearest neighbours is the share of the rows whose nearest neighbour among the second views of all
  rows is their own (R@1). An untrained encoder is above chance, as views share colours or words: compare with it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features import Pooling, extract
from ..modeling import PretextModel, PretextOutput
from ..stream.collapse import CONSTANT, number_of_classes, spread
from .comparison import pretext_metrics
from .health_rows import HealthRows

SPREAD, RANK, DEAD, NEIGHBOURS = FEATURES = ("spread", "effective_rank", "dead_channels", "neighbours")
CHANCE = "chance_"  # begin of the names of chance levels of the pretext task
STILL = 1e-6  # standard deviation of a dead channel, as a share of the mean square of all features
TIED = 1e-9  # cosines that differ by less are equal
LOWER_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "error", DEAD)  # parts of the names of metrics
NARROW, MANY_DEAD = 2.0, 0.5  # effective rank below which there is a warning, and share of dead channels from which
BARELY = 2.0  # times chance up to which neighbours are at chance
NO_ACCURACY = 1e-3  # difference of loss and cross-entropy from which the loss is no plain cross-entropy


class Health(NamedTuple):
    """metrics: by name; those of an encoder end with its kind of data, "spread_image". chance: levels of the metrics
    that have one. sizes: `{kind: (rows, channels)}` of the features."""

    metrics: dict[str, float]
    chance: dict[str, float]
    sizes: dict[str, tuple[int, int]]


def health(
    model: PretextModel,
    rows: HealthRows,
    device: torch.device | str = "cpu",
    dtypes: Mapping[str, torch.dtype | None] | None = None,
    pretext: bool = True,
    kinds: Collection[str] | None = None,
) -> Health:
    """Measures a model without labels. The same model and rows give the same metrics, bit for bit, on one machine.

    dtypes: dtype of autocast for the features, by kind; default: none. pretext: False leaves the pretext task out.
    kinds: of data, of the encoders to measure; default: all.
    Metrics that are not defined are NaN: of features that are not finite, or the rank of features that are all 0."""
    metrics, chance, sizes = {}, {}, {}
    if pretext:
        measured = pretext_metrics(model, rows.pretext_batches(), device, chance_of)
        chance = {name.removeprefix(CHANCE): v for name, v in measured.items() if name.startswith(CHANCE)}
        metrics = {name: value for name, value in measured.items() if not name.startswith(CHANCE)}
    pooling: Pooling = getattr(model.task, "pooling", "mean")
    for kind in model.encoders if kinds is None else kinds:
        encoder = model.encoders[kind]
        options = {"pooling": pooling, "device": device, "dtype": (dtypes or {}).get(kind), "description": "measuring"}
        features = extract(encoder, rows.batches(kind), **options)[-1]
        metrics |= {f"{name}_{kind}": value for name, value in of_features(features).items()}
        sizes[kind] = tuple(features.shape)
        first, second = rows.views(kind)
        if any(True for _ in first):
            views = [extract(encoder, some, **options)[-1] for some in (first, second)]
            metrics[f"{NEIGHBOURS}_{kind}"] = agreement(*views)
            chance[f"{NEIGHBOURS}_{kind}"] = 1 / len(views[0])
    return Health(metrics, chance, sizes)


def chance_of(output: PretextOutput) -> dict[str, float]:
    """Returns the chance levels of loss and accuracy of a batch, for equal scores of all K classes: ln K and 1/K.

    `{}` for objectives that do not say their K. The loss is left out if it is no plain cross-entropy of the logits."""
    classes = number_of_classes(output)
    if classes is None:
        return {}
    levels = {f"{CHANCE}accuracy": 1 / classes} if "accuracy" in output.logs else {}
    plain = output.candidates is not None
    if not plain:
        entropy = F.cross_entropy(output.logits.float(), output.labels)
        plain = abs(float(entropy) - float(output.loss)) < NO_ACCURACY * max(float(entropy), 1)
    return {**levels, f"{CHANCE}loss": math.log(classes)} if plain else levels


def of_features(features: Tensor) -> dict[str, float]:
    """Returns spread, effective rank and share of dead channels of features `(n, d)`; NaN if they are not finite."""
    if not features.isfinite().all():
        return dict.fromkeys((SPREAD, RANK, DEAD), math.nan)
    return {
        SPREAD: float(spread(features)),
        RANK: effective_rank(features),
        DEAD: float(dead_channels(features).float().mean()),
    }


def effective_rank(features: Tensor) -> float:
    """Returns the effective rank of features `(n, d)`: the exponential of the entropy of their normalised singular
    values, from 1 to min(n, d). NaN if all are 0. It is a warning, not a score."""
    values = torch.linalg.svdvals(features.double())
    total = values.sum()
    return float(torch.special.entr(values / total).sum().exp()) if total > 0 else math.nan


def dead_channels(features: Tensor) -> Tensor:
    """Returns which channels of features `(n, d)` are constant over the rows, `(d,)`, bool."""
    values = features.double()
    return values.std(0, correction=0) <= STILL * values.square().mean().sqrt()


def agreement(first: Tensor, second: Tensor) -> float:
    """Returns the share of rows whose nearest neighbour by cosine among `second` is themselves (R@1); chance is 1/n.

    first, second: features of two views of the same rows, `(n, d)`. Of m neighbours at the same distance, each counts
    1/m, so that constant features are at chance. NaN if they are not finite."""
    if not (first.isfinite().all() and second.isfinite().all()):
        return math.nan
    cosines = (F.normalize(first.double(), dim=1) @ F.normalize(second.double(), dim=1).T / TIED).round()
    nearest = cosines == cosines.amax(1, keepdim=True)
    return float((nearest.diagonal() / nearest.sum(1)).mean())


def warnings(
    metrics: Mapping[str, float],
    chance: Mapping[str, float],
    kinds: Sequence[str],
    random: Mapping[str, float] | None = None,
) -> list[str]:
    """Returns what is wrong by these metrics, as sentences without a full stop; `[]` for a healthy model.

    metrics: by name, NaN for undefined ones. kinds: kinds of data of the encoders. random: metrics of an untrained
    model: if it has neighbours at chance, too, the views have too little in common to show anything."""
    defined = {name: v for name, v in metrics.items() if not math.isnan(v)}
    sentences = []
    for kind in kinds:
        spread_, rank, dead = (defined.get(f"{name}_{kind}") for name in (SPREAD, RANK, DEAD))
        if spread_ is None:
            sentences.append(f"The features of the {kind} encoder are NaN or infinite")
        elif spread_ < CONSTANT:
            sentences.append(f"The {kind} encoder has collapsed: it gives all rows the same features")
        elif rank is not None and rank < NARROW:
            sentences.append(
                f"The features of the {kind} encoder are almost of one direction (effective rank {rank:.1f})"
            )
        if dead is not None and dead >= MANY_DEAD and (spread_ or 0) >= CONSTANT:
            sentences.append(f"{dead:.0%} of the channels of the {kind} encoder are the same for all rows")
        name = f"{NEIGHBOURS}_{kind}"
        at_chance = BARELY * chance.get(name, 0)
        if name in defined and defined[name] <= at_chance < (random or {}).get(name, math.inf):
            sentences.append(f"The {kind} encoder recognises a row from another view of it no better than by chance")
    if "loss" in defined and defined["loss"] >= chance.get("loss", math.inf):
        sentences.append("The loss of the pretext task is not below that of a guess")
    return sentences
