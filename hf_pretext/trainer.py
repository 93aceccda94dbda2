"""The one loop: transformers' Trainer on our stream, with an objective's own terms in its logs.

Everything of `TrainingArguments` keeps working. What is added: the exact order of samples (see `data/stream.py`), each
loss term and log averaged over steps and ranks, loading that is strict, and no pickled arguments in what is shared.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import ProgressCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import get_last_checkpoint

from .data.processing import ImageProcessing
from .data.sources import Source
from .data.stream import StreamLoader
from .files import write_json
from .modeling import PretextModel

STREAM_STATE = "stream.json"


class PretextTrainer(Trainer):
    """Trains an objective on a source of rows.

    processing: row -> example in the workers, batch -> model inputs on the device; its processor is saved with every
    checkpoint. evaluation: `model -> {name: figure}`, run by the main process at each evaluation and shared with the
    others. The other arguments are Trainer's.
    """

    def __init__(
        self,
        model: PretextModel,
        args: TrainingArguments,
        train_dataset: Source,
        processing: ImageProcessing,
        evaluation: Callable[[PretextModel], dict[str, float]] | None = None,
        **kwargs,
    ):
        self.processing, self.evaluation = processing, evaluation
        self._start, self._mark = 0, None
        self.waited = 0.0  # seconds that steps have waited for data
        self._seconds_before, self._begun, self._bad_before = 0.0, None, []
        self._sums: dict[str, torch.Tensor] = {}
        self._batches = 0
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=train_dataset if evaluation is not None else None,  # Trainer wants to see one; unused
            processing_class=processing.processor,
            **kwargs,
        )
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(Progress)

    @property
    def samples_seen(self) -> int:
        """Training samples that all ranks together have learned from, over all resumed parts of the run."""
        steps = self.state.global_step - getattr(self, "_initial_global_step", 0)
        return self._start + steps * self.get_total_train_batch_size(self.args)

    @property
    def seconds(self) -> float:
        """Time in `train()`, over all resumed parts of the run."""
        return self._seconds_before + (0.0 if self._begun is None else time.perf_counter() - self._begun)

    def all_bad_samples(self) -> list[dict]:
        """What the ranks could not use and replaced: `{"key", "reason"}`, each once. To be called on every rank."""
        found = [self._loader.bad]
        if self.args.world_size > 1:
            found = [None] * self.args.world_size
            torch.distributed.all_gather_object(found, self._loader.bad)
        found.append(self._bad_before)
        return sorted({bad["key"]: bad for part in found for bad in part}.values(), key=lambda bad: bad["key"])

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As Trainer's, with `"last"` for the last checkpoint in the output folder."""
        if resume_from_checkpoint in ("last", True):
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
        if resume_from_checkpoint:
            self._start = self._resumed_samples(resume_from_checkpoint)
            self.args.ignore_data_skip = True  # the stream starts at the right sample by itself
        elif self.args.world_size > 1:
            from accelerate.utils import set_seed

            set_seed(self.args.seed, device_specific=True)  # or all ranks would draw the same corruption
        self._begun = time.perf_counter()
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        finally:
            self._seconds_before, self._begun = self.seconds, None

    def get_train_dataloader(self) -> StreamLoader:
        """This rank's part of the stream, from the samples seen on. Already sharded: not to be prepared again."""
        args = self.args
        workers = args.dataloader_num_workers
        self._loader = StreamLoader(
            self.train_dataset,
            self.processing,
            self._train_batch_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
            rank=args.process_index,
            ranks=args.world_size,
            accumulation=args.gradient_accumulation_steps,
            start=self._start,
            num_workers=workers,
            prefetch_factor=(args.dataloader_prefetch_factor or 2) if workers else None,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
        )
        return self._loader

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """As Trainer's, noting how long the step waits for its data."""
        start = time.perf_counter()
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.waited += time.perf_counter() - start
        return samples

    def _prepare_inputs(self, inputs: dict) -> dict:
        return self.processing.finish(super()._prepare_inputs(inputs))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The objective's loss; its terms and logs are summed on the device until the next log."""
        outputs = model(**inputs)
        if model.training:
            terms = outputs["losses"] if len(outputs["losses"]) > 1 else {}
            for name, value in {**{f"loss_{k}": v for k, v in terms.items()}, **outputs["logs"]}.items():
                self._sums[name] = self._sums.get(name, 0) + value.detach().float()
            self._batches += 1
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, with the objective's terms, the samples seen, the speed and the wait for data."""
        if "loss" in logs and self._batches:
            names = sorted(self._sums)
            means = torch.stack([self._sums[name] for name in names]) / self._batches if names else torch.zeros(0)
            means = self.accelerator.reduce(means.to(self.args.device), reduction="mean").tolist()
            logs = {"loss": logs.pop("loss"), **dict(zip(names, means, strict=True)), **logs, **self._pace()}
            self._sums, self._batches = {}, 0
        if self.is_in_train:
            self.state.epoch = self.samples_seen / len(self.train_dataset)  # of the data, not of Trainer's loop
        super().log(logs, start_time)

    def _pace(self) -> dict[str, float]:
        now, samples = time.perf_counter(), self.samples_seen
        pace = {"samples_seen": samples}
        if self._mark is not None and now > self._mark[0]:
            seconds = now - self._mark[0]
            pace["samples_per_second"] = round((samples - self._mark[1]) / seconds, 1)
            pace["data_wait"] = round((self.waited - self._mark[2]) / seconds, 4)  # a share of the time
        self._mark = (now, samples, self.waited)
        return pace

    def get_decay_parameter_names(self, model) -> list[str]:
        """Weight decay is for matrices and kernels; vectors and scalars (norms, biases, temperatures) get none."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Our evaluation of the encoder as it stands; every rank gets the main process's figures."""
        figures = [{}]
        if self.evaluation is not None and self.is_world_process_zero():
            figures = [self.evaluation(self.accelerator.unwrap_model(self.model))]
        if self.args.world_size > 1:
            torch.distributed.broadcast_object_list(figures, src=0)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures[0].items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: dict) -> int:
        """Not estimated: Trainer's guess goes by tokens, and walks over all modules at each step."""
        return 0

    def create_model_card(self, **kwargs) -> None:
        """Trainer's own card says "fine-tuned version of []"; ours is rendered from results (see `cards/`)."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # a pickle has no place in what is shared; results.json says the arguments
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        state = {
            "samples_seen": self.samples_seen,
            "rows": len(self.train_dataset),
            "seconds": self.seconds,
            "bad_samples": self.all_bad_samples(),
        }
        if self.args.should_save:
            write_json(folder / STREAM_STATE, state)
        super()._save_checkpoint(model, trial)

    def _resumed_samples(self, checkpoint: str) -> int:
        file = Path(checkpoint) / STREAM_STATE
        if not file.exists():
            raise ValueError(
                f"{checkpoint} has no {STREAM_STATE}: it is no whole checkpoint of a hf_pretext run. Give a "
                "checkpoint-* folder, or --resume_from_checkpoint last."
            )
        state = json.loads(file.read_text())
        if state["rows"] != len(self.train_dataset):
            raise ValueError(
                f"{checkpoint} was trained on a source of {state['rows']} rows, but this one has "
                f"{len(self.train_dataset)}: the order of samples would be another. Resume on the same data."
            )
        steps = TrainerState.load_from_json(os.path.join(checkpoint, "trainer_state.json")).global_step
        self._initial_global_step, self._seconds_before = steps, state["seconds"]
        self._bad_before = state["bad_samples"]
        return state["samples_seen"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Strict, and through transformers' renaming of weights, which Trainer's own loading leaves out."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        target = self.accelerator.unwrap_model(model or self.model)
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        target.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_best_model()
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class Progress(ProgressCallback):
    """Trainer's bar (steps, rate, time left) with a line a person can read at each log."""

    SHOWN_LAST = ("samples_per_second", "data_wait")
    LEFT_OUT = ("samples_seen", "learning_rate", "grad_norm", "epoch", "total_flos")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None or not logs or "train_runtime" in logs:
            return
        parts = [f"step {state.global_step}/{state.max_steps}", f"epoch {state.epoch or 0:.2f}"]
        parts += [f"{k} {v:.3f}" for k, v in logs.items() if k not in (*self.SHOWN_LAST, *self.LEFT_OUT)]
        if "samples_per_second" in logs:
            parts.append(f"{logs['samples_per_second']:.0f} samples/s, waiting for data {logs['data_wait']:.0%}")
        self.training_bar.write("  ".join(parts))


def last_checkpoint(output_dir: str) -> str:
    """The newest checkpoint in a folder. Raises `ValueError` where there is none."""
    found = get_last_checkpoint(output_dir) if os.path.isdir(output_dir) else None
    if found is None:
        raise ValueError(f"There is no checkpoint in {output_dir} to go on from. Leave out --resume_from_checkpoint.")
    return found
