"""The one loop: transformers' Trainer on our stream, with an objective's own terms in its logs.

Everything of `TrainingArguments` keeps working. What is added: the exact order of samples (see `stream/trainer.py`),
each loss term and log averaged over steps and ranks, strict loading, and no pickled arguments in what is shared.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from accelerate.utils import str_to_bool
from torch import Tensor
from transformers import ProgressCallback, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from .callbacks import Hooks, Progress, Publisher
from .data.sources import Source
from .modalities import Inputs, Modality
from .modeling import PretextModel
from .stream.loader import StreamLoader
from .stream.mixture import Mixture
from .stream.settings import StreamSettings
from .stream.trainer import StreamTrainer

log = logging.get_logger(__name__)


class PretextTrainer(StreamTrainer):
    """Trains an objective on a source of rows, or on a mixture of sources.

    processing: row -> example in the workers, batch -> model inputs on the device; its processor is saved with every
    checkpoint. evaluation: `model -> {name: metric}`, run by the main process at each evaluation and shared with the
    others. stream: how the data is read. The other arguments are Trainer's.
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
        """Raises `ValueError` for data without a known length where `args` count in epochs."""
        refuse_sharded(args)
        processing = Inputs(processing) if isinstance(processing, Modality) else processing
        self.evaluation = evaluation
        self.publisher = Publisher(model.objective)
        self._terms = RunningMeans()
        kwargs["eval_dataset"] = train_dataset if evaluation is not None else None  # Trainer wants to see one; unused
        super().__init__(model, args, train_dataset, processing, stream, **kwargs)
        self.add_callback(self.publisher)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(Progress)
        self.add_callback(Hooks(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As Trainer's, with `"last"` for the last checkpoint in the output folder.

        Raises `ValueError` for a checkpoint of other data or of another order, before any file is changed."""
        if resume_from_checkpoint in ("last", True):
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
        return super().train(resume_from_checkpoint or None, **kwargs)

    def _prepare(self) -> None:
        """Has the objective learn what it must know of the data beforehand: on the main process, for all."""
        model = self.accelerator.unwrap_model(self.model)
        if type(model).prepare is not PretextModel.prepare:
            self.learn_from_data(model.prepare)
            if self.is_world_process_zero():
                log.warning(f"Learned before training: {model.prepared()}.")

    def begins_epoch(self) -> bool:
        """Whether the next step is the first to see samples of an epoch; of data without a length, the first of all."""
        before = self.samples_seen - self.get_total_train_batch_size(self.args)
        length = self.samples_seen + 1 if self.mixture.endless else len(self.mixture)
        return self.samples_seen == 0 or self.samples_seen // length > before // length

    def learn_from_data(self, learn: Callable[[Iterator[dict]], None], once: bool = False) -> None:
        """Has a method of the model learn from finished batches of training, from the first sample on: on the main
        process, for all. once: the batches of one epoch, not of as many as are asked for.

        Raises `ValueError`, on all processes, where it does."""
        model = self.accelerator.unwrap_model(self.model)
        failed = [None]  # on the main process: the others must not wait for what will not come
        if self.is_world_process_zero():
            options = {"seed": self.data_seed, "settings": self.stream, "num_workers": self.args.dataloader_num_workers}
            total = self.get_total_train_batch_size(self.args)
            loader = StreamLoader(self.mixture, self.processing, total, **options)
            try:
                batches = (self._prepare_inputs(batch) for batch in loader)
                learn(itertools.islice(batches, len(loader)) if once else batches)
            except ValueError as error:
                failed = [str(error)]
            finally:
                loader.close()
        if self.args.world_size > 1:
            torch.distributed.broadcast_object_list(failed, src=0)
        if failed[0] is not None:
            raise ValueError(failed[0])
        if self.args.world_size > 1:
            for value in (*model.parameters(), *model.buffers()):
                torch.distributed.broadcast(value.data, src=0)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The objective's loss; its terms and logs are summed on the device until the next log."""
        outputs = model(**inputs)
        if model.training:
            several = len(outputs["losses"]) > 1 or self.mixture.one_source_a_step  # else it is the loss itself
            terms = outputs["losses"] if several else {}
            self._terms.add({**{f"loss_{name}": value for name, value in terms.items()}, **outputs["logs"]})
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, with the objective's terms, the samples seen, the speed and the wait for data."""
        if "loss" in logs and self.is_in_train:
            self.share_bad_samples()
            means = self._terms.pop()
            values = torch.stack(list(means.values())) if means else torch.zeros(0)
            values = self.accelerator.reduce(values.to(self.args.device), reduction="mean").tolist()
            pace = self.pace.measure(self.samples_seen, self.mixture, self._loader.reader)
            logs = {"loss": logs.pop("loss"), **dict(zip(means, values, strict=True)), **logs, **pace}
        if self.is_in_train and not self.mixture.endless:
            self.state.epoch = self.samples_seen / len(self.mixture)  # of the data, not of Trainer's loop
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model) -> list[str]:
        """Weight decay is for matrices and kernels; vectors and scalars (norms, biases, temperatures) get none."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Our evaluation of the encoder as it stands; every rank gets the main process's metrics."""
        measured = [{}]
        if self.evaluation is not None and self.is_world_process_zero():
            measured = [self.evaluation(self.accelerator.unwrap_model(self.model))]
        if self.args.world_size > 1:
            torch.distributed.broadcast_object_list(measured, src=0)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured[0].items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: dict) -> int:
        """Not estimated: Trainer's guess goes by tokens, and walks over all modules at each step."""
        return 0

    def create_model_card(self, **kwargs) -> None:
        """Trainer's own card says "fine-tuned version of []"; ours is rendered from results (see `cards/`)."""

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As Trainer's. Raises `ValueError`, with the fix, where the Hub refuses."""
        if self.is_world_process_zero():
            self.hub_model_id = self.publisher.create_repository(self.args, token, private)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Left to `Publisher`, for when the checkpoint has its name."""

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ):
        """As Trainer's, of what `cards/staging.py` lets through and with our card: `hf_pretext.cards.push` does more,
        once there are results. Returns a future where not `blocking`; failing is a warning."""
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
        # a pickle has no place in what is shared; results.json says the arguments
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Strict, and by the native class's own `from_pretrained`, which Trainer's own loading leaves out."""
        target = self.accelerator.unwrap_model(model or self.model)
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        check_same_task(saved, target, resume_from_checkpoint)
        target.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class RunningMeans:
    """Means of named values, kept on the device until they are asked for. Not all batches need have all names."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds a batch's: `()` each, or `(devices,)` from `DataParallel`."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().float().mean()
            self._counts[name] += 1

    def pop(self) -> dict[str, Tensor]:
        """Returns the means since the last call, by name in alphabetical order."""
        means = {name: self._sums[name] / self._counts[name] for name in sorted(self._sums)}
        self._sums, self._counts = {}, Counter()
        return means


def check_same_task(saved: PretextModel, target: PretextModel, where: str) -> None:
    """Raises `ValueError` where a checkpoint was trained with other settings of its objective: the card of a
    run that is resumed with others would know the last ones alone."""
    before, now = saved.pretext, target.pretext
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{where} was trained with {name}={before.get(name)}, not {now.get(name)}. Resume with the same, "
                "or start in another --output_dir."
            )


def refuse_sharded(args: TrainingArguments) -> None:
    """Raises `ValueError` where the model is to be split over devices."""
    asked = {"--fsdp": args.fsdp, "--fsdp_config": args.fsdp_config, "--deepspeed": args.deepspeed}
    by_launcher = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
    asked |= {f"{name} (accelerate launch)": str_to_bool(os.environ.get(name, "0")) for name in by_launcher}
    for option, value in asked.items():
        if value:
            raise ValueError(
                f"{option} would split the model over devices, but heads, teachers and checkpoints here are of whole "
                "models: weights would be lost on saving. Leave it out; several processes each hold the model (DDP)."
            )


def last_checkpoint(output_dir: str) -> str:
    """The newest checkpoint in a folder. Raises `ValueError` where there is none."""
    checkpoint = get_last_checkpoint(output_dir) if os.path.isdir(output_dir) else None
    if checkpoint is None:
        raise ValueError(f"There is no checkpoint in {output_dir} to resume from. Leave out --resume_from_checkpoint.")
    return checkpoint
