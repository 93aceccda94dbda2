"""transformers' Trainer on the stream of this package. A resumed run continues with the next sample.

sources of rows -> StreamLoader -> steps -> checkpoint-N/stream.json -> the same steps again
"""

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from ..data.sources import Source
from ..modeling import PretextModel
from ..utils.ranks import gather_objects, on_each_process, on_main_process
from .branch import STAGING, BestInFolder, begin_from, checkpoint_to_resume, place_after
from .collapse import CollapseWatch
from .length import Lengthening, length_left, length_of
from .little_data import LittleData
from .loader import StreamLoader
from .mixture import Mixture
from .pace import Pace
from .reader import parts_notes, reading_notes
from .sample_log import DIGEST_RANGE, forget_after, sizes_of_records
from .saving import SavingTrainer
from .schedule import Schedule, schedule_after
from .settings import StreamSettings
from .sole_run import sole_run
from .state import check_length, load_state, state_of
from .workers import explained_workers

log = logging.get_logger(__name__)


class StreamTrainer(SavingTrainer):
    """Trains on a source of rows, or on a mixture of sources, in a reproducible order.

    processing_class: row -> example in the workers, batch -> model inputs on the device (see `modalities.Inputs`). It
    becomes the attribute `inputs`, and its transformers processor, which is saved with every checkpoint, the attribute
    `processing_class` of Trainer. stream: settings of reading and shuffling. Other arguments: see Trainer.
    """

    def __init__(
        self,
        model: PretextModel,
        args: TrainingArguments,
        train_dataset: Source | Mixture,
        processing_class: Any,
        stream: StreamSettings | None = None,
        **kwargs,
    ):
        """Raises `ValueError` if the length of the data is unknown and `args.max_steps` is not set, or the model needs
        the numbers of the rows."""
        self.inputs, self.stream = processing_class, stream or StreamSettings()
        self.mixture = Mixture(train_dataset) if isinstance(train_dataset, Source) else train_dataset
        check_length(self.mixture, args.max_steps, model.objective if model.needs_keys else None)
        if model.needs_keys:
            check_unchanged(model.objective, self.stream)
            model.set_rows(len(self.mixture))
        self.pace = Pace()
        self.resumed: list[dict[str, int]] = []  # samples seen and number of processes at each resume
        self._state_before: dict | None = None  # state of the stream in the checkpoint that the run resumes from
        self.round: int | None = None  # number of the last round of the objective
        self.schedule: Schedule | None = None  # of a run that resumes with another global batch size
        self._loader: StreamLoader | None = None
        self.lengthening, self.collapse = Lengthening(), CollapseWatch(self.stream.stop_on_collapse)
        super().__init__(model, args, train_dataset=self.mixture, processing_class=self.inputs.processor, **kwargs)
        self._little_data = LittleData(self.mixture, self.is_world_process_zero())
        for callback in (self.pace, self.interruption, self._little_data, self.lengthening, BestInFolder()):
            self.add_callback(callback)
        self.add_callback(self.collapse)

    @property
    def data_seed(self) -> int:
        """Seed of the order of the samples and of their augmentation."""
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    @property
    def _start(self) -> int:
        """Samples seen before this part of the run, 0 for a run that does not resume."""
        return self._state_before["samples_seen"] if self._state_before else 0

    @property
    def samples_seen(self) -> int:
        """Samples that all ranks together have trained on, over all resumed parts of the run."""
        steps = self.state.global_step - getattr(self, "_initial_global_step", 0)
        return self._start + steps * self.get_total_train_batch_size(self.args)

    @property
    def seconds(self) -> float:
        """Seconds spent in `train()`, over all resumed parts of the run."""
        return self.pace.seconds

    def account(self) -> dict:
        """Returns a summary of the samples that all ranks have consumed, over all resumed parts of the run:
        `{"digest", "bad_samples": {reason: count}}`. Runs with the same digest saw the same samples. Call it on every
        rank."""
        parts = gather_objects((self._loader.sample_log.digest, self._loader.sample_log.reasons))
        if self._state_before:
            parts.append((int(self._state_before["digest"], 16), Counter(self._state_before["bad_samples"])))
        digest = sum(digest for digest, _ in parts) % DIGEST_RANGE
        return {"digest": f"{digest:016x}", "bad_samples": dict(sum((reasons for _, reasons in parts), Counter()))}

    def share_bad_samples(self) -> None:
        """All-gathers new bad samples so that every rank counts the same ones. Call it on every rank after the same
        step. It is called at each log and each checkpoint, since a call in each step would cost time.

        Raises `TooManyBadSamples`, on all ranks or none."""
        self._loader.sample_log.merge(gather_objects(self._loader.sample_log.pop_pending()))

    def train(self, resume_from_checkpoint: str | None = None, **kwargs):
        """Trains, like `Trainer.train`. resume_from_checkpoint: a folder, or "last" (see `checkpoint_to_resume`).
        SIGINT, SIGTERM or SIGUSR1 save a checkpoint and exit (`Interruption`).

        Raises `ValueError` for a damaged checkpoint, other data or another order of samples, and while another run
        writes to the output folder, before any file is changed."""
        with sole_run(self.args.output_dir):  # first: another run may be writing the checkpoint to resume from
            return self._train_alone(resume_from_checkpoint, **kwargs)

    def _train_alone(self, resume_from_checkpoint: str | None, **kwargs):
        if resume_from_checkpoint:
            resume_from_checkpoint = self._resume(resume_from_checkpoint)
        else:
            self.stream = with_parts(self.stream, self.args.world_size, self.is_world_process_zero())
        steps, before = (self._initial_global_step, self._state_before) if resume_from_checkpoint else (0, {})
        with self.interruption.watching(), self.pace.running(before.get("seconds")), explained_workers():
            if self.args.should_save:  # also without a checkpoint: a killed run may have left them
                forget_after(self.args.output_dir, steps, before.get("records"))
                shutil.rmtree(os.path.join(self.args.output_dir, STAGING), ignore_errors=True)
                begin_from(self.args.output_dir, resume_from_checkpoint)
                self.mixture.contents()  # hashed before the first step, since files may change later
            self._parent = resume_from_checkpoint and place_after(self.args.output_dir, resume_from_checkpoint)
            if self._parent:
                self.accelerator.wait_for_everyone()  # it may have been moved
                resume_from_checkpoint = str(self._parent)
            if self.args.world_size > 1 or resume_from_checkpoint:
                # ranks must draw different corruptions; a checkpoint has no generator state for additional ranks
                set_seed(self.args.seed + self._start, device_specific=True)
            if not resume_from_checkpoint:
                self._prepare()
            try:
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
            finally:
                if self._loader is not None:
                    self._loader.close()

    def _resume(self, asked: str) -> str:
        """Loads the state of the stream. asked: see `checkpoint_to_resume`. Returns the path of the checkpoint."""
        checkpoint, warning = on_main_process(lambda: checkpoint_to_resume(self.args.output_dir, asked))
        batch = self.get_total_train_batch_size(self.args)
        together = batch if self.mixture.one_source_a_step else 1
        self._state_before = on_each_process(  # each process may have its own copy of the data
            lambda: load_state(checkpoint, self.mixture, self.stream, self.data_seed, together)
        )
        self.stream = dataclasses.replace(self.stream, parts=self._state_before["parts"])
        rows = None if self.mixture.endless else len(self.mixture)
        before = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
        self.lengthening.resume(checkpoint, self.args, self._state_before, before, batch, rows)
        self._initial_global_step = before.global_step
        self.round = self._state_before.get("round")
        if "collapse" in self._state_before:
            self.collapse.resume(self._state_before["collapse"], self.args.device)
        resume = {"samples_seen": self._start, "processes": self.args.world_size}
        self.resumed = [*self._state_before.get("resumed", []), resume]
        given = None if self._created_lr_scheduler else self.lr_scheduler
        self.schedule = schedule_after(self._state_before, before, self.args, batch, self.mixture, given)
        self.args.ignore_data_skip = True  # the stream starts at the right sample
        if warning and self.is_world_process_zero():
            log.warning(warning)
        return checkpoint

    def _prepare(self) -> None:
        """Hook before the first step of a run that does not resume."""

    def get_train_dataloader(self) -> StreamLoader:
        """Returns the loader of this rank, which starts after the samples seen. It is already sharded, so accelerate
        does not prepare it."""
        self._loader = loader_of(self)
        return self._loader

    def set_initial_training_values(self, args: TrainingArguments, dataloader: StreamLoader) -> tuple:
        """Computes the lengths of training, like Trainer. A run that has done all steps does no more (`length_left`);
        one with another global batch size still ends after the same number of samples (`Schedule.lengths`)."""
        values = super().set_initial_training_values(args, dataloader)
        if self._state_before:
            values = length_left(values, self._initial_global_step)
        return self.schedule.lengths(values, args, self.mixture) if self.schedule else values

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Creates the scheduler, like Trainer. After a change of the global batch size, it follows the samples seen."""
        if self.schedule is None:
            return super().create_scheduler(num_training_steps, optimizer)
        return self.schedule.follow(super().create_scheduler(self.schedule.steps, optimizer))

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """Gets the batches of a step, like Trainer. Also measures the wait for data, and records the step's samples."""
        with self.pace.waiting():
            samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._little_data.look(samples[0])
        if samples[0]:
            self._loader.sample_log.step(self.state.global_step + 1)
        return samples

    def _prepare_inputs(self, inputs: dict, by: Any = None) -> dict:
        return (by or self.inputs).finish(super()._prepare_inputs(inputs))

    def _state_of_stream(self) -> dict:
        """Returns the state of the stream that resuming needs. Call it on every rank."""
        self.share_bad_samples()
        return {
            **state_of(self.mixture, self._loader.reader.order, self.stream),
            "samples_seen": self.samples_seen,
            "global_batch": self.get_total_train_batch_size(self.args),
            "round": self.round,
            "schedule": self.schedule and self.schedule.record(),
            "seconds": self.seconds,
            "resumed": self.resumed,
            "length": length_of(self.args),
            "lengthened": self.lengthening.history,
            "watched": self._loader.sample_log.watched(),
            "collapse": self.collapse.state(self.args.device),
            "records": sizes_of_records(self.args.output_dir),
            **self.account(),
        }


def check_unchanged(objective: str, settings: StreamSettings) -> None:
    """Raises `ValueError` if `--allow_changed_source` is set: values of rows would belong to other rows."""
    if settings.allow_changed_source:
        raise ValueError(
            f"--allow_changed_source: {objective} keeps a value for each row of the data, which would then belong to "
            "another row. Leave it out, or start a new run from the encoder of this one."
        )


def with_parts(settings: StreamSettings, ranks: int, main_process: bool) -> StreamSettings:
    """Returns the settings with the number of parts of a new run. The main process logs how it was chosen."""
    for note in parts_notes(settings, ranks) if main_process else ():
        log.warning(note)
    return settings.on(ranks)


def loader_of(trainer: StreamTrainer) -> StreamLoader:
    """Returns the loader of a trainer's rank, which starts after the samples seen. Warns about rows that are read more
    than once."""
    sources = trainer.mixture.sources
    sizes = on_main_process(lambda: [source.row_bytes() for source in sources])  # one process reads rows for them
    for source, size in zip(sources, sizes, strict=True):
        source.row_bytes(size)
    args, workers, before = trainer.args, trainer.args.dataloader_num_workers, trainer._state_before
    loader = StreamLoader(
        trainer.mixture,
        trainer.inputs,
        trainer._train_batch_size,
        seed=trainer.data_seed,
        settings=trainer.stream,
        windows=before["windows"] if before else None,
        watched=before.get("watched") if before else None,
        folder=args.output_dir,
        rank=args.process_index,
        ranks=args.world_size,
        accumulation=args.gradient_accumulation_steps,
        start=trainer._start,
        keys=0 if trainer.model.needs_keys else None,
        num_workers=workers,
        prefetch_factor=(args.dataloader_prefetch_factor or 2) if workers else None,
        pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
    )
    if trainer.is_world_process_zero():
        for note in reading_notes(sources, loader.reader.order, args.world_size):
            log.warning(note)
    return loader
