"""One run of a recipe: everything checked when it is made, then trained seed by seed, then evaluated.

options -> source, processor, encoder, output folder (or one clear error) -> checkpoints -> results
"""

import dataclasses
import json
import os
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, TrainingArguments, set_seed
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.trainer_utils import get_last_checkpoint

from .command_line import CommandLine, relative
from .data.ledger import BAD_SAMPLES, read_lines
from .data.processing import Augmentation, ImageProcessing, load_processor
from .data.settings import StreamSettings
from .data.sources import Mixture, open_source
from .data.state import STREAM_STATE, check_length
from .evaluation.comparison import encoder_transfer, pretext_figures
from .evaluation.labelled import LabelledImages
from .features import last_hidden
from .files import write_json
from .machine import default_workers, has_bf16, keep_freed_memory
from .modeling import PretextModel, build_encoder, read_objective
from .recipe import NO_DATASET, Recipe, RunArguments
from .trainer import PretextTrainer

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
FINISHED = "run.json"  # written when all else is


class Run:
    """Checks all that was asked for; `train()` and `results()` then do it.

    Raises `ValueError`, with the value and the mend, for whatever would fail later.
    """

    def __init__(self, recipe: Recipe, objective: type[PretextModel], command_line: CommandLine, values: dict):
        self.recipe, self.objective, self.values = recipe, objective, values
        self.options: RunArguments = command_line.build(RunArguments, values)
        self.task = command_line.build(objective.task_class, values)
        self.augmentation = command_line.build(Augmentation, values)
        self.stream = command_line.build(StreamSettings, values)
        self.given = command_line.given
        if "seed" in self.given and "seeds" not in self.given:
            self.options.seeds = [self.given["seed"]]
        if len(set(self.options.seeds)) < len(self.options.seeds) or not self.options.seeds:
            raise ValueError(f"--seeds needs different numbers, but got {self.options.seeds}.")
        if self.options.encoder is not None and "image_size" not in self.given:
            self.options.image_size = None  # the recipe's is for its own encoder; this one brings its own
        self.args = {seed: self._arguments(command_line, seed) for seed in self.options.seeds}
        self.first = self.args[self.options.seeds[0]]
        self.main_process = self.first.process_index == 0
        self.evaluated = self.options.eval_dataset not in (None, NO_DATASET)
        if self.first.eval_strategy != "no" and not self.evaluated:
            raise ValueError(
                f"--eval_strategy {self.first.eval_strategy.value} needs labelled pictures, but --eval_dataset is "
                "none. Name some, or leave --eval_strategy out."
            )
        self._check_output()
        self.config = self._encoder_config()
        size = getattr(self.config, "image_size", None)
        processor = load_processor(
            self.options.encoder, self.options.image_size, size if isinstance(size, int) else 224
        )
        self.processing = ImageProcessing(processor, self.augmentation, self.stream.max_image_pixels)
        self.evaluation_processing = ImageProcessing(processor, None, self.stream.max_image_pixels)
        self.convolutional, self.encoder_class = self._try_out()
        self.source = self._data()
        self.labelled = self._labelled()
        self._check_writable()

    # checks

    def _arguments(self, command_line: CommandLine, seed: int) -> TrainingArguments:
        values = dict(self.values)
        folder = values["output_dir"]
        values["seed"] = seed
        values["output_dir"] = folder if seed == self.options.seeds[0] else os.path.join(folder, f"seed-{seed}")
        if not {"bf16", "fp16"} & self.given.keys():
            values["bf16"] = has_bf16(values.get("use_cpu", False))
        values.setdefault("disable_tqdm", False)  # Trainer takes its default from the verbosity
        values.setdefault("dataloader_num_workers", default_workers(values.get("use_cpu", False)))
        values.setdefault("ddp_find_unused_parameters", False)  # those without a gradient are frozen beforehand
        return command_line.build(TrainingArguments, values)

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

    def _encoder_config(self) -> PreTrainedConfig:
        path = self.options.encoder
        if path is None:
            shape = self.recipe.smoke_encoder if self.options.smoke else self.recipe.encoder
            return shape(self.options.image_size)
        try:
            config = AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"--encoder {path} is neither a folder with a config.json nor a Hub model that can be reached. {error}"
            ) from error
        native = MODEL_MAPPING.get(type(config), None)
        native = native[0] if isinstance(native, (tuple, list)) else native
        takes = getattr(native, "input_modalities", None)
        takes = (takes,) if isinstance(takes, str) else tuple(takes or ())
        if takes != (self.objective.modality,):
            raise ValueError(
                f"--encoder {path} is a {config.model_type} model, which takes {' and '.join(takes)}, "
                f"but {self.objective.objective} needs one for {self.objective.modality}s, as a ViT or a ResNet."
            )
        return config

    def _data(self) -> Mixture:
        columns = {"image": self.options.image_column}
        if not self.options.dataset:
            raise ValueError("--dataset is missing: a folder of pictures, files, or a Hub id.")
        sources = [open_source(dataset, self.options.split, columns) for dataset in self.options.dataset]
        data = Mixture(sources, self.options.mixture_weights)
        check_length(data, self.first.max_steps)
        return data

    def _try_out(self) -> tuple[bool, str]:
        """One forward and backward pass of the whole model on noise: whatever does not fit shows before training."""
        model, missing = self.fresh(self.first.seed)
        height, width = self.processing.size
        noise = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        batch = self.evaluation_processing.finish({"pixel_values": noise})
        try:
            unused = model.freeze_unused(**batch)
            hidden = last_hidden(model.encoder.eval(), model.encoder(**batch))
        except (ValueError, RuntimeError) as error:
            expected = getattr(self.config, "image_size", None)
            hint = f" Its config says image_size={expected}." if expected else ""
            encoder = self.options.encoder or "the encoder"
            raise ValueError(
                f"Pictures of {height}x{width} pixels (--image_size) do not fit {encoder}: "
                f"{str(error).splitlines()[0]}{hint}"
            ) from error
        lost = sorted(name for name in missing if f"{model.base_model_prefix}.{name}" not in unused)
        if lost:
            raise ValueError(
                f"--encoder {self.options.encoder} lacks weights that training needs: {', '.join(lost[:5])}."
            )
        return hidden.ndim == 4, type(model.encoder).__name__

    def _labelled(self) -> LabelledImages | None:
        if not (self.evaluated and self.main_process):
            return None
        return LabelledImages(
            self.options.eval_dataset,
            self.evaluation_processing,
            self.options.eval_label,
            workers=self.first.dataloader_num_workers,
            limit=self.options.eval_rows,
        )

    # building

    def fresh(self, seed: int, random: bool = False) -> tuple[PretextModel, list[str]]:
        """The objective's model as training of this seed begins, and the encoder's weights that stayed random."""
        set_seed(seed)
        encoder, missing = self._encoder(random)
        return self.objective.from_encoder(encoder, **dataclasses.asdict(self.task)), missing

    def _encoder(self, random: bool = False) -> tuple[PreTrainedModel, list[str]]:
        path = self.options.encoder
        if random or path is None or (os.path.isdir(path) and not any((Path(path) / f).exists() for f in WEIGHT_FILES)):
            return build_encoder(self.config), []
        encoder, info = AutoModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        return encoder, list(info["missing_keys"])

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
        noise = torch.zeros(2, 3, *self.processing.size)
        frozen = model.freeze_unused(pixel_values=noise)
        trainer = PretextTrainer(
            self.laid_out(model), args, self.source, self.processing, self._while_training(), self.stream
        )
        trainer.train(resume_from_checkpoint=resume)
        trainer.save_model()
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
            "frozen": frozen,
            "history": [entry for entry in trainer.state.log_history if "loss" in entry],
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
            figures = pretext_figures(model, self.labelled.batches("validation"), self.first.device)
            found = encoder_transfer(
                model.encoder, self.labelled, device=self.first.device, methods=("knn",), splits=("train", "validation")
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
        start = f"from {self.options.encoder}" if self.options.encoder else "from scratch"
        names = " + ".join(relative(source.name) for source in self.source.sources)
        data = names if self.source.endless else f"{len(self.source):,} pictures of {names}"
        return (
            f"{self.recipe.name}: {self.objective.objective} on {data}; "
            f"{self.encoder_class} {start}, seed{'s' * (len(self.args) > 1)} {seeds}; {device}, {precision}{layout}, "
            f"processes: {self.first.world_size}"
        )

    def say(self, text: str) -> None:
        """Prints on the main process."""
        if self.main_process:
            print(text, flush=True)


def finished(folder: str) -> bool:
    """Whether a run of one seed came to its end in this folder."""
    return (Path(folder) / FINISHED).exists()


def checkpoint(folder: str) -> str | None:
    """The newest checkpoint in a folder, if any."""
    return get_last_checkpoint(folder) if os.path.isdir(folder) else None
