"""Losses that hold little memory, for scores over many classes.

logits (M, classes), labels (M,) -> loss ()
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
        normalizer = torch.cat([tile.to(exact).logsumexp(1) for tile in logits.split(rows_of_a_tile(logits))])  # (M,)
        ctx.save_for_backward(logits, labels, normalizer)
        return (normalizer - logits.gather(1, labels[:, None])[:, 0].to(exact)).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        logits, labels, normalizer = ctx.saved_tensors
        gradient, share = torch.empty_like(logits), grad / len(logits)
        parts = [values.split(rows_of_a_tile(logits)) for values in (gradient, logits, labels, normalizer)]
        for out, scores, label, normal in zip(*parts, strict=True):
            softmax = (scores - normal[:, None]).exp_()  # in the normaliser's type
            softmax[torch.arange(len(label), device=label.device), label] -= 1
            out.copy_(softmax.mul_(share))
        return gradient, None


def rows_of_a_tile(logits: Tensor) -> int:
    return max((TILE if logits.device.type == "cpu" else DEVICE_TILE) // logits.shape[1], 1)
