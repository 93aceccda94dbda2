"""Wrong pairs of two kinds of data: which are drawn, and losses and accuracies that count them like right pairs.

same (b, n) -> index of a wrong partner (b,); logits (n,), labels (n,): 1 right, 0 wrong -> ()
"""

import itertools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import drawn_by
from .losses import widened
from .masking import IGNORED

SOURCE_BATCHES = 8  # batches that are read for a row with another of its source


def wrong_ones(scores: Tensor, same: Tensor, hard: bool, generator: torch.Generator | None = None) -> Tensor:
    """Draws a negative for each row: the index of a column that does not belong to it. Returns `(b,)`, with `IGNORED`
    for rows without a negative.

    scores: `(b, n)`. same: `(b, n)`, bool, True for pairs that belong together. hard: draws in proportion to the
    softmax of the scores; False draws all negatives with the same probability.

    The draw is that of `torch.multinomial` for one sample, with the same random numbers. `multinomial` itself reads the
    probabilities twice to check them, and each time the CPU waits for the device."""
    none = same.all(1)
    chance = torch.where(same, -torch.inf, scores if hard else torch.zeros_like(scores)).float()
    chance = chance.masked_fill(none[:, None], 0.0).softmax(1)
    drawn = (chance / torch.empty_like(chance).exponential_(**drawn_by(generator))).argmax(1)
    return drawn.masked_fill(none, IGNORED)


def all_but_same_source(count: int, labels: Tensor | None, device: torch.device) -> Tensor:
    """Returns the pairs that are not drawn as wrong ones (argument `same` of `wrong_ones`): bool `(count, count)`.

    labels (`(count,)`, the source of each row): for each row, all but the others of its source are not drawn; for a row
    without others of its source, or without labels, only the row itself."""
    itself = torch.eye(count, dtype=torch.bool, device=device)
    if labels is None:
        return itself
    source = (labels[:, None] == labels) & ~itself
    return torch.where(source.any(1, keepdim=True), ~source, itself)


def has_source(labels: Tensor) -> Tensor:
    """Returns True for rows with another row of their source: labels `(n,)` to bool `(n,)`."""
    return (labels[:, None] == labels).sum(1) > 1


def check_sources(labels: Iterable[Tensor]) -> None:
    """Raises `ValueError` if no row of the first `SOURCE_BATCHES` batches has another of its source in its batch.

    labels: the source of each row of each batch, `(B,)`."""
    rows = 0
    for some in itertools.islice(labels, SOURCE_BATCHES):
        if has_source(some).any():
            return
        rows += len(some)
    raise ValueError(
        f"negatives='same_source' has no effect: of the first {rows} clips, none has another with its --pair_label in "
        "its batch. Give a --pair_label with fewer values, a larger --per_device_train_batch_size, or "
        "negatives='other'."
    )


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy in which right pairs (label 1) and wrong pairs (label 0) have the same total weight. `()`.

    logits, labels: `(n,)`. Labels `IGNORED` are left out."""
    logits = widened(logits)
    loss = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits.dtype), reduction="none")
    return mean_of_classes(loss, labels)


def balanced_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the accuracy on right pairs and the accuracy on wrong pairs, `()`. logits, labels: `(n,)`."""
    return mean_of_classes(((logits > 0) == (labels == 1)).float(), labels)


def mean_of_classes(values: Tensor, labels: Tensor) -> Tensor:
    """Mean of two means, `()`: of values with label 1 and of values with label 0. The mean of an absent label is 0.

    values, labels: `(n,)`."""
    means = [(values * (labels == kind)).sum() / (labels == kind).sum().clamp(min=1) for kind in (0, 1)]
    return sum(means) / 2
