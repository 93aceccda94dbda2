"""transformers' Trainer on our stream: which samples each step sees, and a run that resumes with the very next one.

sources of rows -> StreamLoader -> steps -> checkpoint-N/stream.json -> the same steps again
"""

import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from transformers.utils import logging

from ..data.sources import Source
from ..modeling import PretextModel
from ..modules.distributed import gather_objects
from ..utils.files import write_json
from .loader import StreamLoader
from .mixture import Mixture
from .pace import Pace
from .reader import reading_notes
from .sample_log import DIGEST_RANGE, forget_after, sizes_of_records
from .settings import StreamSettings
from .state import STREAM_STATE, check_length, load_state, state_of

STAGING = ".saving"  # where a checkpoint is written before it takes its name
log = logging.get_logger(__name__)


class StreamTrainer(Trainer):
    """Trains on a source of rows, or on a mixture of sources, in their exact order.

    processing: row -> example in the workers, batch -> model inputs on the device; its processor is saved with every
    checkpoint. stream: how the data is read. The other arguments are Trainer's.
    """

    def __init__(
        self,
        model: PretextModel,
        args: TrainingArguments,
        train_dataset: Source | Mixture,
        processing: Any,
        stream: StreamSettings | None = None,
        **kwargs,
    ):
        """Raises `ValueError` for data without a known length where `args` count in epochs."""
        self.processing, self.stream = processing, stream or StreamSettings()
        self.mixture = Mixture(train_dataset) if isinstance(train_dataset, Source) else train_dataset
        check_length(self.mixture, args.max_steps)
        self.pace = Pace()
        self.resumed: list[dict[str, int]] = []  # where the run was resumed, by how many processes
        self._state_before: dict | None = None  # the stream's, in the checkpoint that the run resumes from
        self._loader: StreamLoader | None = None
        self._saving = False
        super().__init__(model, args, train_dataset=self.mixture, processing_class=processing.processor, **kwargs)
        self.add_callback(self.pace)

    @property
    def data_seed(self) -> int:
        """What the order of samples and their augmentation are drawn from."""
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    @property
    def _start(self) -> int:
        """Samples seen when this part of the run began."""
        return self._state_before["samples_seen"] if self._state_before else 0

    @property
    def samples_seen(self) -> int:
        """Training samples that all ranks together have learned from, over all resumed parts of the run."""
        steps = self.state.global_step - getattr(self, "_initial_global_step", 0)
        return self._start + steps * self.get_total_train_batch_size(self.args)

    @property
    def seconds(self) -> float:
        """Seconds in `train()`, over all resumed parts of the run."""
        return self.pace.seconds

    def account(self) -> dict:
        """Returns what all ranks have consumed, over all resumed parts: `{"digest", "bad_samples": {reason: times}}`.
        Two runs with the same digest saw the same samples. To be called on every rank."""
        parts = gather_objects((self._loader.sample_log.digest, self._loader.sample_log.reasons))
        if self._state_before:
            parts.append((int(self._state_before["digest"], 16), Counter(self._state_before["bad_samples"])))
        digest = sum(digest for digest, _ in parts) % DIGEST_RANGE
        return {"digest": f"{digest:016x}", "bad_samples": dict(sum((reasons for _, reasons in parts), Counter()))}

    def share_bad_samples(self) -> None:
        """Has all ranks count the bad samples of all. To be called on every rank after the same step: each log and
        each checkpoint is often enough, and costs no step anything.

        Raises `TooManyBadSamples`, on all ranks or none."""
        self._loader.sample_log.merge(gather_objects(self._loader.sample_log.pop_pending()))

    def train(self, resume_from_checkpoint: str | None = None, **kwargs):
        """As Trainer's. Raises `ValueError` for a checkpoint of other data or of another order, before any file is
        changed."""
        steps = self._resume(resume_from_checkpoint) if resume_from_checkpoint else 0
        records = self._state_before.get("records") if self._state_before else None
        if self.args.should_save:  # also of a run that was killed before its first checkpoint
            forget_after(self.args.output_dir, steps, records)
        if self.args.world_size > 1 or resume_from_checkpoint:
            # or all ranks would draw the same corruption; a checkpoint has no generator state for a rank it never had
            set_seed(self.args.seed + self._start, device_specific=True)
        with self.pace.running(self._state_before["seconds"] if resume_from_checkpoint else None):
            if not resume_from_checkpoint:
                self._prepare()
            try:
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
            finally:
                if self._loader is not None:
                    self._loader.close()

    def _resume(self, checkpoint: str) -> int:
        """Reads the stream's state, and returns the steps before the checkpoint."""
        together = self.get_total_train_batch_size(self.args) if self.mixture.one_source_a_step else 1
        self._state_before = load_state(checkpoint, self.mixture, self.stream, self.data_seed, together)
        resume = {"samples_seen": self._start, "processes": self.args.world_size}
        self.resumed = [*self._state_before.get("resumed", []), resume]
        steps = TrainerState.load_from_json(os.path.join(checkpoint, "trainer_state.json")).global_step
        self._initial_global_step = steps
        self.args.ignore_data_skip = True  # the stream starts at the right sample
        return steps

    def _prepare(self) -> None:
        """Called before the first step of a run that does not resume."""

    def get_train_dataloader(self) -> StreamLoader:
        """This rank's part of the stream, from the samples seen on. Already sharded: not to be prepared."""
        args, workers = self.args, self.args.dataloader_num_workers
        self._loader = StreamLoader(
            self.mixture,
            self.processing,
            self._train_batch_size,
            seed=self.data_seed,
            settings=self.stream,
            windows=self._state_before["windows"] if self._state_before else None,
            watched=self._state_before.get("watched") if self._state_before else None,
            folder=args.output_dir,
            rank=args.process_index,
            ranks=args.world_size,
            accumulation=args.gradient_accumulation_steps,
            start=self._start,
            num_workers=workers,
            prefetch_factor=(args.dataloader_prefetch_factor or 2) if workers else None,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
        )
        if self.is_world_process_zero():
            for note in reading_notes(self.mixture.sources, self._loader.reader.order, args.world_size):
                log.warning(note)
        return self._loader

    def set_initial_training_values(self, args: TrainingArguments, dataloader: StreamLoader) -> tuple:
        """As Trainer's; a run that resumes with another global batch ends after as many samples as without."""
        *values, max_steps = super().set_initial_training_values(args, dataloader)
        batch = self.get_total_train_batch_size(args)
        if self._state_before and args.max_steps < 0 and self._state_before["global_batch"] != batch:
            left = args.num_train_epochs * len(self.mixture) - self._start
            max_steps = self._initial_global_step + max(math.ceil(left / batch), 0)
            steps_per_epoch = values[1]
            values[0] = self._initial_global_step // steps_per_epoch + math.ceil(left / batch / steps_per_epoch) + 1
        return (*values, max_steps)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """As Trainer's, noting how long the step waits for its data, and what it consumes."""
        with self.pace.waiting():
            samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        if samples[0]:
            self._loader.sample_log.step(self.state.global_step + 1)
        return samples

    def _prepare_inputs(self, inputs: dict) -> dict:
        return self.processing.finish(super()._prepare_inputs(inputs))

    def _save_checkpoint(self, model, trial) -> None:
        """As Trainer's, in a folder that takes its name when all ranks have written into it: whenever a run is killed,
        each checkpoint of its folder is complete."""
        run, limit = Path(self._get_output_dir(trial)), self.args.save_total_limit
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        written, final = run / STAGING / name, run / name
        if self.args.should_save:
            shutil.rmtree(run / STAGING, ignore_errors=True)  # of a run that was killed
        self.accelerator.wait_for_everyone()
        self._saving, self.args.save_total_limit = True, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving, self.args.save_total_limit = False, limit
        if self.state.best_model_checkpoint == str(written):
            self.state.best_model_checkpoint = str(final)
            if self.args.should_save:
                self.state.save_to_json(str(written / "trainer_state.json"))
        state = self._state_of_stream()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_json(written / STREAM_STATE, state)
            if final.exists():  # of an earlier attempt, from which the run went back
                final.rename(run / STAGING / "replaced")
            written.rename(final)
            shutil.rmtree(run / STAGING)
            best = self.state.best_model_checkpoint
            rotate_checkpoints(output_dir=str(run), save_total_limit=limit, best_model_checkpoint=best, use_mtime=True)

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGING) if self._saving else folder

    def _state_of_stream(self) -> dict:
        """All that resuming needs to know of the data. To be called on every rank."""
        self.share_bad_samples()
        return {
            **state_of(self.mixture, self._loader.reader.order, self.stream),
            "samples_seen": self.samples_seen,
            "global_batch": self.get_total_train_batch_size(self.args),
            "seconds": self.seconds,
            "resumed": self.resumed,
            "watched": self._loader.sample_log.watched(),
            "records": sizes_of_records(self.args.output_dir),
            **self.account(),
        }
