"""Communication between ranks, with gradients. With one process, tensors stay as they are.

(b, d) on each of R ranks -> gather: (R * b, d) on all ranks; moved: the (b, d) of the previous rank
keys (n,), values (n, ...) on each rank -> by_row: (rows, ...), without gradients

The gradient of a gathered tensor is the sum over the losses of all ranks. If each rank's loss is the mean over its
rows, DistributedDataParallel's average over ranks gives the same gradient as one process with the global batch.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ..utils.ranks import rank_and_ranks

ROWS = 2**14  # rows that are sent at a time


def gather(value: Tensor, across: bool = True) -> Tensor:
    """Concatenates the rows of all ranks, in the order of ranks: `(b, ...)` to `(ranks * b, ...)`.

    The shape must be the same on all ranks. across: False returns this rank's rows only, as in `eval()`, where other
    ranks may not take part."""
    return _Gather.apply(value) if across and rank_and_ranks()[1] > 1 else value


def gather_sequences(value: Tensor, across: bool = True) -> Tensor:
    """Concatenates sequences like `gather`, padded with zeros to the longest of all ranks: `(b, l, ...)` to
    `(ranks * b, longest, ...)`."""
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
        gradient = gradient.contiguous().clone()  # all_reduce writes in place, and other nodes may use this tensor
        dist.all_reduce(gradient)
        return gradient.chunk(ranks)[rank]


def share_of_mean(mean: Tensor, count: int) -> Tensor:
    """Returns the mean over `count` values of this rank, weighted so that the average over ranks is the mean over the
    values of all ranks, `()`: DistributedDataParallel averages the gradients of ranks that have different counts."""
    ranks = rank_and_ranks()[1]
    if ranks == 1:
        return mean
    total = mean.new_tensor(float(count))
    dist.all_reduce(total)
    return mean * (count * ranks / total)


def moved(value: Tensor) -> Tensor:
    """Sends a tensor to the next rank of a ring, and returns the tensor of the previous rank, without gradient.

    The shape must be the same on all ranks. After as many moves as ranks, each rank has its first tensor again."""
    rank, ranks = rank_and_ranks()
    value, received = value.contiguous(), torch.empty_like(value, memory_format=torch.contiguous_format)
    exchange = [(dist.isend, value, (rank + 1) % ranks), (dist.irecv, received, (rank - 1) % ranks)]
    for request in dist.batch_isend_irecv([dist.P2POp(*one) for one in exchange]):
        request.wait()
    return received


def by_row(
    rows: int, keys: Tensor, values: Tensor, everywhere: bool = True, device: torch.device | str = "cpu"
) -> Tensor | None:
    """Collects values of rows from all ranks, in the order of the rows. Returns `(rows, ...)` on the CPU, 0 for rows
    that no rank has.

    keys (`(n,)`, int64): numbers of the rows that this rank has values of, each below `rows` and on one rank only.
    values (`(n, ...)`): of one dtype and width on all ranks. everywhere: False returns None on all ranks but the first.
    device: of the communication, a GPU for NCCL. Only `ROWS` rows at a time are sent."""
    rank, ranks = rank_and_ranks()
    order = keys.argsort()
    keys, values = keys[order], values[order]
    collected = torch.zeros(rows if everywhere or rank == 0 else 0, *values.shape[1:], dtype=values.dtype)
    if ranks == 1:
        return collected.index_copy_(0, keys, values)
    for first in range(0, rows, ROWS):
        start, stop = torch.searchsorted(keys, torch.tensor([first, first + ROWS])).tolist()
        part = values.new_zeros(min(ROWS, rows - first), *values.shape[1:])
        part = part.index_copy_(0, keys[start:stop] - first, values[start:stop]).to(device)
        dist.all_reduce(part) if everywhere else dist.reduce(part, dst=0)  # each row is 0 on all ranks but one
        if len(collected):
            collected[first : first + ROWS] = part.cpu()
    return collected if everywhere or rank == 0 else None
