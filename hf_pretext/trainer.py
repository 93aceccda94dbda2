"""The one loop: transformers' Trainer on our stream, with an objective's own terms in its logs.

Everything of `TrainingArguments` keeps working. What is added: the exact order of samples (see `data/stream.py`), each
loss term and log averaged over steps and ranks, loading that is strict, and no pickled arguments in what is shared.
"""

import itertools
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate.utils import set_seed, str_to_bool
from transformers import ProgressCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, get_last_checkpoint, rotate_checkpoints
from transformers.utils import PushInProgress, logging

from .callbacks import Hooks, Progress
from .data.corpus import TextProcessing
from .data.processing import ImageProcessing
from .data.sources import Source
from .modeling import PretextModel
from .stream.loader import StreamLoader
from .stream.mixture import Mixture
from .stream.reader import reading_notes
from .stream.sample_log import DIGEST_RANGE, forget_after, sizes_of_records
from .stream.settings import StreamSettings
from .stream.state import STREAM_STATE, check_length, load_state, state_of
from .utils.files import write_json
from .utils.hub import explained
from .utils.machine import cores
from .utils.paths import relative

STAGING = ".saving"  # where a checkpoint is written before it takes its name
STARVED = 0.2  # share of the time that steps may wait for data before we say how to mend it
log = logging.get_logger(__name__)


class PretextTrainer(Trainer):
    """Trains an objective on a source of rows, or on a mixture of sources.

    processing: row -> example in the workers, batch -> model inputs on the device; its processor is saved with every
    checkpoint. evaluation: `model -> {name: figure}`, run by the main process at each evaluation and shared with the
    others. stream: how the data is read. The other arguments are Trainer's.
    """

    def __init__(
        self,
        model: PretextModel,
        args: TrainingArguments,
        train_dataset: Source | Mixture,
        processing: ImageProcessing | TextProcessing,
        evaluation: Callable[[PretextModel], dict[str, float]] | None = None,
        stream: StreamSettings | None = None,
        **kwargs,
    ):
        """Raises `ValueError` for data without a known length where `args` count in epochs."""
        self.processing, self.evaluation, self.stream = processing, evaluation, stream or StreamSettings()
        self.mixture = Mixture(train_dataset) if isinstance(train_dataset, Source) else train_dataset
        check_length(self.mixture, args.max_steps)
        refuse_sharded(args)
        self._before: dict | None = None  # the stream's state in the checkpoint that training goes on from
        self._loader: StreamLoader | None = None
        self._mark: dict[str, float] | None = None
        self._starved = 0
        self.waited = 0.0  # seconds that steps have waited for data
        self._seconds_before, self._begun = 0.0, None
        self.resumed: list[dict[str, int]] = []  # where the run was gone on with, by how many processes
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()  # of batches: not all need have all terms
        self._saving = False
        super().__init__(
            model,
            args,
            train_dataset=self.mixture,
            eval_dataset=self.mixture if evaluation is not None else None,  # Trainer wants to see one; unused
            processing_class=processing.processor,
            **kwargs,
        )
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(Progress)
        self.add_callback(Hooks(self))

    @property
    def _start(self) -> int:
        """Samples seen when this part of the run began."""
        return self._before["samples_seen"] if self._before else 0

    @property
    def samples_seen(self) -> int:
        """Training samples that all ranks together have learned from, over all resumed parts of the run."""
        steps = self.state.global_step - getattr(self, "_initial_global_step", 0)
        return self._start + steps * self.get_total_train_batch_size(self.args)

    @property
    def seconds(self) -> float:
        """Time in `train()`, over all resumed parts of the run."""
        return self._seconds_before + (0.0 if self._begun is None else time.perf_counter() - self._begun)

    def account(self) -> dict:
        """What all ranks have consumed, over all resumed parts: `{"digest", "bad_samples": {reason: times}}`. Two runs
        with the same digest saw the same samples. To be called on every rank."""
        found = self._of_all_ranks((self._loader.ledger.digest, self._loader.ledger.reasons))
        if self._before:
            found.append((int(self._before["digest"], 16), Counter(self._before["bad_samples"])))
        digest = sum(digest for digest, _ in found) % DIGEST_RANGE
        return {"digest": f"{digest:016x}", "bad_samples": dict(sum((reasons for _, reasons in found), Counter()))}

    def _of_all_ranks(self, own) -> list:
        """What each rank gives, in their order. To be called on every rank."""
        if self.args.world_size == 1:
            return [own]
        found = [None] * self.args.world_size
        torch.distributed.all_gather_object(found, own)
        return found

    def _tell_of_bad_samples(self) -> None:
        """Has ranks tell each other, so that all count the same. To be called on every rank, after the same step: each
        log and each checkpoint is often enough, and costs no step anything.

        Raises `TooManyBadSamples`, on all ranks or none."""
        self._loader.ledger.hear(self._of_all_ranks(self._loader.ledger.news()))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As Trainer's, with `"last"` for the last checkpoint in the output folder.

        Raises `ValueError` for a checkpoint of other data or of another order, before anything is touched."""
        if resume_from_checkpoint in ("last", True):
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
        steps = 0
        if resume_from_checkpoint:
            together = self.get_total_train_batch_size(self.args) if self.mixture.one_source_a_step else 1
            self._before = load_state(resume_from_checkpoint, self.mixture, self.stream, self.data_seed, together)
            self._seconds_before = self._before["seconds"]
            here = {"samples_seen": self._start, "processes": self.args.world_size}
            self.resumed = [*self._before.get("resumed", []), here]
            steps = TrainerState.load_from_json(os.path.join(resume_from_checkpoint, "trainer_state.json")).global_step
            self._initial_global_step = steps
            self.args.ignore_data_skip = True  # the stream starts at the right sample by itself
        if self.args.should_save:  # also of a run that was killed before its first checkpoint
            forget_after(self.args.output_dir, steps, self._before.get("records") if self._before else None)
        if self.args.world_size > 1 or resume_from_checkpoint:
            # or all ranks would draw the same corruption; a checkpoint has no generator state for a rank it never had
            set_seed(self.args.seed + self._start, device_specific=True)
        self._begun = time.perf_counter()
        if not resume_from_checkpoint:
            self._prepare()
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        finally:
            self._seconds_before, self._begun = self.seconds, None
            if self._loader is not None:
                self._loader.close()

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

    def get_train_dataloader(self) -> StreamLoader:
        """This rank's part of the stream, from the samples seen on. Already sharded: not to be prepared again."""
        args, workers = self.args, self.args.dataloader_num_workers
        self._loader = StreamLoader(
            self.mixture,
            self.processing,
            self._train_batch_size,
            seed=self.data_seed,
            settings=self.stream,
            windows=self._before["windows"] if self._before else None,
            watched=self._before.get("watched") if self._before else None,
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

    @property
    def data_seed(self) -> int:
        """What the order of samples and their augmentation are drawn from."""
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def set_initial_training_values(self, args: TrainingArguments, dataloader: StreamLoader) -> tuple:
        """As Trainer's; a run that goes on with another global batch ends after as many samples as it would have."""
        *values, max_steps = super().set_initial_training_values(args, dataloader)
        batch = self.get_total_train_batch_size(args)
        if self._before and args.max_steps < 0 and self._before["global_batch"] != batch:
            left = args.num_train_epochs * len(self.mixture) - self._start
            max_steps = self._initial_global_step + max(math.ceil(left / batch), 0)
            steps_per_epoch = values[1]
            values[0] = self._initial_global_step // steps_per_epoch + math.ceil(left / batch / steps_per_epoch) + 1
        return (*values, max_steps)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """As Trainer's, noting how long the step waits for its data, and what it consumes."""
        start = time.perf_counter()
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.waited += time.perf_counter() - start
        if samples[0]:
            self._loader.ledger.step(self.state.global_step + 1)
        return samples

    def _prepare_inputs(self, inputs: dict) -> dict:
        return self.processing.finish(super()._prepare_inputs(inputs))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The objective's loss; its terms and logs are summed on the device until the next log."""
        outputs = model(**inputs)
        if model.training:
            several = len(outputs["losses"]) > 1 or self.mixture.one_source_a_step  # else the loss itself tells
            terms = outputs["losses"] if several else {}
            for name, value in {**{f"loss_{k}": v for k, v in terms.items()}, **outputs["logs"]}.items():
                self._sums[name] = self._sums.get(name, 0) + value.detach().float().mean()  # of DataParallel's
                self._counts[name] += 1
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, with the objective's terms, the samples seen, the speed and the wait for data."""
        if "loss" in logs and self.is_in_train:
            self._tell_of_bad_samples()
            names = sorted(self._sums)
            means = torch.stack([self._sums[name] / self._counts[name] for name in names]) if names else torch.zeros(0)
            means = self.accelerator.reduce(means.to(self.args.device), reduction="mean").tolist()
            logs = {"loss": logs.pop("loss"), **dict(zip(names, means, strict=True)), **logs, **self._pace()}
            self._sums, self._counts = {}, Counter()
        if self.is_in_train and not self.mixture.endless:
            self.state.epoch = self.samples_seen / len(self.mixture)  # of the data, not of Trainer's loop
        super().log(logs, start_time)

    def _pace(self) -> dict[str, float]:
        """Samples seen, how often that is through each source, speed, and the share of the time spent waiting."""
        now = {"time": time.perf_counter(), "samples": self.samples_seen, "waited": self.waited}
        now["read"] = self._loader.reader.waited
        pace = {"samples_seen": now["samples"], **self._epochs_of_sources()}
        if self._mark is not None and now["time"] > self._mark["time"]:
            passed = {name: value - self._mark[name] for name, value in now.items()}
            pace["samples_per_second"] = round(passed["samples"] / passed["time"], 1)
            pace["data_wait"] = round(passed["waited"] / passed["time"], 4)
            self._mind_the_wait(pace["data_wait"], passed["read"] > passed["waited"] / 2)
        self._mark = now
        return pace

    def _epochs_of_sources(self) -> dict[str, float]:
        sources = self.mixture.sources
        drawn = self._loader.reader.order.drawn(self.samples_seen)
        names = [f"/{source.prefix}{relative(source.name)}" if len(sources) > 1 else "" for source in sources]
        return {
            f"epoch_of_source{name}": count / len(source)
            for name, source, count in zip(names, sources, drawn, strict=True)
            if not source.endless
        }

    def _mind_the_wait(self, share: float, reading: bool) -> None:
        """Warns, once, where steps go on waiting for data. reading: whether rows are late, not their decoding."""
        self._starved = self._starved + 1 if share > STARVED else 0
        if self._starved != 2 or not self.is_world_process_zero():
            return
        workers = self.args.dataloader_num_workers
        if reading:
            mend = "reading is slow. Bring the data nearer, or into more and smaller pieces (Parquet row groups)"
        elif workers < cores() - 1:
            mend = f"decoding is slow. Give it more processes: --dataloader_num_workers {max(cores() - 1, workers + 1)}"
        else:
            mend = "decoding is slow. Store samples as the encoder sees them: pictures smaller, sounds shorter"
        log.warning(f"Steps wait {share:.0%} of the time for data: {mend}.")

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

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As Trainer's. Raises `ValueError`, with the mend, where the Hub refuses."""
        with explained(self.args.hub_model_id or Path(self.args.output_dir).name):
            super().init_hf_repo(token, private)

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
        self._finish_current_push()
        job = self._share(self.args.output_dir, commit_message, None, token, revision)
        return job.result() if blocking else job

    def _share(
        self,
        folder: str,
        message: str,
        beside: str | None = None,
        token: str | None = None,
        revision: str | None = None,
    ):
        from .cards import unfinished
        from .cards.push import push_meanwhile

        model = self.accelerator.unwrap_model(self.model)
        when = f"step {self.state.global_step:,}" + (" of a training that goes on" if self.is_in_train else "")
        card = unfinished(self.hub_model_id, model.objective, when)
        options = {"token": token or self.args.hub_token, "revision": revision or self.args.hub_revision}
        return push_meanwhile(folder, self.hub_model_id, message, card, beside, **options)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # a pickle has no place in what is shared; results.json says the arguments
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model, trial) -> None:
        """As Trainer's, in a folder that takes its name when all in it is written, by all ranks: whoever finds a
        checkpoint, finds a whole one, whenever the run is killed."""
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
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(final))

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGING) if self._saving else folder

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As Trainer's, of what `cards/staging.py` lets through."""
        strategy = self.args.hub_strategy
        if self._saving or strategy == HubStrategy.END or not self.is_world_process_zero():
            return  # while it is saved, it does not have its name yet
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()  # of process zero alone
        if busy and not self.args.hub_always_push:
            return
        beside = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: Path(checkpoint_folder).name}
        job = self._share(
            checkpoint_folder, f"Training in progress, step {self.state.global_step:,}", beside.get(strategy)
        )
        self.push_in_progress = PushInProgress([*(self.push_in_progress.jobs if busy else []), job])

    def _state_of_stream(self) -> dict:
        """All there is to know of the data, to go on from here. To be called on every rank."""
        self._tell_of_bad_samples()
        return {
            **state_of(self.mixture, self._loader.reader.order, self.stream),
            "samples_seen": self.samples_seen,
            "global_batch": self.get_total_train_batch_size(self.args),
            "seconds": self.seconds,
            "resumed": self.resumed,
            "watched": self._loader.ledger.watched(),
            "records": sizes_of_records(self.args.output_dir),
            **self.account(),
        }

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Strict, and by the native class's own `from_pretrained`, which Trainer's own loading leaves out."""
        target = self.accelerator.unwrap_model(model or self.model)
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        check_same_task(saved, target, resume_from_checkpoint)
        target.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def check_same_task(saved: PretextModel, target: PretextModel, where: str) -> None:
    """Raises `ValueError` where a checkpoint was trained with other settings of its objective: the card of a
    run that is resumed with others would know the last ones alone."""
    before, now = saved.pretext, target.pretext
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{where} was trained with {name}={before.get(name)}, not {now.get(name)}. Go on with the same, or "
                "begin anew in another --output_dir."
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
    found = get_last_checkpoint(output_dir) if os.path.isdir(output_dir) else None
    if found is None:
        raise ValueError(f"There is no checkpoint in {output_dir} to go on from. Leave out --resume_from_checkpoint.")
    return found
