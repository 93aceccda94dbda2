"""Communication between ranks of values that are no tensors.

a value on each of R ranks -> gather_objects: a list of R values on all ranks; a function -> on_main_process: its value
"""

from collections.abc import Callable
from typing import Any

import torch.distributed as dist


def rank_and_ranks() -> tuple[int, int]:
    """Returns the rank of this process and the number of ranks: 0 and 1 without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gather_objects(value) -> list:
    """Returns the values of all ranks, in the order of ranks. Waits for all ranks."""
    if rank_and_ranks()[1] == 1:
        return [value]
    values = [None] * rank_and_ranks()[1]
    dist.all_gather_object(values, value)
    return values


def on_main_process(compute: Callable[[], Any]) -> Any:
    """Returns what a function returns on rank 0, on all ranks. Raises its `ValueError` on all ranks: others would wait
    forever."""
    rank, ranks = rank_and_ranks()
    outcome = [None, None]
    if rank == 0:
        try:
            outcome = [compute(), None]
        except ValueError as error:
            outcome = [None, str(error)]
    if ranks > 1:
        dist.broadcast_object_list(outcome, src=0)
    value, failed = outcome
    if failed is not None:
        raise ValueError(failed)
    return value
