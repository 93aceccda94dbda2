"""Schedule of a run that resumes with another global batch size: the same function of the samples seen as before.

step -> samples seen -> step of the schedule, of the first global batch size -> learning rate, progress
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainerState, TrainingArguments, get_scheduler
from transformers.utils import logging

from .mixture import Mixture

log = logging.get_logger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Schedule of a run whose global batch size has changed. Its steps are of the first size.

    first: the first global batch size. batch: the size now. steps: length of the schedule, in steps of the first size.
    step, samples: steps of the run and samples seen before this part of the run."""

    first: int
    batch: int
    steps: int
    step: int
    samples: int

    def at(self, step: int) -> float:
        """Returns the step of the schedule at a step of the run: its last one if the run continues after its end."""
        return min((self.samples + (step - self.step) * self.batch) / self.first, self.steps)

    def end(self) -> int:
        """Returns the step of the run at which the schedule ends."""
        return self.step + max(math.ceil((self.steps * self.first - self.samples) / self.batch), 0)

    def follow(self, scheduler: LRScheduler) -> LRScheduler:
        """Makes a scheduler follow this schedule. Returns it.

        Raises `ValueError` if its learning rate is no function of the step."""
        if not isinstance(scheduler, LambdaLR):
            raise ValueError(
                f"The global batch size was {self.first} and is now {self.batch}. The learning rate of "
                f"{type(scheduler).__name__} is no function of the step, so it can't be computed for a number of "
                f"samples. {keep(self.first)}, or start a new run with another --lr_scheduler_type."
            )
        scheduler.lr_lambdas = [lambda step, rate=rate: rate(self.at(step)) for rate in scheduler.lr_lambdas]
        return scheduler

    def lengths(self, values: tuple, args: TrainingArguments, data: Mixture) -> tuple:
        """Returns the lengths of training, in the order of `Trainer.set_initial_training_values`. With epochs, the run
        ends after as many samples as before.

        values: the lengths with the global batch size now."""
        epochs, steps_per_epoch, *more, max_steps = values
        if args.max_steps < 0:
            max_steps = self.step + max(math.ceil((args.num_train_epochs * len(data) - self.samples) / self.batch), 0)
        left = max_steps - self.step
        epochs = self.step // steps_per_epoch + (math.ceil(left / steps_per_epoch) + 1 if left > 0 else 0)
        return (epochs, steps_per_epoch, *more, max_steps)

    def record(self) -> dict[str, int]:
        """Returns what a resumed run needs, for JSON."""
        return {"first": self.first, "steps": self.steps}


def schedule_after(
    state: Mapping[str, Any],
    before: TrainerState,
    args: TrainingArguments,
    batch: int,
    data: Mixture,
    given: LRScheduler | None = None,
) -> Schedule | None:
    """Returns the schedule of a run that resumes; None if its global batch size has never changed.

    state, before: of the stream and of Trainer in the checkpoint. batch: global batch size now. given: a scheduler
    that the user made. Raises `ValueError` for a scheduler that can't follow a change."""
    first, step, samples = state["global_batch"], before.global_step, state["samples_seen"]
    recorded = state.get("schedule") or {"first": first, "steps": before.max_steps}
    if recorded["first"] == batch and step * batch == samples:
        return None
    schedule = Schedule(recorded["first"], batch, recorded["steps"], step, samples)
    if given is not None:
        raise ValueError(
            f"The global batch size was {schedule.first} and is now {batch}, but the scheduler in optimizers=(...) "
            f"counts steps. {keep(schedule.first)}, or use --lr_scheduler_type."
        )
    schedule = replace(schedule, steps=length(schedule, args, before.max_steps, data))
    trial = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    warmup = args.get_warmup_steps(schedule.steps)
    schedule.follow(get_scheduler(args.lr_scheduler_type, trial, warmup, schedule.steps, args.lr_scheduler_kwargs))
    if args.process_index == 0 and args.max_steps == before.max_steps != schedule.end():
        log.warning(
            f"The global batch size was {schedule.first} and is now {batch}. The learning rate schedule still ends "
            f"after {schedule.steps * schedule.first:,} samples, but --max_steps {args.max_steps} ends the run after "
            f"{samples + (args.max_steps - step) * batch:,}. Give --max_steps {schedule.end()} to end them together."
        )
    return schedule


def length(schedule: Schedule, args: TrainingArguments, max_steps: int, data: Mixture) -> int:
    """Returns the length of the schedule: as if the global batch size had not changed.

    max_steps: of the run so far. A `--max_steps` that differs from it sets a new end, for the schedule as for the run.
    """
    if args.max_steps < 0:
        return math.ceil(args.num_train_epochs * math.ceil(len(data) / schedule.first))
    if args.max_steps in (max_steps, schedule.end()):
        return schedule.steps
    samples = schedule.samples + (args.max_steps - schedule.step) * schedule.batch
    return max(math.ceil(samples / schedule.first), 1)


def keep(batch: int) -> str:
    """Returns how to keep a global batch size, as the beginning of a sentence."""
    return (
        "Set --per_device_train_batch_size and --gradient_accumulation_steps so that a step of all processes has "
        f"{batch} samples"
    )


def progress(state: TrainerState, schedule: Schedule | None) -> float:
    """Returns the fraction of the training that is done, 0 to 1."""
    return state.global_step / state.max_steps if schedule is None else schedule.at(state.global_step) / schedule.steps
