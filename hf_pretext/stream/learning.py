"""What an objective learns from the training data between steps: batches, ranks, and equal weights after it.

sources -> training batches -> prepare
sources -> each row once, without random changes -> before_training, before_round
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import torch

from ..utils.ranks import on_main_process
from .loader import StreamLoader, each_row
from .trainer import StreamTrainer

Learn = Callable[[Iterator[dict]], Any]


def learned(trainer: StreamTrainer, learn: Learn, draw: int | None = None) -> Any:
    """Calls a method of the model with batches of the training data. Returns what it returns, on all ranks.

    All ranks call it, each with its share of the rows, if the model has `learns_on_all_ranks`; else the main process
    alone. All ranks then get the parameters and buffers of the main process. draw: None for training batches, without
    end, from the first sample of the data on; a number for each row once, without random changes, at a place in time
    that depends on this number and the row (see `each_row`). Raises the `ValueError` of `learn` on all ranks."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not model.learns_on_all_ranks:
        outcome = on_main_process(lambda: of_share(trainer, learn, draw, 0, 1))
    else:
        share_weights(trainer)  # batch norm has other statistics on each rank
        outcome = of_share(trainer, learn, draw, trainer.args.process_index, trainer.args.world_size)
    share_weights(trainer)
    return outcome


def of_share(trainer: StreamTrainer, learn: Learn, draw: int | None, rank: int, ranks: int) -> Any:
    """Calls `learn` with the batches of one of `ranks` ranks (see `learned`)."""
    keyed = trainer.accelerator.unwrap_model(trainer.model).needs_keys
    options = {"seed": trainer.data_seed, "settings": trainer.stream, "rank": rank, "ranks": ranks}
    options["num_workers"] = trainer.args.dataloader_num_workers
    if draw is None:
        processing = trainer.processing
        size = max(trainer.get_total_train_batch_size(trainer.args) // ranks, 1)
        batches = StreamLoader(trainer.mixture, processing, size, keys=0 if keyed else None, **options)
    else:  # all go through the encoders: not more at a time than in training
        processing = trainer.processing.evaluation()
        batches = each_row(trainer.mixture, processing, trainer._train_batch_size, draw=draw, **options)
    with closing(batches):
        return learn(finished(trainer, batches, processing, keyed))


def finished(trainer: StreamTrainer, batches: Iterable[dict], processing: Any, keyed: bool) -> Iterator[dict]:
    """Yields batches of model inputs on the device, with `keys` if `keyed` is set."""
    for batch in batches:
        with torch.autocast(trainer.args.device.type, enabled=False):  # as in training
            batch = trainer._prepare_inputs({k: v for k, v in batch.items() if keyed or k != "keys"}, processing)
        yield batch


def share_weights(trainer: StreamTrainer) -> None:
    """Sends the parameters and buffers of the main process to the other ranks."""
    if trainer.args.world_size > 1:
        model = trainer.accelerator.unwrap_model(trainer.model)
        for value in (*model.parameters(), *model.buffers()):
            torch.distributed.broadcast(value.data, src=0)


def forget(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Drops what an optimizer keeps of some parameters, e.g. Adam's moments. It begins with them again as in its first
    step."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
