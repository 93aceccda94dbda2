"""Length of training: what was asked for, and a resumed run whose length has changed.

checkpoint of 4 steps, planned for 4 + --max_steps 8 -> learning rate of step 4 of 8, a log line, an entry for the card
"""

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.utils import logging

log = logging.get_logger(__name__)


def length_of(args: TrainingArguments) -> dict[str, float]:
    """Returns the length of training that was asked for: `{"steps": n}` or `{"epochs": n}`."""
    return {"steps": args.max_steps} if args.max_steps > 0 else {"epochs": args.num_train_epochs}


def option_of(length: dict[str, float]) -> str:
    """Returns the option that asks for a length, with its value."""
    return f"--max_steps {length['steps']}" if "steps" in length else f"--num_train_epochs {length['epochs']}"


def length_left(values: tuple, steps: int) -> tuple:
    """Returns the lengths of training of a run that resumes: one that has done all steps does no more, where Trainer
    would do one.

    values: from Trainer: epochs, steps of an epoch, ..., steps. steps: done before the checkpoint."""
    epochs, steps_per_epoch, *more, max_steps = values
    if steps >= max_steps:
        epochs = steps // steps_per_epoch  # Trainer starts in this epoch
    return (epochs, steps_per_epoch, *more, max_steps)


class Lengthening(TrainerCallback):
    """Plans the learning rates of a resumed run over its new length, if its length has changed.

    history: `{"step", "from", "to"}` of each change; from and to are lengths in samples."""

    def __init__(self):
        self.history: list[dict[str, int]] = []
        self._planned: int | None = None  # samples, before the change
        self._step, self._seen, self._batch = (
            0,
            0,
            1,
        )  # before this part of the run; samples of a step

    def resume(
        self, checkpoint: str, args: TrainingArguments, stream: dict, before: TrainerState, batch: int, rows: int | None
    ) -> None:
        """Compares the length that is asked for with that of the run so far. stream: state of the stream. before: state
        of the trainer. batch: samples of a step now. rows: of the data, if known.

        Raises `ValueError` if training is asked to end before the checkpoint."""
        asked, steps, seen = length_of(args), before.global_step, stream["samples_seen"]
        shorter = asked.get("epochs", 0) < stream["length"].get("epochs", float("inf"))
        if asked.get("steps", steps) < steps or ("epochs" in asked and shorter and asked["epochs"] * rows < seen):
            raise ValueError(
                f"{option_of(asked)} would end before {checkpoint}, which has done {steps:,} steps ({seen:,} samples). "
                f"Give at least as many, or resume from an earlier checkpoint."
            )
        self.history = list(stream["lengthened"])
        self._step, self._seen, self._batch = steps, seen, batch
        planned = seen + (before.max_steps - steps) * stream["global_batch"]
        self._planned = planned if asked != stream["length"] else None

    def on_train_begin(self, args, state, control, lr_scheduler=None, **kwargs):
        """Changes the learning rates, logs the change and adds it to the history."""
        samples = self._seen + (state.max_steps - self._step) * self._batch
        if self._planned is None or abs(samples - self._planned) < self._batch:  # the end is rounded up to a step
            return
        if isinstance(lr_scheduler, LambdaLR):  # else the first step has the rate that was planned before
            rates = [
                base * factor(lr_scheduler.last_epoch)
                for base, factor in zip(lr_scheduler.base_lrs, lr_scheduler.lr_lambdas, strict=True)
            ]
            for group, rate in zip(lr_scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            lr_scheduler._last_lr = rates
        change = {"step": state.global_step, "from": self._planned, "to": samples}
        self.history.append(change)
        if state.is_world_process_zero:
            log.warning(f"{describe(change)}. The learning rate follows the schedule of {samples:,} samples.")


def describe(change: dict[str, int]) -> str:
    """Describes a change of the length: "Lengthened at step 4 from 32 to 64 samples"."""
    verb = "Lengthened" if change["to"] > change["from"] else "Shortened"
    return f"{verb} at step {change['step']:,} from {change['from']:,} to {change['to']:,} samples"
