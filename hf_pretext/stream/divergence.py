"""Stops a run that diverged: on all ranks at the same step, before anything that is not finite is logged or saved.

loss of each batch -> first step that is not finite, on the device -> read before each log, evaluation and checkpoint
"""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import Trainer, TrainingArguments

from ..utils.finite import largest, listed, not_finite
from ..utils.ranks import rank_and_ranks
from .branch import branch_of, step_of

NEVER = 2**62  # later than any step
LEAST_SCALE = 2**-20  # of the loss in fp16; it starts at 2**16, and each step that is skipped halves it


class Diverged(ValueError):
    """The loss or the weights of a run are NaN or infinite."""


class FiniteTrainer(Trainer):
    """Trainer that raises `Diverged` instead of training, evaluating or saving a model that is not finite.

    The first step whose loss is not finite is noted on the device, so that no step waits for it. In fp16 losses do not
    count: a step whose gradients are not finite is skipped by the GradScaler, which lowers its scale. A scale that
    comes close to 0 counts."""

    def __init__(self, model, args: TrainingArguments, **kwargs):
        args.logging_nan_inf_filter = False  # it would log NaN as 0, and wait for the device at each batch
        self._first_bad, self._checked = torch.tensor(NEVER), False
        super().__init__(model, args, **kwargs)

    def train(self, *args, **kwargs):
        """Trains, like `Trainer.train`. Raises `ValueError` for weights that are not finite before training, and
        `Diverged` on all ranks, at the same step."""
        if names := not_finite(self._state()):
            raise ValueError(
                f"The model has weights that are NaN or infinite before training: {listed(names)}. Start from another "
                "checkpoint, or from random weights."
            )
        output = super().train(*args, **kwargs)
        self.check_finite(weights=True)
        return output

    def training_step(self, *args, **kwargs) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.scaler is None:
            first = self._first_bad.to(loss.device)
            self._first_bad = torch.where(loss.isfinite(), first, first.clamp(max=self.state.global_step + 1))
        return loss

    def check_finite(self, weights: bool) -> None:
        """Raises `Diverged`, on all ranks or none, if a loss was not finite. Waits once for the device.

        weights: also if a weight is not finite. Call it on every rank after the same step."""
        step, scaler = self.state.global_step, self.accelerator.scaler
        bad = self._first_bad.to(self.args.device).repeat(3)
        if weights:
            finite = largest(self._state().values()).isfinite().to(bad.device)
            bad[1] = torch.where(finite, NEVER, step)
        if scaler is not None and scaler.get_scale() < LEAST_SCALE:
            bad[2] = step
        if rank_and_ranks()[1] > 1:
            dist.all_reduce(bad, op=dist.ReduceOp.MIN)
        by_loss, by_weights, by_scale = bad.tolist()
        if by_loss < NEVER:
            raise Diverged(self._description(f"the loss of step {by_loss} is NaN or infinite", by_loss))
        if by_weights < NEVER:
            raise Diverged(self._description(f"weights are NaN or infinite after step {step}", step))
        if by_scale < NEVER:
            what = f"fp16 skips all steps before step {step}, as their gradients are NaN or infinite"
            raise Diverged(self._description(what, step))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model, like `Trainer.save_model`. Raises `Diverged` for weights that are not finite."""
        if not self._checked and (names := not_finite(self._state())):  # no exchange: one rank alone may save
            step = self.state.global_step
            raise Diverged(self._description(f"weights are NaN or infinite after step {step}: {listed(names)}", step))
        super().save_model(output_dir, _internal_call)

    def _state(self) -> dict[str, Tensor]:
        return self.accelerator.unwrap_model(self.model).state_dict()

    def _save_checkpoint(self, model, trial) -> None:
        self.check_finite(weights=True)
        self._checked = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._checked = False

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        if self.control.should_log or self.control.should_evaluate:
            self.check_finite(weights=self.control.should_evaluate)
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self._globalstep_last_logged == self.state.global_step:
            self._tr_loss.zero_()  # Trainer subtracts it from itself, and a NaN of a step that fp16 skipped would stay

    def _description(self, what: str, step: int) -> str:
        """Returns the error message with the last checkpoint before a step."""
        checkpoint = last_checkpoint_before(self.args.output_dir, step)
        none = f"{self.args.output_dir} has no checkpoint."
        kept = f"The last good checkpoint is {checkpoint}." if checkpoint else none
        return (
            f"Training diverged: {what}, with --learning_rate {self.args.learning_rate:g} and --max_grad_norm "
            f"{self.args.max_grad_norm:g}. {kept} Train again with a lower --learning_rate or more "
            "--warmup_steps."
        )


def last_checkpoint_before(run: str, step: int) -> Path | None:
    """Returns the newest checkpoint of a run's branch with fewer steps; None without one."""
    return next((path for path in reversed(branch_of(run)) if step_of(path) < step), None)
