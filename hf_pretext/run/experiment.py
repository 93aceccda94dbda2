"""A run, planned: everything that was asked for, checked before anything is trained or written.

recipe + values of options -> plan -> Experiment -> train -> evaluate -> publish
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig, TrainingArguments

from ..cards.licenses import check_language, check_license
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import Method, methods_of
from ..modalities import Inputs, PairArguments
from ..modeling import PretextModel
from ..stream.mixture import Mixture
from ..stream.settings import StreamSettings
from ..stream.state import check_length
from ..trainer import refuse_sharded
from ..utils.machine import default_workers, has_bf16
from ..utils.paths import relative
from .build import Blueprint
from .checks import Trial, check_finished, check_output, check_start, check_writable, kinds_alone, try_out
from .command_line import CommandLine
from .inputs import open_data, open_labelled, plan_inputs
from .settings import NO_DATASET, RunArguments

if TYPE_CHECKING:
    from ..recipe import Recipe

NOT_SETTINGS = ("output_dir", "seed", "resume_from_checkpoint", "disable_tqdm", "use_cpu", "push_to_hub")
INDIFFERENT = ("logging_", "save_", "eval_", "dataloader_", "report_to", "max_steps")  # what is learned is the same


@dataclass(frozen=True)
class Request:
    """The options of a run, each in its dataclass.

    given: those of the command line. values: those of the recipe, of --smoke and of the command line. settings: the
    dataclasses of data and measures, by class."""

    recipe: "Recipe"
    objective: type[PretextModel]
    given: Mapping[str, Any]
    values: Mapping[str, Any]
    options: RunArguments
    task: Any
    stream: StreamSettings
    settings: Mapping[type, Any]
    arguments: Mapping[int, TrainingArguments]

    @property
    def first(self) -> TrainingArguments:
        """The training arguments of the first seed."""
        return next(iter(self.arguments.values()))

    @property
    def evaluated(self) -> bool:
        """Whether there is a labelled set."""
        return self.options.eval_dataset not in (None, NO_DATASET)

    @property
    def pairs(self) -> PairArguments | None:
        """What is set where several kinds of data come together."""
        return self.settings.get(PairArguments)

    @property
    def encoder_function(self) -> Callable[..., PreTrainedConfig]:
        """What makes the config of the recipe's own encoder."""
        return self.recipe.smoke_encoder if self.options.smoke else self.recipe.encoder

    @property
    def main_process(self) -> bool:
        """Whether this process is the first of all."""
        return self.first.process_index == 0

    @property
    def datasets(self) -> list[str]:
        """What is pretrained on. Raises `ValueError` where nothing is named."""
        if not self.options.dataset:
            raise ValueError("--dataset is missing: a folder, files, or a Hub id.")
        return self.options.dataset

    def say(self, text: str) -> None:
        """Prints on the main process."""
        if self.main_process:
            print(text, flush=True)


@dataclass(frozen=True)
class Experiment:
    """A run that was checked: what is trained on what, and how it is judged."""

    request: Request
    blueprint: Blueprint
    inputs: Inputs
    data: Mixture
    labelled: LabelledSet | None
    data_facts: Mapping[str, Any]
    trial: Trial

    def as_fast_layout(self, module: torch.nn.Module) -> torch.nn.Module:
        """Convolutions are fastest with channels last, on CPUs and GPUs alike."""
        return module.to(memory_format=torch.channels_last) if self.trial.convolutional else module

    def noise(self) -> list[dict[str, torch.Tensor]]:
        """Batches of the largest size that the model will see, of random content: one of each kind that there is."""
        return self.inputs.noise(kinds_alone(self.request))

    def panel_models(self) -> dict[str, PretextModel]:
        """The first trained model and the random one of its seed."""
        args, blueprint = self.request.first, self.blueprint
        models = {"trained": blueprint.trained(args.output_dir), "random": blueprint.random(args.seed)}
        return {who: self.as_fast_layout(model) for who, model in models.items()}

    def methods(self, kind: str) -> dict[str, Method]:
        """How transfer of an encoder of this kind is measured, by name."""
        asked = self.request.options.eval_fractions
        return methods_of(asked or self.inputs.by_name[kind].fractions)

    def identity(self, seed: int) -> dict:
        """What a run depends on, for JSON."""
        changed = {**changed_arguments(self.request), "seed": seed, **dataclasses.asdict(self.blueprint.task)}
        changed |= {**self.data_facts, "encoder": self.blueprint.config.to_diff_dict(), "data": self.data.fingerprint()}
        changed = {name: value for name, value in changed.items() if not name.startswith(INDIFFERENT)}
        return json.loads(json.dumps(changed, default=str))


def plan(
    recipe: "Recipe", objective: type[PretextModel], command_line: CommandLine, values: Mapping[str, Any]
) -> Experiment:
    """Checks all that was asked for. Raises `ValueError`, with the value and the fix, for what would fail later."""
    request = ask(recipe, objective, command_line, values)
    check_output(request)
    inputs, config, start, facts = plan_inputs(request)
    task = objective.complete(request.task, inputs.processors)
    blueprint = Blueprint(objective, task, config, start)
    check_start(request, blueprint)
    data, arguments, more = open_data(request, inputs, blueprint)
    request = dataclasses.replace(request, task=task, arguments=arguments)
    check_length(data, request.first.max_steps)
    trial = try_out(request, blueprint, inputs)
    labelled = open_labelled(request, inputs) if request.evaluated and request.main_process else None
    experiment = Experiment(request, blueprint, inputs, data, labelled, {**facts, **more}, trial)
    check_finished(experiment)
    check_writable(request)
    return experiment


def ask(
    recipe: "Recipe", objective: type[PretextModel], command_line: CommandLine, values: Mapping[str, Any]
) -> Request:
    """The options in their dataclasses, without those of a recipe that are of its own data alone."""
    given, values = command_line.given, dict(values)
    for name in out_of_place(given):
        values.pop(name, None)
    build = partial(command_line.build, values=values)
    options: RunArguments = build(RunArguments)
    if "seed" in given and "seeds" not in given:
        options.seeds = [given["seed"]]
    if len(set(options.seeds)) < len(options.seeds) or not options.seeds:
        raise ValueError(f"--seeds needs different numbers, but got {options.seeds}.")
    check_license(options.license)
    check_language(options.language)
    arguments = {seed: training_arguments(seed, options.seeds, command_line, values) for seed in options.seeds}
    refuse_sharded(arguments[options.seeds[0]])
    task, stream = build(objective.task_class), build(StreamSettings)
    others = {type_: build(type_) for type_ in command_line.types if type_ not in (RunArguments, TrainingArguments)}
    request = Request(recipe, objective, given, values, options, task, stream, others, arguments)
    if request.first.eval_strategy != "no" and not request.evaluated:
        raise ValueError(
            f"--eval_strategy {request.first.eval_strategy.value} needs a labelled set, but --eval_dataset is none. "
            "Name one, or leave --eval_strategy out."
        )
    return request


def out_of_place(given: Mapping[str, Any]) -> set[str]:
    """Options of a recipe that are of its own data alone, by what the command line says."""
    names = set()
    if {"dataset", "images_alone", "texts_alone"} & given.keys():
        names |= {"mixture_weights"}
    if "dataset" in given:
        names |= {"text_column", "other_captions", "caption_weights", "pair_label", "images_alone", "texts_alone"}
        names |= {"license", "language", "limits"}
    if "eval_dataset" in given:
        names |= {"eval_text_column", "eval_label", "prompts"}
    if "other_captions" in given:
        names |= {"caption_weights"}
    if {"encoder", "image_encoder"} & given.keys():  # which bring their own
        names |= {"image_size"}
    return names - given.keys()


def training_arguments(
    seed: int, seeds: list[int], command_line: CommandLine, values: Mapping[str, Any]
) -> TrainingArguments:
    """Those of one seed, with defaults by what the machine has."""
    values, first = dict(values), seed == seeds[0]
    folder = values["output_dir"]
    values |= {"seed": seed, "push_to_hub": values.get("push_to_hub", False) and first}
    values["output_dir"] = folder if first else os.path.join(folder, f"seed-{seed}")
    values.setdefault("use_cpu", not torch.accelerator.is_available())  # or bf16 would be refused on a CPU
    if not {"bf16", "fp16"} & command_line.given.keys():
        values["bf16"] = has_bf16(values.get("use_cpu", False))
    values.setdefault("disable_tqdm", False)  # Trainer takes its default from the verbosity
    values.setdefault("dataloader_num_workers", default_workers(values.get("use_cpu", False)))
    values.setdefault("ddp_find_unused_parameters", False)  # those without a gradient are frozen beforehand
    return command_line.build(TrainingArguments, values=values)


def changed_arguments(request: Request) -> dict:
    """Training arguments that differ from transformers' defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    changed = {
        **{name: request.values[name] for name in request.values if name in defaults},
        "bf16": request.first.bf16,
    }
    return {
        k: v
        for k, v in sorted(changed.items())
        if v != defaults[k] and k not in NOT_SETTINGS and not k.startswith("hub_")
    }


def announcement(experiment: Experiment) -> str:
    """What is about to be trained, in a line."""
    request, data, args = experiment.request, experiment.data, experiment.request.first
    seeds = ", ".join(map(str, request.arguments))
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
    if precision == "fp32" and not {"bf16", "fp16"} & request.given.keys():
        precision = "fp32 (no bf16 instructions here)"
    layout = ", channels_last" if experiment.trial.convolutional else ""
    start = f"from {experiment.blueprint.start}" if experiment.blueprint.start.paths else "from scratch"
    names = " + ".join(relative(source.name) for source in data.sources)
    rows = names if data.endless else f"{len(data):,} {experiment.data_facts['samples']} of {names}"
    encoder = next(iter(experiment.trial.encoder_classes.values()))
    return (
        f"{request.recipe.name}: {request.objective.objective} on {rows}; {encoder} {start}, "
        f"seed{'s' * (len(request.arguments) > 1)} {seeds}; {args.device.type}, {precision}{layout}, processes: "
        f"{args.world_size}"
    )
