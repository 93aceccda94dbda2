"""What an objective learns from the training data between steps: batches, ranks, and equal weights after it.

sources -> training batches -> prepare
sources -> each row once, without random changes -> before_training, before_round
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import torch
from transformers.utils import logging

from ..modeling import PretextModel
from ..utils.ranks import on_main_process
from .loader import StreamLoader, each_row
from .trainer import StreamTrainer

Learn = Callable[[Iterator[dict]], Any]
log = logging.get_logger(__name__)


class LearningTrainer(StreamTrainer):
    """Trainer of an objective that may learn from the training data before training and between steps."""

    def _prepare(self) -> None:
        """Calls `prepare` of the objective on the main process and sends the result to the other ranks."""
        model = self.accelerator.unwrap_model(self.model)
        if type(model).prepare is not PretextModel.prepare:
            learned(self, model.prepare)
            if self.is_world_process_zero() and model.prepared():
                log.warning(f"Prepared from the data before training: {model.prepared()}.")

    def before_training(self) -> None:
        """Calls `before_training` of the objective, under the autocast of training, with each row once: the same clips
        in a resumed run. For data without a length, with training batches. Training batches then have only the kinds
        that the objective still needs."""
        model = self.accelerator.unwrap_model(self.model)
        with self.accelerator.autocast():
            learned(self, model.before_training, None if self.mixture.endless else 0)
        kinds = model.step_inputs()
        if len(kinds) < len(model.inputs):
            self._loader.use(self.inputs.only(kinds))

    def next_round(self) -> int:
        """Returns the number of the round, from 0, of the next step. A round is `round_epochs` of the model; for data
        without a length, all of training.

        Epochs are of whole steps, as in `num_train_epochs`, so that no round begins in the last few steps."""
        if self.mixture.endless:
            return 0
        batch = self.get_total_train_batch_size(self.args)
        epoch = -(-len(self.mixture) // batch) * batch
        return self.samples_seen // (epoch * self.accelerator.unwrap_model(self.model).round_epochs)

    def before_round(self) -> None:
        """Calls `before_round` of the objective, as `before_training`, if a round begins with the next step. Logs what
        it returns, and drops the optimizer's state of parameters that were drawn again.

        A checkpoint has the number of the round, so that a run that resumes with another global batch size skips and
        repeats none."""
        number = self.next_round()
        if self.round is not None and number <= self.round:
            return
        model = self.accelerator.unwrap_model(self.model)
        with self.accelerator.autocast():
            values = learned(self, model.before_round, None if self.mixture.endless else number)
        forget(self.optimizer, model.redrawn())
        self.round = number
        if values:
            self.log(dict(values))


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
        inputs = trainer.inputs
        size = max(trainer.get_total_train_batch_size(trainer.args) // ranks, 1)
        batches = StreamLoader(trainer.mixture, inputs, size, keys=0 if keyed else None, **options)
    else:  # all go through the encoders: not more at a time than in training
        inputs = trainer.inputs.evaluation()
        batches = each_row(trainer.mixture, inputs, trainer._train_batch_size, draw=draw, **options)
    with closing(batches):
        return learn(finished(trainer, batches, inputs, keyed))


def finished(trainer: StreamTrainer, batches: Iterable[dict], inputs: Any, keyed: bool) -> Iterator[dict]:
    """Yields batches of model inputs on the device, with `keys` if `keyed` is set."""
    for batch in batches:
        with torch.autocast(trainer.args.device.type, enabled=False):  # as in training
            batch = trainer._prepare_inputs({k: v for k, v in batch.items() if keyed or k != "keys"}, inputs)
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
