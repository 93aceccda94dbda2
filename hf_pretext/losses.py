"""Losses that hold little memory, for scores over many classes and of many pairs.

logits (M, classes), labels (M,) -> loss ()
rows (n, d), columns (m, d) -> scores (n, m), a tile of rows at a time -> loss ()
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

TILE = 2**22  # scores that are computed with at a time, on a CPU
DEVICE_TILE = 2**26  # elsewhere, where starting a kernel costs more


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of -log softmax(logits)[label], `()`, in float32 or better: `F.cross_entropy(logits.float(), labels)`
    without the scores in float32 four times over. What it holds is their gradient, in their own type.

    logits (`(M, classes)`, any floating type), labels (`(M,)`).
    """
    return CrossEntropy.apply(logits, labels)


class CrossEntropy(torch.autograd.Function):
    """Rows are taken a tile at a time; their softmax is computed once more in the backward pass."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        tiles = logits.split(rows_of_a_tile(logits, logits.shape[1]))
        normalizer = torch.cat([tile.to(exact).logsumexp(1) for tile in tiles])  # (M,)
        ctx.save_for_backward(logits, labels, normalizer)
        return (normalizer - logits.gather(1, labels[:, None])[:, 0].to(exact)).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        logits, labels, normalizer = ctx.saved_tensors
        gradient, share = torch.empty_like(logits), grad / len(logits)
        rows = rows_of_a_tile(logits, logits.shape[1])
        parts = [values.split(rows) for values in (gradient, logits, labels, normalizer)]
        for out, scores, label, normal in zip(*parts, strict=True):
            softmax = (scores - normal[:, None]).exp_()  # in the normaliser's type
            softmax[torch.arange(len(label), device=label.device), label] -= 1
            out.copy_(softmax.mul_(share))
        return gradient, None


def rows_of_a_tile(like: Tensor, columns: int) -> int:
    return max((TILE if like.device.type == "cpu" else DEVICE_TILE) // columns, 1)


def softmax_loss(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    label_smoothing: float = 0.0,
    both: bool = True,
) -> Tensor:
    """Cross-entropy of each row's scores over all columns, `scale * rows @ columns.T`, where those with its label are
    right in equal shares; with `both`, the mean of that and of each column's over all rows. `()`.

    rows (`(n, d)`), columns (`(m, d)`), row_labels (`(n,)`), column_labels (`(m,)`, which have each row's). What is
    right is a mean of embeddings, so that it needs no scores; of those a tile is held at a time, here and in the
    backward pass, which computes them again.
    """
    along_rows, along_columns = in_tiles(normalizers, rows, columns, scale)
    losses = [along_rows.flatten() - scale * (rows * right(columns, column_labels, row_labels, label_smoothing)).sum(1)]
    if both:
        wanted = right(rows, row_labels, column_labels, label_smoothing)
        losses.append(along_columns.logsumexp(0) - scale * (columns * wanted).sum(1))
    return sum(loss.mean() for loss in losses) / len(losses)


def sigmoid_loss(
    rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor, row_labels: Tensor, column_labels: Tensor
) -> Tensor:
    """SigLIP's: -log sigmoid of each score `scale * row . column + bias`, of its negative where the labels differ;
    summed over columns, mean over rows. `()`.

    Shapes and memory are those of `softmax_loss`. Since -log sigmoid(s) = softplus(s) - s, all scores have their
    softplus summed, and those of the right ones are taken away: a sum of embeddings.
    """
    (total,) = in_tiles(softpluses, rows, columns, scale, bias)
    sums, count = sums_of_labels(columns, column_labels, row_labels)
    return (total.sum() - (scale * (rows * sums).sum(1) + bias * count).sum()) / len(rows)


def in_tiles(function: Callable[..., tuple[Tensor, ...]], rows: Tensor, columns: Tensor, *more: Tensor) -> list[Tensor]:
    """What a function of some rows and all columns returns, stacked over tiles of rows; of a single one, with its
    graph kept."""
    tiles = rows.split(rows_of_a_tile(rows, len(columns)))
    if len(tiles) == 1:
        found = [function(rows, columns, *more)]
    else:
        found = [checkpoint(function, tile, columns, *more, use_reentrant=False) for tile in tiles]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def normalizers(rows: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of the softmaxes' denominators: of rows `(n,)`, and of columns over these rows `(1, m)`."""
    scores = (scale * rows) @ columns.T  # (n, m)
    return scores.logsumexp(1), scores.logsumexp(0, keepdim=True)


def softpluses(rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Sums of softplus of the scores, `(n,)`."""
    return (F.softplus((scale * rows) @ columns.T + bias).sum(1),)


def right(values: Tensor, labels: Tensor, wanted: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean of the values with each wanted label, `(n, d)`, with a share of the mean of all."""
    sums, count = sums_of_labels(values, labels, wanted)
    return torch.lerp(sums / count[:, None], values.mean(0).expand_as(sums), smoothing)


def sums_of_labels(values: Tensor, labels: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of the values with each wanted label: their sum `(n, d)`, and how many there are, `(n,)`."""
    names, number = torch.cat([labels, wanted]).unique(return_inverse=True)
    own, asked = number.split([len(labels), len(wanted)])
    sums = values.new_zeros(len(names), values.shape[1]).index_add(0, own, values)
    count = values.new_zeros(len(names)).index_add(0, own, torch.ones_like(own, dtype=values.dtype))
    return sums[asked], count[asked]
