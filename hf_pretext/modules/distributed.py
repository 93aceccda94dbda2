"""What crosses the ranks of a run, with gradients; with one process, nothing does.

(b, d) on each of R ranks -> gather: (Rb, d) on all; moved: the (b, d) of a neighbour

The gradient that comes back is the sum over the ranks' losses. So where each rank's loss is a mean over its own rows,
DistributedDataParallel's average over ranks makes it that of one process with the whole batch.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def rank_and_ranks() -> tuple[int, int]:
    """This process's number and how many there are: 0 and 1 without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gather_objects(value) -> list:
    """Returns what each rank gives, in their order. Waits for all ranks."""
    if rank_and_ranks()[1] == 1:
        return [value]
    values = [None] * rank_and_ranks()[1]
    dist.all_gather_object(values, value)
    return values


def gather(value: Tensor, across: bool = True) -> Tensor:
    """All ranks' rows, in their order: `(b, ...)`, the same shape on each, to `(ranks * b, ...)`. across: False for a
    rank's own alone, as in `eval()`, where the others are not there."""
    return _Gather.apply(value) if across and rank_and_ranks()[1] > 1 else value


def gather_sequences(value: Tensor, across: bool = True) -> Tensor:
    """As `gather`, of sequences, with zeros up to the longest of all: `(b, l, ...)` to `(ranks * b, longest, ...)`."""
    if not across or rank_and_ranks()[1] == 1:
        return value
    longest = torch.tensor(value.shape[1], device=value.device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    return gather(F.pad(value, (0, 0) * (value.ndim - 2) + (0, int(longest) - value.shape[1])))


class _Gather(Function):
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        gathered = value.new_empty(rank_and_ranks()[1] * len(value), *value.shape[1:])
        dist.all_gather(list(gathered.chunk(rank_and_ranks()[1])), value.contiguous())
        return gathered

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
