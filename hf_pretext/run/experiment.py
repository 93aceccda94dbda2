"""One run of a recipe: everything checked when it is made, then trained seed by seed, then evaluated.

options -> source, processor, encoder, output folder (or one clear error) -> checkpoints -> results
"""

import dataclasses
import inspect
import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..cards import CARD, RESULTS
from ..cards.licenses import check_language, check_license
from ..encoders import is_shape_alone
from ..evaluation.comparison import encoder_transfer, pretext_figures
from ..evaluation.transfer import METHODS
from ..features import last_hidden
from ..modalities import Modality
from ..modeling import PretextModel, read_objective
from ..registry import modality_class
from ..stream.sample_log import BAD_SAMPLES, read_lines
from ..stream.settings import StreamSettings
from ..stream.state import STREAM_STATE, check_length
from ..trainer import PretextTrainer
from ..utils.files import write_json
from ..utils.machine import default_workers, energy, has_bf16, keep_freed_memory
from ..utils.paths import relative
from .command_line import CommandLine
from .settings import NO_DATASET, RunArguments

if TYPE_CHECKING:
    from ..recipe import Recipe

FINISHED = "run.json"  # written when all else is
NOT_SETTINGS = ("output_dir", "seed", "resume_from_checkpoint", "disable_tqdm", "use_cpu", "push_to_hub")
INDIFFERENT = ("logging_", "save_", "eval_", "dataloader_", "report_to", "max_steps")  # what is learned is the same
QUICK = {"knn": METHODS["knn"]}  # measured while training


class Run:
    """Checks all that was asked for; `train()` and `results()` then do it.

    Raises `ValueError`, with the value and the mend, for whatever would fail later.
    """

    def __init__(self, recipe: "Recipe", objective: type[PretextModel], command_line: CommandLine, values: dict):
        self.recipe, self.objective, self.values = recipe, objective, values
        self.build = partial(command_line.build, values=values)
        self.given = command_line.given
        self.options: RunArguments = self.build(RunArguments)
        self.task = self.build(objective.task_class)
        self.stream = self.build(StreamSettings)
        if "seed" in self.given and "seeds" not in self.given:
            self.options.seeds = [self.given["seed"]]
        if len(set(self.options.seeds)) < len(self.options.seeds) or not self.options.seeds:
            raise ValueError(f"--seeds needs different numbers, but got {self.options.seeds}.")
        if {"dataset", "images_alone", "texts_alone"} & self.given.keys() and "mixture_weights" not in self.given:
            self.options.mixture_weights = None  # the recipe's are of its own data
        if "dataset" in self.given:
            self.options.license = self.given.get("license")
            self.options.language = self.given.get("language", [])
            self.options.limits = self.given.get("limits")
        check_license(self.options.license)
        check_language(self.options.language)
        if "eval_dataset" in self.given and "eval_label" not in self.given:
            self.options.eval_label = None  # the recipe's is a column of its own set
        self.args = {seed: self._arguments(seed, values) for seed in self.options.seeds}
        self.first = self.args[self.options.seeds[0]]
        self.repository: str | None = None  # of --push_to_hub
        self.main_process = self.first.process_index == 0
        self.evaluated = self.options.eval_dataset not in (None, NO_DATASET)
        if self.first.eval_strategy != "no" and not self.evaluated:
            raise ValueError(
                f"--eval_strategy {self.first.eval_strategy.value} needs a labelled set, but --eval_dataset is none. "
                "Name one, or leave --eval_strategy out."
            )
        self._check_output()
        self.data: Modality = modality_class("_".join(objective.inputs))(self)
        self.config, self.processing = self.data.config, self.data.processing
        self.source = self.data.open()
        check_length(self.source, self.first.max_steps)
        changed = self.data.adjusted(values)
        if changed != values:
            self.args = {seed: self._arguments(seed, changed) for seed in self.options.seeds}
            self.first = self.args[self.options.seeds[0]]
        self.convolutional, self.encoder_class = self._try_out()
        self.labelled = self.data.labelled() if self.evaluated and self.main_process else None
        self._check_finished()
        self._check_writable()

    # checks

    def _arguments(self, seed: int, values: dict) -> TrainingArguments:
        values = dict(values)
        folder = values["output_dir"]
        values["seed"] = seed
        values["push_to_hub"] = values.get("push_to_hub", False) and seed == self.options.seeds[0]
        values["output_dir"] = folder if seed == self.options.seeds[0] else os.path.join(folder, f"seed-{seed}")
        values.setdefault("use_cpu", not torch.accelerator.is_available())  # or bf16 would be refused on a CPU
        if not {"bf16", "fp16"} & self.given.keys():
            values["bf16"] = has_bf16(values.get("use_cpu", False))
        values.setdefault("disable_tqdm", False)  # Trainer takes its default from the verbosity
        values.setdefault("dataloader_num_workers", default_workers(values.get("use_cpu", False)))
        values.setdefault("ddp_find_unused_parameters", False)  # those without a gradient are frozen beforehand
        return self.build(TrainingArguments, values=values)

    def _check_output(self) -> None:
        folder, resume = Path(self.first.output_dir), self.first.resume_from_checkpoint
        config = folder / "config.json"
        if config.exists():
            try:
                found = read_objective(AutoConfig.from_pretrained(folder), folder)
            except (ValueError, OSError):
                found = None
            if found != self.objective.objective:
                what = f"a run of the objective {found!r}" if found else "another model"
                raise ValueError(f"--output_dir {folder} holds {what}. Give another folder.")
        if resume and resume != "last":
            if len(self.args) > 1:
                raise ValueError(
                    f"--resume_from_checkpoint {resume} is of one seed, but --seeds are {self.options.seeds}. Give "
                    "that seed alone, as --seed 0, or --resume_from_checkpoint last to go on with all."
                )
            if not (Path(resume) / STREAM_STATE).exists():
                raise ValueError(f"--resume_from_checkpoint {resume}: there is no such checkpoint. Give a checkpoint-* "
                                 "folder, or `last`.")  # fmt: skip
        elif resume:
            if not folder.is_dir():
                raise ValueError(
                    f"--resume_from_checkpoint last: there is no folder {folder} to go on in. Leave it out."
                )
        elif (folder / CARD).exists() and not (folder / RESULTS).exists():
            raise ValueError(f"--output_dir {folder} holds a {CARD} that is not ours to replace. Give another folder.")
        else:
            begun = [a.output_dir for a in self.args.values() if finished(a.output_dir) or checkpoint(a.output_dir)]
            if begun:
                state = "a finished run" if finished(begun[0]) else "an unfinished run"
                raise ValueError(
                    f"--output_dir {begun[0]} holds {state}. Go on with --resume_from_checkpoint last, or start "
                    "afresh in another folder (or remove this one)."
                )

    def _check_writable(self) -> None:
        folder = Path(self.first.output_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{os.getpid()}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(f"--output_dir {folder} can't be written to: {error.strerror}. Give another.") from error

    def datasets(self) -> list[str]:
        """What is pretrained on. Raises `ValueError` where nothing is named."""
        if not self.options.dataset:
            raise ValueError("--dataset is missing: a folder, files, or a Hub id.")
        return self.options.dataset

    def encoder_shape(self) -> Callable[..., PreTrainedConfig]:
        """What makes the recipe's own encoder's config."""
        return self.recipe.smoke_encoder if self.options.smoke else self.recipe.encoder

    def _try_out(self) -> tuple[bool, str]:
        """A forward and a backward pass of the whole model on noise: whatever does not fit shows before training."""
        model, missing = self.fresh(self.first.seed)
        batches = self.data.noise()
        takes = set(inspect.signature(model.encoder.forward).parameters)
        if model.encoder.main_input_name == "pixel_values":
            takes.discard("attention_mask")  # that is of a text beside
        try:
            unused = model.freeze_unused(*batches)
            inputs = {name: value for name, value in batches[0].items() if name in takes}
            hidden = last_hidden(model.encoder.eval(), model.encoder(**inputs))
        except (ValueError, RuntimeError, IndexError) as error:
            raise ValueError(self.data.does_not_fit(str(error).splitlines()[0])) from error
        lost = sorted(name for name in missing if f"full_model.{name}" not in unused)
        if lost:
            raise ValueError(
                f"--encoder {self.options.encoder} lacks weights that training needs: {', '.join(lost[:5])}."
            )
        return hidden.ndim == 4, type(model.encoder).__name__

    def _check_finished(self) -> None:
        """A finished run is taken as this one's only where it is: else a card would tell of settings that never ran."""
        for seed, args in self.args.items():
            if not finished(args.output_dir):
                continue
            before = json.loads((Path(args.output_dir) / FINISHED).read_text())["identity"]
            changed = [
                f"{name} {before.get(name)}, not {value}"
                for name, value in self.identity(seed).items()
                if before.get(name) != value
            ]
            if changed:
                raise ValueError(
                    f"--output_dir {args.output_dir} holds a finished run with {'; '.join(changed[:3])}. Give another "
                    "folder, or the same options."
                )

    def identity(self, seed: int) -> dict:
        """What a run depends on, for JSON."""
        own = {**settings(self), "seed": seed, **dataclasses.asdict(self.task), **self.data.facts()}
        own |= {"encoder": self.config.to_diff_dict(), "data": self.source.fingerprint()}
        own = {name: value for name, value in own.items() if not name.startswith(INDIFFERENT)}
        return json.loads(json.dumps(own, default=str))

    # building

    def fresh(self, seed: int, random: bool = False) -> tuple[PretextModel, list[str]]:
        """The objective's model as training of this seed begins, and the encoder's weights that stayed random."""
        set_seed(seed)
        encoder, missing = self._encoder(random)
        model = self.objective.from_encoder(encoder, **dataclasses.asdict(self.task))
        if not random:
            self.data.start(model)
        return model, missing

    def _encoder(self, random: bool = False) -> tuple[PreTrainedModel | PreTrainedConfig, list[str]]:
        path = self.options.encoder
        if random or path is None or is_shape_alone(path):
            return self.config, []
        auto = self.objective.auto_class  # with its own head, where the objective has one and the checkpoint too
        if auto is not AutoModel and type(self.config) not in auto._model_mapping:
            self.objective.native(self.config)  # says what is wrong
        encoder, info = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        inner = "" if auto is AutoModel else f"{encoder.base_model_prefix}."
        return encoder, [name for name in info["missing_keys"] if name.startswith(inner)]

    def random(self, seed: int) -> PreTrainedModel:
        """The encoder of a seed before any training, with nothing of --encoder but its shape."""
        return self.fresh(seed, random=True)[0].encoder

    def trained(self, folder: str) -> PretextModel:
        """The model of a finished seed."""
        return self.objective.from_pretrained(folder, dtype=torch.float32)

    def laid_out(self, module: nn.Module) -> nn.Module:
        """Convolutions are fastest with channels last, on CPUs and GPUs alike."""
        return module.to(memory_format=torch.channels_last) if self.convolutional else module

    # doing

    def train(self) -> bool:
        """Trains every seed that is not finished. Returns whether this is the main process, which evaluates."""
        if self.first.device.type == "cpu":
            keep_freed_memory()
        self.say(self._announcement())
        self.seeds = {seed: self._train(seed, args) for seed, args in self.args.items()}
        PartialState().destroy_process_group()  # or a process may abort at its exit; evaluation needs one alone
        return self.main_process

    def _train(self, seed: int, args: TrainingArguments) -> dict:
        record = Path(args.output_dir) / FINISHED
        if finished(args.output_dir):
            self.say(f"seed {seed}: finished already, in {args.output_dir}")
            return json.loads(record.read_text())
        resume = args.resume_from_checkpoint
        if resume == "last":
            resume = checkpoint(args.output_dir)
            self.say(f"seed {seed}: " + (f"going on from {resume}" if resume else "no checkpoint yet, from the start"))
        model, _ = self.fresh(seed)
        frozen = model.freeze_unused(*self.data.noise())
        idle = [name for name in frozen if "pooler" not in name]
        if idle:
            more = ", and more" if len(idle) > 3 else ""
            self.say(f"seed {seed}: no loss of such data asks for {len(idle)} weights: {', '.join(idle[:3])}{more}")
        trainer = PretextTrainer(
            self.laid_out(model), args, self.source, self.processing, self._while_training(), self.stream
        )
        with energy() as drawn:
            trainer.train(resume_from_checkpoint=resume)
        trainer.save_model(_internal_call=True)  # what is published is published when there are results
        self.repository = trainer.hub_model_id or self.repository
        if self.main_process:
            self.data.finish(args.output_dir)
        account = trainer.account()
        if account["bad_samples"]:
            told = ", ".join(f"{reason}: {count}" for reason, count in account["bad_samples"].items())
            path = Path(args.output_dir) / BAD_SAMPLES
            self.say(f"seed {seed}: samples that could not be used were replaced ({told}). See {path}:")
            for line in read_lines(path)[:5]:
                self.say(f"  {line.get('path') or line['shard']}:{line['row']}: {line['reason']}")
        found = {
            "seed": seed,
            "steps": trainer.state.global_step,
            "samples_seen": trainer.samples_seen,
            "epochs": None if self.source.endless else trainer.samples_seen / len(self.source),
            "seconds": trainer.seconds,
            "samples_per_second": trainer.samples_seen / trainer.seconds,
            **account,
            "resumed": trainer.resumed,
            **({} if trainer.resumed else drawn),  # of a part alone, it would say too little
            "frozen": frozen,
            "prepared": trainer.accelerator.unwrap_model(trainer.model).prepared(),
            "history": [finite(entry) for entry in trainer.state.log_history if "loss" in entry],
            "identity": self.identity(seed),
        }
        trainer.save_state()
        if self.main_process:
            write_json(record, found)  # last: it says that the run is finished
        return found

    def _while_training(self):
        """What `--eval_strategy` shows: quick figures on validation, so that test stays unseen until the end."""
        if not self.evaluated:
            return None

        def evaluate(model: PretextModel) -> dict[str, float]:
            figures = pretext_figures(model, self.labelled.pretext_batches("validation"), self.first.device)
            found = encoder_transfer(
                model.encoder, self.labelled, QUICK, device=self.first.device, splits=("train", "validation")
            )
            return {**figures, "knn_top1": found["knn"]["validation"]["top1"]}

        return evaluate

    def results(self) -> dict:
        """Evaluates what was trained, writes results.json, the card and the report, and shows the table."""
        from .results import publish_results

        return publish_results(self)

    def _announcement(self) -> str:
        seeds = ", ".join(map(str, self.args))
        device = self.first.device.type
        precision = "bf16" if self.first.bf16 else "fp16" if self.first.fp16 else "fp32"
        if precision == "fp32" and not {"bf16", "fp16"} & self.given.keys():
            precision = "fp32 (no bf16 instructions here)"
        layout = ", channels_last" if self.convolutional else ""
        start = f"from {self.data.begun_from()}" if self.data.begun_from() else "from scratch"
        names = " + ".join(relative(source.name) for source in self.source.sources)
        data = names if self.source.endless else f"{len(self.source):,} {self.data.samples} of {names}"
        return (
            f"{self.recipe.name}: {self.objective.objective} on {data}; "
            f"{self.encoder_class} {start}, seed{'s' * (len(self.args) > 1)} {seeds}; {device}, {precision}{layout}, "
            f"processes: {self.first.world_size}"
        )

    def say(self, text: str) -> None:
        """Prints on the main process."""
        if self.main_process:
            print(text, flush=True)


def settings(run: Run) -> dict:
    """Training arguments that differ from transformers' defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    own = {**{name: run.values[name] for name in run.values if name in defaults}, "bf16": run.first.bf16}
    return {
        k: v for k, v in sorted(own.items()) if v != defaults[k] and k not in NOT_SETTINGS and not k.startswith("hub_")
    }


def finite(entry: dict) -> dict:
    """A log's figures without those that JSON can't hold: a gradient's norm may overflow for a step."""
    return {name: v for name, v in entry.items() if not isinstance(v, float) or math.isfinite(v)}


def finished(folder: str) -> bool:
    """Whether a run of one seed came to its end in this folder."""
    return (Path(folder) / FINISHED).exists()


def checkpoint(folder: str) -> str | None:
    """The newest checkpoint in a folder, if any."""
    return get_last_checkpoint(folder) if os.path.isdir(folder) else None
