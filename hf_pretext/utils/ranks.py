"""Communication between ranks of values that are no tensors.

a value on each of R ranks -> gather_objects: a list of R values on all ranks; a function -> on_main_process: its value
"""

import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from accelerate import PartialState

FREED = 0.3  # seconds in which gloo's threads free the tensors of their last call


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
    """Returns what a function returns on rank 0, on all ranks. Raises its `ValueError` or `OSError` as `ValueError` on
    all ranks: others would wait forever."""
    rank, ranks = rank_and_ranks()
    outcome = [None, None]
    if rank == 0:
        try:
            outcome = [compute(), None]
        except (ValueError, OSError) as error:
            outcome = [None, str(error)]
    if ranks > 1:
        dist.broadcast_object_list(outcome, src=0)
    value, failed = outcome
    if failed is not None:
        raise ValueError(failed)
    return value


def on_each_process(compute: Callable[[], Any]) -> Any:
    """Calls a function on each rank and returns what it returns on rank 0. If it raises a `ValueError` on any rank, all
    ranks raise the first one."""
    try:
        outcome = (compute(), None)
    except ValueError as error:
        outcome = (None, str(error))
    outcomes = gather_objects(outcome)
    failed = next((error for _, error in outcomes if error is not None), None)
    if failed is not None:
        raise ValueError(failed)
    return outcomes[0][0]


def leave_group() -> None:
    """Destroys the process group, at the end of a process. Else a process may abort at its exit.

    `DistributedDataParallel` keeps gloo's threads alive even then. One that frees a tensor while the interpreter ends
    aborts the process ("terminate called without an active exception"): they get the time to finish before that."""
    if rank_and_ranks()[1] > 1:
        PartialState().destroy_process_group()  # in a notebook: leaves it to accelerate, whose group it is
        time.sleep(FREED)
