"""Losses that need little memory, for scores over many classes and between many pairs.

logits (M, classes), labels (M,) -> loss ()
rows (n, d), columns (m, d) -> scores (n, m), a tile of rows at a time -> loss ()
"""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.ranks import rank_and_ranks
from .distributed import moved

TILE = 2**22  # number of scores in memory at a time, on a CPU
DEVICE_TILE = 2**24  # on other devices, where starting a kernel costs more


def widened(values: Tensor) -> Tensor:
    """Returns values in float32 if their dtype has fewer digits, for losses of models in bfloat16 or float16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Returns the mean of -log softmax(logits)[label], `()`, in float32 or higher precision.

    Equals `F.cross_entropy(logits.float(), labels)`, which needs four float32 tensors of the size of the logits. This
    function needs one, the gradient, in the dtype of the logits.

    logits (`(M, classes)`, any floating dtype), labels (`(M,)`). label_smoothing: share of the target probability that
    is spread evenly over all classes.
    """
    return CrossEntropy.apply(logits, labels, label_smoothing)


class CrossEntropy(torch.autograd.Function):
    """Cross-entropy of a tile of rows at a time. The backward pass computes the softmax again."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        tiles = logits.split(rows_of_a_tile(logits, logits.shape[1]))
        normalizer = torch.cat([tile.to(exact).logsumexp(1) for tile in tiles])  # (M,)
        ctx.save_for_backward(logits, labels, normalizer)
        ctx.smoothing = smoothing
        target = logits.gather(1, labels[:, None])[:, 0].to(exact)
        if smoothing:
            target = torch.lerp(target, torch.cat([tile.to(exact).mean(1) for tile in tiles]), smoothing)
        return (normalizer - target).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, normalizer = ctx.saved_tensors
        gradient, share = torch.empty_like(logits), grad / len(logits)
        rows = rows_of_a_tile(logits, logits.shape[1])
        parts = [values.split(rows) for values in (gradient, logits, labels, normalizer)]
        for out, scores, label, normal in zip(*parts, strict=True):
            softmax = (scores - normal[:, None]).exp_()  # in the dtype of `normal`: float32 or higher
            softmax[torch.arange(len(label), device=label.device), label] -= 1 - ctx.smoothing
            if ctx.smoothing:
                softmax -= ctx.smoothing / logits.shape[1]
            out.copy_(softmax.mul_(share))
        return gradient, None, None


def rows_of_a_tile(like: Tensor, columns: int) -> int:
    """Returns how many rows of a score matrix with `columns` columns are computed at a time, at least 1. like: a tensor
    on the device in question."""
    return max((TILE if like.device.type == "cpu" else DEVICE_TILE) // columns, 1)


def softmax_loss(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    label_smoothing: float = 0.0,
    symmetric: bool = True,
) -> Tensor:
    """Returns the mean cross-entropy of each row's scores over all columns, `scale * rows @ columns.T`: `()`.

    The positives of a row are the columns with the same label; they share the target probability equally.

    rows (`(n, d)`), columns (`(m, d)`): in float32 or higher precision. scale (`()`). row_labels (`(n,)`),
    column_labels (`(m,)`): each row label must occur among the column labels. label_smoothing: share of the target
    probability that is spread over all columns. symmetric: averages this loss and the same loss of each column over all
    rows; then each column label must occur among the row labels.

    The term of the positives uses the mean of their embeddings, so it needs no scores. For the other term a tile of
    scores is in memory at a time; the backward pass computes them again.
    """
    along_rows, along_columns = Normalizers.apply(rows, columns, scale, symmetric)
    losses = [along_rows - scale * (rows * right(columns, column_labels, row_labels, label_smoothing)).sum(1)]
    if symmetric:
        positives = right(rows, row_labels, column_labels, label_smoothing)
        losses.append(along_columns - scale * (columns * positives).sum(1))
    return sum(loss.mean() for loss in losses) / len(losses)


def softmax_loss_of_ranks(
    images: Tensor,
    texts: Tensor,
    all_images: Tensor,
    all_texts: Tensor,
    scale: Tensor,
    labels: Tensor,
    all_labels: Tensor,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Returns the symmetric `softmax_loss` of this rank's images and texts against those of all ranks: `()`.

    images, texts (`(b, d)`), labels (`(b,)`): of this rank. all_images, all_texts (`(n, d)`), all_labels (`(n,)`): of
    all ranks."""
    ways = (images, all_texts), (texts, all_images)
    return sum(softmax_loss(*way, scale, labels, all_labels, label_smoothing, symmetric=False) for way in ways) / 2


def sigmoid_loss(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    bias: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    ring: bool = False,
) -> Tensor:
    """Returns SigLIP's loss, summed over columns and averaged over rows: `()`.

    The score of a row and a column is `scale * row . column + bias`. Their loss is -log sigmoid(score) if their labels
    are equal, and -log sigmoid(-score) if not.

    Shapes and memory are those of `softmax_loss`; bias (`()`). ring: compares rows with the columns of all ranks, the
    same number on each. Columns move from rank to rank in a ring; in the backward pass again, with their gradients. A
    rank holds the columns of at most three ranks at a time, for any number of ranks.
    """
    return Softpluses.apply(rows, columns, scale, bias, row_labels, column_labels, ring).sum() / len(rows)


class Normalizers(torch.autograd.Function):
    """Logarithms of the softmax denominators: of rows `(n,)`, and of columns `(m,)` if symmetric, else None."""

    @staticmethod
    def forward(ctx, rows: Tensor, columns: Tensor, scale: Tensor, symmetric: bool) -> tuple[Tensor, Tensor | None]:
        along_rows = rows.new_empty(len(rows))
        along_columns = rows.new_full((len(columns),), -torch.inf) if symmetric else None
        for scores, out in tiles_of_scores(rows, columns, scale, along_rows):
            torch.logsumexp(scores, 1, out=out)
            if symmetric:
                torch.logaddexp(along_columns, scores.logsumexp(0), out=along_columns)
        ctx.save_for_backward(rows, columns, scale, along_rows, along_columns)
        return along_rows, along_columns

    @staticmethod
    @once_differentiable
    def backward(ctx, of_rows: Tensor, of_columns: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, columns, scale, along_rows, along_columns = ctx.saved_tensors

        def gradient(scores: Tensor, normalizer: Tensor, of_tile: Tensor) -> Tensor:
            softmax = (scores - normalizer[:, None]).exp_().mul_(of_tile[:, None])
            if along_columns is not None:
                softmax += scores.sub_(along_columns).exp_().mul_(of_columns)
            return softmax

        of_embeddings, _ = gradients(gradient, rows, columns, scale, along_rows, of_rows)
        return *of_embeddings, None


class NegativeNormalizers(torch.autograd.Function):
    """Logarithm of the sum of exp(score) over the negatives of each row, `(n,)`; -inf for a row without one.

    row_numbers (`(n, p)`), column_numbers (`(m, q)`): integers. A column that shares one with a row is no negative of
    it. kept (`(m,)`, bool): False for columns that are negatives of no row."""

    @staticmethod
    def forward(
        ctx,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        row_numbers: Tensor,
        column_numbers: Tensor,
        kept: Tensor,
    ) -> Tensor:
        normalizers = rows.new_empty(len(rows))
        for scores, numbers, out in tiles_of_scores(rows, columns, scale, row_numbers, normalizers):
            scores.masked_fill_(shared(numbers, column_numbers) | ~kept, -torch.inf)
            torch.logsumexp(scores, 1, out=out)
        ctx.save_for_backward(rows, columns, scale, row_numbers, column_numbers, kept, normalizers)
        return normalizers

    @staticmethod
    @once_differentiable
    def backward(ctx, of_rows: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, scale, row_numbers, column_numbers, kept, normalizers = ctx.saved_tensors
        finite = normalizers.clamp(min=torch.finfo(rows.dtype).min)  # -inf - -inf is NaN

        def gradient(scores: Tensor, numbers: Tensor, normalizer: Tensor, of_tile: Tensor) -> Tensor:
            scores.masked_fill_(shared(numbers, column_numbers) | ~kept, -torch.inf)
            return scores.sub_(normalizer[:, None]).exp_().mul_(of_tile[:, None])

        of_embeddings, _ = gradients(gradient, rows, columns, scale, row_numbers, finite, of_rows)
        return *of_embeddings, None, None, None


class Softpluses(torch.autograd.Function):
    """Sums over columns of -log sigmoid(score) for equal labels and -log sigmoid(-score) for different ones: `(n,)`.

    Both equal softplus(score), minus the score for equal labels."""

    @staticmethod
    def forward(
        ctx,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        bias: Tensor,
        row_labels: Tensor,
        column_labels: Tensor,
        ring: bool,
    ) -> Tensor:
        ctx.save_for_backward(rows, columns, scale, bias, row_labels, column_labels)
        ctx.ranks = rank_and_ranks()[1] if ring else 1
        sums = rows.new_zeros(len(rows))
        for hop in range(ctx.ranks):
            if hop:
                columns, column_labels = moved(columns), moved(column_labels)
            for scores, labels, out in tiles_of_scores(rows, columns, scale, row_labels, sums):
                out += F.softplus(scores.add_(bias)).sum(1)
                out -= scores.masked_fill_(labels[:, None] != column_labels, 0).sum(1)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, of_sums: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, scale, bias, row_labels, column_labels = ctx.saved_tensors
        grads: list[Tensor] = []

        def gradient(scores: Tensor, labels: Tensor, of_tile: Tensor) -> Tensor:
            right = labels[:, None] == column_labels
            return scores.add_(bias).sigmoid_().add_(right, alpha=-1).mul_(of_tile[:, None])

        for hop in range(ctx.ranks):
            if hop:
                columns, column_labels = moved(columns), moved(column_labels)
            of_embeddings, of_bias = gradients(gradient, rows, columns, scale, row_labels, of_sums)
            parts = [*of_embeddings, of_bias]
            grads = [one.add_(part) for one, part in zip(grads, parts, strict=True)] if hop else parts
            if ctx.ranks > 1:  # after the last hop, each gradient is on the rank of its columns
                grads[1] = moved(grads[1])
        return *grads, None, None, None


def tiles_of_scores(rows: Tensor, columns: Tensor, scale: Tensor, *of_rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yields `scale * rows @ columns.T`, a tile of rows at a time, with the same rows of each tensor in `of_rows`.

    All tiles are written into the same memory, and callers write results into tensors that are allocated beforehand.
    Small tensors that are allocated between tiles can fill the memory of freed tiles, so that the next tile does not
    fit."""
    at_a_time = rows_of_a_tile(rows, len(columns))
    memory = rows.new_empty(min(at_a_time, len(rows)), len(columns))
    for tile, *parts in zip(*(values.split(at_a_time) for values in (rows, *of_rows)), strict=True):
        yield torch.mm(scale * tile, columns.T, out=memory[: len(tile)]), *parts


def gradients(
    of_scores: Callable[..., Tensor], rows: Tensor, columns: Tensor, scale: Tensor, *of_rows: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Returns the gradients of rows, columns and scale, and the sum of the gradients of all scores.

    of_scores: function that returns the gradients of a tile of scores. It takes the scores and their rows of
    `of_rows`."""
    grad_rows, grad_columns = torch.empty_like(rows), torch.zeros_like(columns)
    total = rows.new_zeros(())
    for scores, tile, out, *parts in tiles_of_scores(rows, columns, scale, rows, grad_rows, *of_rows):
        grad = of_scores(scores, *parts)
        torch.mm(grad, columns, out=out)  # scaled at the end
        grad_columns.addmm_(grad.T, tile)
        total += grad.sum()
    grad_scale = (grad_rows * rows).sum()
    return (grad_rows.mul_(scale), grad_columns.mul_(scale), grad_scale), total


def right(values: Tensor, labels: Tensor, wanted: Tensor, smoothing: float = 0.0) -> Tensor:
    """Returns the mean of the values with each label in `wanted`, `(n, d)`.

    smoothing: weight of the mean of all values in each result."""
    sums, count = sums_of_labels(values, labels, wanted)
    return torch.lerp(sums / count[:, None], values.mean(0).expand_as(sums), smoothing)


def sums_of_labels(values: Tensor, labels: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the sum of the values with each label in `wanted`, `(n, d)`, and their number, `(n,)`.

    Each label in `wanted` must occur in `labels`."""
    number = numbered(torch.cat([labels, wanted]))
    present, requested = number.split([len(labels), len(wanted)])
    sums = values.new_zeros(len(labels), values.shape[1]).index_add(0, present, values)
    count = values.new_zeros(len(labels)).index_add(0, present, torch.ones_like(present, dtype=values.dtype))
    return sums[requested], count[requested]


def numbered(labels: Tensor) -> Tensor:
    """Numbers the different labels from 0 in their order: the inverse of `labels.unique()`, `(n,)`.

    `unique` waits for the device, because the number of different labels is the size of its result."""
    ordered, position = labels.sort()
    number = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    return torch.empty_like(number).index_copy_(0, position, number)


def numbered_rows(values: Tensor) -> Tensor:
    """Numbers the different rows of integers `(n, d)`, each from 0 to below 2**32, from 0: `(n,)`."""
    number = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    for column in values.unbind(1):
        number = numbered(number * 2**32 + column)
    return number


def shared(rows: Tensor, columns: Tensor) -> Tensor:
    """Returns True for each row and column that have a number in common: `(n, p)`, `(m, q)` to `(n, m)`."""
    pairs = product(rows.unbind(1), columns.unbind(1))
    return reduce(torch.logical_or, (row[:, None] == column for row, column in pairs))
