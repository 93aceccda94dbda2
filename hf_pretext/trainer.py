"""`PretextTrainer`: transformers' Trainer on the package's data stream, with the objective's loss terms in its logs.

`utils/options.py` lists which `TrainingArguments` work, and which raise an error. It adds to Trainer: an exact order of
samples (see `stream/trainer.py`), loss terms and logs averaged over steps and ranks, strict loading, and checkpoints
without the pickled arguments.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ProgressCallback, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.utils import logging

from .callbacks import Hooks, Progress, Publisher
from .data.columns import TIMES
from .data.sources import Source
from .modalities import Inputs, Modality
from .modeling import PretextModel
from .modules.compiled import compile_encoders, encoders_only
from .stream.branch import LAST
from .stream.collapse import CollapseWatch
from .stream.learning import forget, learned
from .stream.mixture import Mixture
from .stream.settings import StreamSettings
from .stream.trainer import StreamTrainer
from .utils.libraries import check_libraries
from .utils.options import refuse_options
from .utils.ranks import leave_group, on_main_process

log = logging.get_logger(__name__)


class PretextTrainer(StreamTrainer):
    """Trains the model of an objective on a source of rows, or on a mixture of sources.

    processing: turns a row into an example in the workers, and a batch into model inputs on the device. Its processor
    is saved with every checkpoint. evaluation: `model -> {name: metric}`; the main process runs it at each evaluation
    and sends the metrics to the other ranks. stream: settings of the data stream. The other arguments are Trainer's.
    """

    def __init__(
        self,
        model: PretextModel,
        args: TrainingArguments,
        train_dataset: Source | Mixture,
        processing: Inputs | Modality,
        evaluation: Callable[[PretextModel], dict[str, float]] | None = None,
        stream: StreamSettings | None = None,
        **kwargs,
    ):
        """Raises `ValueError` for refused options, values that the objective fixes, missing libraries, and epochs of
        data of unknown length."""
        refuse_options(args)
        check_libraries(args)
        processing = Inputs(processing) if isinstance(processing, Modality) else processing
        if model.fixed_options:
            check_fixed(type(model), processing.facts().get("augmentation") or {})
        if model.processor_of is not None:
            processing.keep_processor_of(model.processor_of)
        self.evaluation = evaluation
        self.publisher = Publisher(model.objective, stopped=lambda: self.interruption.stopped)
        self._terms = RunningMeans()
        self.collapse = CollapseWatch(stream is not None and stream.stop_on_collapse)
        kwargs["eval_dataset"] = train_dataset if evaluation is not None else None  # Trainer requires one
        super().__init__(model, args, train_dataset, processing, stream, **kwargs)
        check_times(model, self.mixture)
        compile_encoders(model, self.accelerator.state.dynamo_plugin)
        self.add_callback(self.publisher)
        self.add_callback(self.collapse)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(Progress)
        self.add_callback(Hooks(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains like `Trainer.train`.

        resume_from_checkpoint: a checkpoint folder; `"last"` or True for the newest intact one in the output folder.
        Raises `ValueError`, before any file is changed, for a damaged checkpoint, and if the data or the order of its
        samples has changed."""
        with encoders_only(self.accelerator.state.dynamo_plugin):
            return super().train(LAST if resume_from_checkpoint is True else resume_from_checkpoint or None, **kwargs)

    def end(self) -> None:
        """Ends like `Trainer.end`, and lets the process exit without an abort. The last call of a script."""
        leave_group()
        super().end()

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
            self._loader.use(self.processing.only(kinds))

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

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Returns the loss of the objective. Its terms and logs are summed on the device until the next log."""
        outputs = model(**inputs)
        if model.training:
            self.collapse.look(outputs)
            several = len(outputs["losses"]) > 1 or self.mixture.one_source_a_step  # a single term equals the loss
            terms = outputs["losses"] if several else {}
            self._terms.add({**{f"loss_{name}": value for name, value in terms.items()}, **outputs["logs"]})
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs like `Trainer.log`, and adds the loss terms, the samples seen, the speed and the wait for data."""
        if "loss" in logs and self.is_in_train:
            self.share_bad_samples()
            means = self._terms.pop()
            values = torch.stack(list(means.values())) if means else torch.zeros(0)
            values = self.accelerator.reduce(values.to(self.args.device), reduction="mean").tolist()
            pace = self.pace.measure(self.samples_seen, self.mixture, self._loader.reader)
            logs = {"loss": logs.pop("loss"), **dict(zip(means, values, strict=True)), **logs, **pace}
        if self.is_in_train and not self.mixture.endless:
            self.state.epoch = self.samples_seen / len(self.mixture)  # Trainer counts epochs of its loop
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model) -> list[str]:
        """Returns the parameters with weight decay: all but vectors and scalars (norms, biases, temperatures)."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Runs `evaluation` on the current model on the main process. Returns its metrics on every rank."""
        measured = {}
        if self.evaluation is not None:
            measured = on_main_process(lambda: self.evaluation(self.accelerator.unwrap_model(self.model)))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: dict) -> int:
        """Returns 0: Trainer's estimate counts only tokens, and iterates over all modules at each step."""
        return 0

    def create_model_card(self, **kwargs) -> None:
        """Does nothing: Trainer's card describes a fine-tuned model. `cards/` writes the card from the results."""

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Creates the Hub repository like Trainer. Raises `ValueError` with the fix if the Hub refuses."""
        if self.is_world_process_zero():
            self.hub_model_id = self.publisher.create_repository(self.args, token, private)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Does nothing: `Publisher` pushes the checkpoint after it is renamed to its final name."""

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ):
        """Pushes the model like `Trainer.push_to_hub`, with the files that `cards/staging.py` allows and our card.

        A failed push logs a warning. Returns a future if `blocking` is False. For a run with results, use
        `hf_pretext.cards.push`."""
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.publisher.wait()
        options = {"token": token or self.args.hub_token, "revision": revision or self.args.hub_revision}
        when = f"step {self.state.global_step:,}"
        job = self.publisher.push(self.args.output_dir, commit_message, when, **options)
        return job.result() if blocking else job

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # no pickle in a shared checkpoint; results.json contains the arguments
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Loads strictly, with `from_pretrained` of the native class, which Trainer does not use."""
        target = self.accelerator.unwrap_model(model or self.model)
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        check_same_task(saved, target, resume_from_checkpoint)
        target.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        if not self.interruption.stopped:
            self._load_from_checkpoint(self.state.best_model_checkpoint)


class RunningMeans:
    """Running means of named values, kept on the device. A batch may lack some names."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds the values of a batch: `()` each."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().float()
            self._counts[name] += 1

    def pop(self) -> dict[str, Tensor]:
        """Returns the means since the last call, sorted by name, and resets them."""
        means = {name: self._sums[name] / self._counts[name] for name in sorted(self._sums)}
        self._sums, self._counts = {}, Counter()
        return means


def check_fixed(objective: type[PretextModel], values: Mapping[str, Any]) -> None:
    """Raises `ValueError` for another value of an option that the objective fixes (see `fixed_options`)."""
    for name, (value, reason) in objective.fixed_options.items():
        if values.get(name, value) != value:
            raise ValueError(f"--{name} {values[name]}: {reason}, so {objective.objective} needs --{name} {value}.")


def check_times(model: PretextModel, data: Mixture) -> None:
    """Raises `ValueError` for texts with times if the objective learned from one clip of each row before the steps,
    which decode only texts: it is unknown which text is of the clip."""
    kinds = set(model.step_inputs())
    for source in data.sources if "text" in kinds and kinds < set(model.inputs) else ():
        if {"subtitles", *TIMES} & source.columns.keys() and {"video", "audio"} & source.columns.keys():
            raise ValueError(
                f"{source.name} has texts with times, of which the one of a clip is used, but {model.objective} keeps "
                "what it saw of one clip of each row, and steps do not decode clips. Give --cache_words False."
            )


def check_same_task(saved: PretextModel, target: PretextModel, where: str) -> None:
    """Raises `ValueError` if a checkpoint was trained with other settings of its objective.

    Otherwise the card of the resumed run would show only the last settings. where: the checkpoint, for errors."""
    before, now = saved.pretext, target.pretext
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{where} was trained with {name}={before.get(name)}, not {now.get(name)}. Resume with the "
                "same value, or start in another --output_dir."
            )
