"""What crosses the ranks of a run, with gradients; with one process, nothing does.

(b, d) on each of R ranks -> gather: (Rb, d) on all; moved: the (b, d) of a neighbour

The gradient that comes back is the sum over the ranks' losses. So where each rank's loss is a mean over its own rows,
DistributedDataParallel's average over ranks makes it that of one process with the whole batch.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


def rank_and_ranks() -> tuple[int, int]:
    """This process's number and how many there are: 0 and 1 without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gather(value: Tensor) -> Tensor:
    """All ranks' rows, in their order: `(b, ...)`, the same shape on each, to `(ranks * b, ...)`."""
    return value if rank_and_ranks()[1] == 1 else _Gather.apply(value)


class _Gather(Function):
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        whole = value.new_empty(rank_and_ranks()[1] * len(value), *value.shape[1:])
        dist.all_gather(list(whole.chunk(rank_and_ranks()[1])), value.contiguous())
        return whole

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        rank, ranks = rank_and_ranks()
        gradient = gradient.contiguous().clone()  # it may be another's
        dist.all_reduce(gradient)
        return gradient.chunk(ranks)[rank]


def moved(value: Tensor) -> Tensor:
    """The tensor of the rank before this one, in a ring, without gradient; the shape must be the same on all. After as
    many moves as there are ranks it is one's own."""
    rank, ranks = rank_and_ranks()
    value, received = value.contiguous(), torch.empty_like(value, memory_format=torch.contiguous_format)
    exchange = [(dist.isend, value, (rank + 1) % ranks), (dist.irecv, received, (rank - 1) % ranks)]
    for request in dist.batch_isend_irecv([dist.P2POp(*one) for one in exchange]):
        request.wait()
    return received
