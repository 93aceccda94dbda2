"""`PretextTrainer`: transformers' Trainer on the package's data stream, with the objective's loss terms in its logs.

`utils/options.py` lists which `TrainingArguments` work, and which raise an error. It adds to Trainer: an exact order of
samples (see `stream/trainer.py`), loss terms and logs averaged over steps and ranks, strict loading, and checkpoints
without the pickled arguments.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import ProgressCallback, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.utils import logging

from .callbacks import Hooks, Progress, Publisher
from .data.columns import TIMES
from .data.sources import Source
from .evaluation.pretext_set import PretextSet, held_out_set, measured
from .modalities._for_model import for_training
from .modeling import PretextModel
from .modules.compiled import compile_encoders, encoders_only
from .stream.branch import LAST
from .stream.learning import LearningTrainer
from .stream.mixture import Mixture
from .stream.settings import StreamSettings
from .utils.libraries import check_libraries
from .utils.options import refuse_arguments, refuse_options
from .utils.ranks import leave_group, on_main_process

log = logging.get_logger(__name__)
DEFAULT_FOLDER = "tmp_trainer"  # without args, as of Trainer
Rows = datasets.Dataset | datasets.IterableDataset | datasets.DatasetDict | datasets.IterableDatasetDict
Data = Rows | Iterable[Any] | str | PathLike | Source | Mixture | None


class PretextTrainer(LearningTrainer):
    """Trains the model of an objective.

    train_dataset: a `datasets` object (of a `DatasetDict`, the train split), a list of dicts, of Pillow images or of
        texts, a folder, files, a Hub id or the name of a bundled data set; or an open `Source` or `Mixture`.
    processing_class: a transformers image processor, tokenizer, feature extractor or processor, with which `Inputs` are
        made, see `inputs_for`; or `Inputs` or a `Modality`, for other settings, e.g. of augmentation. None: for images,
        the processor of the encoder, or a default one of its size. It is saved with every checkpoint.
    eval_dataset: data without labels, as `train_dataset`, on which `evaluate` measures the pretext task: `eval_loss`,
        and the logs of the objective, e.g. `eval_accuracy`. Of data with splits: "validation", else "test". A mapping
        of several: `eval_<name>_loss`.
    evaluation: `model -> {name: metric}`, further metrics. The main process measures both; all ranks get the metrics.
    columns: `{"image": name in the data}`, for columns that are not detected. stream: settings of the data stream.
    The other arguments are Trainer's.

    Example:
        >>> model = RotationForPreTraining.from_encoder(ViTConfig(image_size=64, patch_size=8))
        >>> trainer = PretextTrainer(model, TrainingArguments("run", max_steps=4), train_dataset="emoji")
    """

    def __init__(
        self,
        model: PretextModel,
        args: TrainingArguments | None = None,
        train_dataset: Data = None,
        processing_class: Any = None,
        *,
        eval_dataset: Data | Mapping[str, Data] = None,
        evaluation: Callable[[PretextModel], dict[str, float]] | None = None,
        columns: Mapping[str, str] | None = None,
        stream: StreamSettings | None = None,
        **kwargs,
    ):
        """Raises `ValueError` for refused options and arguments, values that the objective fixes, missing libraries,
        data or a processor that does not fit the model, and epochs of data of unknown length."""
        args, stream = args or TrainingArguments(DEFAULT_FOLDER), stream or StreamSettings()
        refuse_options(args)
        refuse_arguments(kwargs)
        check_libraries(args)
        check_model(model)
        self._rows_a_batch, self._columns = args.per_device_train_batch_size, columns
        ready = for_training(model, train_dataset, processing_class, columns, stream, self._rows_a_batch)
        args = with_batch_size(args, ready.batch_size)
        if model.fixed_options:
            check_fixed(type(model), ready.inputs.facts().get("augmentation") or {})
        if model.processor_of is not None:
            ready.inputs.keep_processor_of(model.processor_of)
        self.evaluation = evaluation
        self.publisher = Publisher(model.objective, stopped=lambda: self.interruption.stopped)
        self._terms = RunningMeans()
        if eval_dataset is None and evaluation is not None:
            eval_dataset, self._held_out = ready.data, {}  # Trainer requires one
        super().__init__(model, args, ready.data, ready.inputs, stream, eval_dataset=eval_dataset, **kwargs)
        if not hasattr(self, "_held_out"):
            self._held_out = self._sets(eval_dataset)
        check_times(model, self.mixture)
        compile_encoders(model, self.accelerator.state.dynamo_plugin)
        self.add_callback(self.publisher)
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

    def _sets(self, dataset: Data | Mapping[str, Data]) -> dict[str, PretextSet]:
        """Opens datasets to evaluate on, by name; the name of a single one is empty."""
        model, stream = self.accelerator.unwrap_model(self.model), self.stream
        if dataset is None:
            return {}
        return {
            name: held_out_set(model, self.inputs, one, self._columns, stream, self._rows_a_batch, self.args)
            for name, one in (dataset.items() if isinstance(dataset, Mapping) else [("", dataset)])
        }

    def evaluate(
        self, eval_dataset: Data | Mapping[str, Data] = None, ignore_keys=None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measures the pretext task on `eval_dataset`, in eval mode, with the same corruption at each call, and runs
        `evaluation`, on the main process. Returns the metrics on every rank.

        eval_dataset: replaces that of the trainer; `evaluation` does not run then."""
        sets = self._held_out if eval_dataset is None else self._sets(eval_dataset)
        model, device = self.accelerator.unwrap_model(self.model), self.args.device
        evaluation = self.evaluation if eval_dataset is None else None
        values = on_main_process(lambda: measured(model, sets, device, evaluation))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
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


def check_model(model: Any) -> None:
    """Raises `ValueError` for a model without a pretext task."""
    if not isinstance(model, PretextModel):
        raise ValueError(
            f"model is a {type(model).__name__}, which has no pretext task. Give one an encoder: "
            "RotationForPreTraining.from_encoder(model)."
        )


def with_batch_size(args: TrainingArguments, batch_size: int) -> TrainingArguments:
    """Returns the arguments with another batch size of one process; the same object if it has this size."""
    if args.per_device_train_batch_size == batch_size:
        return args
    changed = copy.copy(args)
    changed.per_device_train_batch_size = batch_size
    return changed


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
