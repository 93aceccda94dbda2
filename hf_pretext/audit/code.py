"""Online code: how many bits it takes to send the labels of rows whose features the receiver has.

rows in random order -> blocks -> each block is sent with readers that were fitted to the blocks before -> bits

The length of a prequential code (Blier and Ollivier 2018, https://huggingface.co/papers/1802.07044; for probes, Voita
and Titov 2020, https://huggingface.co/papers/2003.12298) counts how well labels can be read in the end, and how few
labels a reader needs for that. Features have to save bits compared with the adaptive code of the labels alone.

Nothing is tuned on labels that are not yet sent: in place of a choice of strength and temperature, the code is a
mixture of all of them and of an expert that ignores the features. After each block a share of the weights is spread
over all experts (fixed share, Herbster and Warmuth 1998, https://doi.org/10.1023/A:1007424614876), as the best strength
changes with the number of labels.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation.health import CHANCE, chance_of
from ..evaluation.linear_probe import STRENGTHS, fitted_probes
from ..modeling import PretextModel
from .readers import (
    check_rows,
    log_marginal,
    log_of,
    log_probabilities,
    one_thread,
    readable,
    sharpened,
    standardised,
    undefined,
)

FIRST = 8  # least labels of the first block, which is sent without features
GROWTH = 1.5  # of the labels seen, from block to block
SHARPNESS = (1.0, 2.0, 4.0)  # 1 / temperature: readers that are regularised for few labels are too unsure
EXPERTS = len(STRENGTHS) * len(SHARPNESS) + 1
SHARE = 0.1  # of the weights, spread over all experts after each block


class Code(NamedTuple):
    """Lengths of codes of labels, in bits per label.

    bits: the online code, given features. uniform: log2 of the number of classes. adaptive: the code of the labels
    alone, without features. saved: `adaptive - bits`; below 0 by a few bits over all labels at the worst. curve:
    `(labels seen, bits per label)` of each block but the first. bits and saved are NaN if undefined. warning: why they
    are, as a sentence."""

    bits: float
    uniform: float
    adaptive: float
    saved: float
    curve: list[tuple[int, float]]
    warning: str | None = None


def online_code(features: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> Code:
    """Measures the length of the online code of labels, given features.

    features (`(n, d)`), labels (`(n,)`, integers from 0 to `classes - 1`): of all rows that are sent. seed: of the
    order of the rows. Undefined, with a warning, for features that are not finite or are the
    same for all rows. Raises `ValueError` for shapes or labels that do not fit."""
    features, labels = np.asarray(features, np.float32), np.asarray(labels).astype(np.int64)
    check_rows("online code", features, labels, classes)
    order = np.random.default_rng(seed).permutation(len(labels))
    features, labels = features[order], labels[order]
    alone = adaptive_costs(labels, classes)
    uniform, adaptive = math.log2(classes), float(alone.mean() / math.log(2))
    warning = undefined(features)
    if warning:
        return Code(math.nan, uniform, adaptive, math.nan, [], warning)
    ends = block_ends(len(labels), classes)
    total, curve = float(alone[: ends[0]].sum()), []
    weights = np.full(EXPERTS, -math.log(EXPERTS))
    with one_thread():
        for start, end in pairwise(ends):
            costs = expert_costs(features[:end], labels[:end], start, classes)
            cost, weights = mixture([*costs, float(alone[start:end].sum())], weights)
            total += cost
            curve.append((start, cost / (end - start) / math.log(2)))
    bits = total / len(labels) / math.log(2)
    return Code(bits, uniform, adaptive, adaptive - bits, curve)


def block_ends(count: int, classes: int) -> list[int]:
    """Returns where blocks end, the last one at `count`, each at `GROWTH` times the end before. The first block has at
    least `FIRST` labels, and as many as there are classes, if there are so many."""
    ends = [count]
    while (before := int(ends[0] / GROWTH)) >= max(FIRST, classes):
        ends.insert(0, before)
    return ends


def expert_costs(features: np.ndarray, labels: np.ndarray, start: int, classes: int) -> list[float]:
    """Returns the nats that readers of the rows before `start` need for the labels after, for each strength and
    temperature."""
    known, sent = labels[:start], labels[start:]
    prior = log_marginal(known, classes)
    if not readable(features[:start], known):
        return [float(-prior[sent].sum())] * (EXPERTS - 1)
    inputs = standardised({"train": features[:start], "sent": features[start:]})

    def costs() -> Iterator[float]:
        for _, model in fitted_probes(inputs["train"], known, STRENGTHS):
            scores = log_probabilities(model, inputs["sent"], prior)
            for sharpness in SHARPNESS:
                yield float(-log_of(sharpened(scores, prior[None], sharpness), sent).sum())

    return list(costs())


def mixture(costs: Sequence[float], weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the nats of a block for the mixture of all experts, and the experts' log-weights for the next block.

    costs: nats of the block for each expert. weights: log-weights, `(experts,)`."""
    joint = weights - np.asarray(costs)
    evidence = np.logaddexp.reduce(joint)
    shared = np.logaddexp(joint - evidence + math.log1p(-SHARE), math.log(SHARE / len(joint)))
    return float(-evidence), shared


def adaptive_costs(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the nats of each label in the adaptive code of labels alone, `(n,)`: each is predicted by the counts of
    the labels before it, plus 1/2 (Krichevsky and Trofimov 1981, https://doi.org/10.1109/TIT.1981.1056331)."""
    ones = np.eye(classes)[labels]
    before = ones.cumsum(0) - ones + 0.5
    return -np.log(log_of(before, labels) / before.sum(1))


def coded_classes(model: PretextModel, batch: Mapping[str, Tensor]) -> int | None:
    """Returns the number of classes of the labels whose online code the losses of training are; None if they are none.

    They are, if each loss is the plain cross-entropy of labels that the task draws for each image. It is computed in
    training mode, from a batch of inputs of the objective."""
    if not ("ask" in model.capabilities and model.inputs == ("image",)):
        return None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = model.train()(**batch)
    plain = f"{CHANCE}loss" in chance_of(output) and output.candidates is None
    return output.logits.shape[1] if plain else None


def first_epoch_code(history: Sequence[Mapping[str, float]], samples: int) -> float:
    """Returns the length of the online code of pretext labels that a run wrote in its first epoch, in bits per label.

    history: entries with `samples_seen` and `loss`, the mean in nats of the steps since the entry before: `history` of
    a seed in results.json. samples: rows of an epoch. The length is the area under these means, drawn as steps, over
    the number of samples: sum of loss_i (samples_i - samples_{i-1}) / samples_last / ln 2. An entry beyond the first
    epoch counts with its part within it; samples after the last entry are left out.

    It is a code since each batch is predicted before a step is taken on it, and its rows are new (Blier and Ollivier
    2018). So it holds only for losses that are plain cross-entropies of one label per sample, and includes the dropout
    and the random changes of training. NaN if a loss is not finite. Raises `ValueError` for an empty or unsorted
    history and for samples below 1."""
    seen = [0, *(min(entry["samples_seen"], samples) for entry in history)]
    if samples < 1 or seen[-1] < 1 or any(a > b for a, b in pairwise(seen)):
        raise ValueError(
            f"The history counts {[entry['samples_seen'] for entry in history]} samples, of an epoch of {samples}. "
            "Give entries with samples_seen in ascending order, and an epoch of at least one sample."
        )
    losses = [entry.get("loss", math.nan) for entry in history]  # results.json leaves out values that are not finite
    widths = np.diff(seen)
    return float(np.asarray(losses)[widths > 0] @ widths[widths > 0] / seen[-1] / math.log(2))
