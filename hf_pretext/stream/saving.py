"""Checkpoints that are complete whenever a run is killed, and that name the one before.

step -> .saving/checkpoint-N: files, manifest, flushed -> checkpoint-N, listed in checkpoints.json
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..utils.files import write_json
from .branch import STAGING, finish_checkpoint, last_checkpoint, name_best, rotate
from .divergence import FiniteTrainer
from .interruption import Interruption
from .state import STREAM_STATE

TORCH_WRITER = "PytorchStreamWriter"  # in the message of torch.save for a file that can't be written


class SavingTrainer(FiniteTrainer):
    """Trainer whose checkpoints get their name when all ranks have written them. A signal saves one, too.

    `_state_of_stream` is the part of a subclass: what the checkpoint says of the stream."""

    def __init__(self, model, args: TrainingArguments, **kwargs):
        self.interruption = Interruption()
        self._saving = False
        self._parent: Path | None = None  # the checkpoint before the next one
        super().__init__(model, args, **kwargs)

    def _state_of_stream(self) -> dict:
        """Returns the state of the stream that resuming needs. It is called on every rank."""
        raise NotImplementedError(f"{type(self).__name__} has no _state_of_stream(). Return the state of its data.")

    def _save_checkpoint(self, model, trial) -> None:
        """Saves a checkpoint, like Trainer, but in a temporary folder that is renamed when all ranks have written. So
        all checkpoint folders are complete, whenever a run is killed."""
        run, limit = Path(self._get_output_dir(trial)), self.args.save_total_limit
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        written = run / STAGING / name
        if self.args.should_save:
            shutil.rmtree(run / STAGING, ignore_errors=True)  # left by a killed run
        self.accelerator.wait_for_everyone()
        self._saving, self.args.save_total_limit = True, None
        try:
            with explained_write(run, f"The checkpoint of step {self.state.global_step}"):
                super()._save_checkpoint(model, trial)
        finally:
            self._saving, self.args.save_total_limit = False, limit
        name_best(self.state, run, name)
        state = self._state_of_stream()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            facts = {"step": self.state.global_step, "global_batch": state["global_batch"]}
            with explained_write(run, f"The checkpoint of step {self.state.global_step}"):
                self.state.save_to_json(str(written / TRAINER_STATE_NAME))
                write_json(written / STREAM_STATE, {**state, "contents": self.train_dataset.contents()})
                finish_checkpoint(written, run, self._parent, **facts, resumable=not self.args.save_only_model)
            rotate(run, limit, self.state.best_model_checkpoint)
        self._parent = run / name

    def _finalize_training(self, trial, *args, **kwargs):
        """Ends training, like Trainer, but keeps the last checkpoint next to the best one: the run may be lengthened.
        After a signal in the last step, saves a checkpoint."""
        if self.interruption.after_last_step(self.state.global_step):
            self._save_checkpoint(self.model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(trial, *args, **kwargs)
        finally:
            self.args.save_total_limit = limit

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGING) if self._saving else folder


@contextmanager
def explained_write(run: Path, what: str) -> Iterator[None]:
    """Turns an error of writing, for example of a full disk, into a `ValueError` of one line, and removes what was
    written of a checkpoint. what: is written to the folder of the run."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and TORCH_WRITER not in str(error):
            raise
        shutil.rmtree(run / STAGING, ignore_errors=True)
        last = last_checkpoint(run)
        kept = f"The last good checkpoint is {last}: resume with" if last else "There is no checkpoint yet: start again"
        reason, free = " ".join(str(error).split())[:200], shutil.disk_usage(run).free / 2**20
        raise ValueError(
            f"{what} can't be written to {run} (free disk space: {free:,.0f} MB): {reason}. Make room. {kept}"
            + (" --resume_from_checkpoint last." if last else ".")
        ) from error
