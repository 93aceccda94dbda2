"""Losses that hold little memory, for scores over many classes and of many pairs.

logits (M, classes), labels (M,) -> loss ()
rows (n, d), columns (m, d) -> scores (n, m), a tile of rows at a time -> loss ()
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distributed import moved, rank_and_ranks

TILE = 2**22  # scores that are computed with at a time, on a CPU
DEVICE_TILE = 2**24  # elsewhere, where starting a kernel costs more


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
    symmetric: bool = True,
) -> Tensor:
    """Cross-entropy of each row's scores over all columns, `scale * rows @ columns.T`, where those with its label are
    right in equal shares; where symmetric, the mean of that and of each column's over all rows. `()`.

    rows (`(n, d)`), columns (`(m, d)`), both in float32 or better; scale (`()`); row_labels (`(n,)`), column_labels
    (`(m,)`), which have each row's; where symmetric, row_labels have each column's, too. What is
    right is a mean of embeddings, so that it needs no scores; of those a tile is held at a time, here and in the
    backward pass, which computes them again.
    """
    along_rows, along_columns = Normalizers.apply(rows, columns, scale, symmetric)
    losses = [along_rows - scale * (rows * right(columns, column_labels, row_labels, label_smoothing)).sum(1)]
    if symmetric:
        wanted = right(rows, row_labels, column_labels, label_smoothing)
        losses.append(along_columns - scale * (columns * wanted).sum(1))
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
    """`softmax_loss` both ways, of this rank's pictures and texts (`(b, d)` each) among all ranks' (`(n, d)`). `()`.

    labels (`(b,)`), all_labels (`(n,)`): of this rank's pairs, and of all."""
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
    """SigLIP's: -log sigmoid of each score `scale * row . column + bias`, of its negative where the labels differ;
    summed over columns, mean over rows. `()`.

    Shapes and memory are those of `softmax_loss`. ring: over all ranks' columns, as many on each, which go round from
    rank to rank, and in the backward pass once more, their gradients with them: a rank holds those of three at a time,
    however many there are.
    """
    return Softpluses.apply(rows, columns, scale, bias, row_labels, column_labels, ring).sum() / len(rows)


class Normalizers(torch.autograd.Function):
    """The logarithms of the softmaxes' denominators: of rows `(n,)`, and where symmetric of columns `(m,)`."""

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


class Softpluses(torch.autograd.Function):
    """Sums over columns of -log sigmoid(score), of the negative score where the labels differ, `(n,)`: of
    softplus(score), less the score where they are equal."""

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
            if ctx.ranks > 1:  # after the last time, the gradients are where their columns came from
                grads[1] = moved(grads[1])
        return *grads, None, None, None


def tiles_of_scores(rows: Tensor, columns: Tensor, scale: Tensor, *of_rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """`scale * rows @ columns.T`, some rows at a time, each with its part of what there is a value a row of.

    All tiles are written into the same memory, and what is found of them into results allocated beforehand: small
    results kept between tiles take the place of those freed, and no next one would fit there."""
    at_a_time = rows_of_a_tile(rows, len(columns))
    memory = rows.new_empty(min(at_a_time, len(rows)), len(columns))
    for tile, *parts in zip(*(values.split(at_a_time) for values in (rows, *of_rows)), strict=True):
        yield torch.mm(scale * tile, columns.T, out=memory[: len(tile)]), *parts


def gradients(
    of_scores: Callable[..., Tensor], rows: Tensor, columns: Tensor, scale: Tensor, *of_rows: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The gradients of rows, columns and scale, and the sum of the scores' own, which a function finds of each tile."""
    grad_rows, grad_columns = torch.empty_like(rows), torch.zeros_like(columns)
    total = rows.new_zeros(())
    for scores, tile, out, *parts in tiles_of_scores(rows, columns, scale, rows, grad_rows, *of_rows):
        grad = of_scores(scores, *parts)
        torch.mm(grad, columns, out=out)  # to be scaled
        grad_columns.addmm_(grad.T, tile)
        total += grad.sum()
    grad_scale = (grad_rows * rows).sum()
    return (grad_rows.mul_(scale), grad_columns.mul_(scale), grad_scale), total


def right(values: Tensor, labels: Tensor, wanted: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean of the values with each wanted label, `(n, d)`, with a share of the mean of all."""
    sums, count = sums_of_labels(values, labels, wanted)
    return torch.lerp(sums / count[:, None], values.mean(0).expand_as(sums), smoothing)


def sums_of_labels(values: Tensor, labels: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of the values with each wanted label: their sum `(n, d)`, and how many there are, `(n,)`."""
    names, number = torch.cat([labels, wanted]).unique(return_inverse=True)
    present, asked = number.split([len(labels), len(wanted)])
    sums = values.new_zeros(len(names), values.shape[1]).index_add(0, present, values)
    count = values.new_zeros(len(names)).index_add(0, present, torch.ones_like(present, dtype=values.dtype))
    return sums[asked], count[asked]
