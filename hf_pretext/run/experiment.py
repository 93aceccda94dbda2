"""Plans a run: reads and checks all options before training starts and before any file is written.

recipe + values of options -> ask -> Request -> plan -> Experiment -> train -> evaluate -> publish
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig, TrainingArguments

from .. import registry
from ..cards.licenses import check_language, check_license
from ..data.hold_out import HeldOut
from ..data.lines import Reading
from ..evaluation.fine_tune import KIND, FineTuning
from ..evaluation.health import LOWER_IS_BETTER
from ..evaluation.health_rows import HealthRows
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.localization import LocalizationArguments
from ..evaluation.transfer import Method, methods_of
from ..modalities import Inputs, PairArguments
from ..modalities.text import TextArguments
from ..modeling import PretextModel
from ..stream.mixture import Mixture
from ..stream.settings import StreamSettings
from ..stream.state import check_length
from ..trainer import check_fixed
from ..utils.libraries import check_libraries
from ..utils.machine import default_workers, has_bf16
from ..utils.options import refuse_options
from ..utils.paths import relative, without_paths
from .audit import audit_of
from .build import Blueprint
from .checks import Trial, check_evaluation, check_finished, check_output, check_start, kinds_alone, try_out
from .command_line import CommandLine
from .health import health_rows
from .inputs import LabelledSets, check_kind_labels, open_data, open_labelled, plan_inputs
from .question import may_ask, with_question
from .settings import NO_DATASET, RunArguments, training_index
from .trackers import LoggedArguments, Trackers, named_run

if TYPE_CHECKING:
    from ..recipe import Recipe

NOT_SETTINGS = ("output_dir", "seed", "resume_from_checkpoint", "disable_tqdm", "use_cpu", "push_to_hub")
INDIFFERENT = (  # do not change the training, except its length
    "logging_", "save_", "eval_", "dataloader_", "report_to", "max_steps", "num_train_epochs", "run_name", "project",
    "trackio_",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """Options of a run, in their dataclasses.

    given: options from the command line only. values: options from the recipe, --smoke and the command line. task:
    settings of the objective. settings: the other dataclasses (data, measures, ...), by class. arguments:
    `TrainingArguments` by seed. trackers: of --report_to."""

    recipe: "Recipe"
    objective: type[PretextModel]
    given: Mapping[str, Any]
    values: Mapping[str, Any]
    options: RunArguments
    task: Any
    stream: StreamSettings
    settings: Mapping[type, Any]
    arguments: Mapping[int, TrainingArguments]
    trackers: Trackers = field(default_factory=Trackers)

    @property
    def first(self) -> TrainingArguments:
        """The training arguments of the first seed."""
        return next(iter(self.arguments.values()))

    @property
    def evaluated(self) -> bool:
        """True if --eval_dataset names a labelled set."""
        return self.options.eval_dataset not in (None, NO_DATASET)

    @property
    def pairs(self) -> PairArguments | None:
        """Options for several kinds of data; None for one kind."""
        return self.settings.get(PairArguments)

    @property
    def encoder_function(self) -> Callable[..., PreTrainedConfig]:
        """The recipe's function that returns the config of a fresh encoder."""
        return self.recipe.smoke_encoder if self.options.smoke else self.recipe.encoder

    @property
    def reading(self) -> Reading:
        """How data files are read. Raises `ValueError` for an unknown encoding, or a separator of several letters."""
        texts, options = self.settings.get(TextArguments), self.options
        sample_by = texts.sample_by if texts else None
        return Reading(sample_by, options.encoding, options.separator, self.stream.max_bad_fraction)

    @property
    def main_process(self) -> bool:
        """True on the process with rank 0."""
        return self.first.process_index == 0

    @property
    def datasets(self) -> list[str]:
        """The datasets of --dataset. Raises `ValueError` if there are none."""
        if not self.options.dataset:
            raise ValueError("--dataset is missing. Give a folder, files or a Hub id.")
        return self.options.dataset

    def say(self, text: str) -> None:
        """Prints a text on the main process."""
        if self.main_process:
            print(text, flush=True)


@dataclass(frozen=True)
class Experiment:
    """A checked run: its options, models, data and labelled set.

    sets: the labelled sets. data_facts: entries of results.json about the data. trial: facts about the model. held_out:
    rows of the training data that are held out; `[]` with a labelled set. left_out: True if training leaves out rows of
    the labelled set."""

    request: Request
    blueprint: Blueprint
    inputs: Inputs
    data: Mixture
    sets: LabelledSets
    data_facts: Mapping[str, Any]
    trial: Trial
    held_out: Sequence[HeldOut] = ()
    left_out: bool = False

    def sees(self, split: str) -> bool:
        """Returns True if training sees rows of a split of the labelled set, without their labels."""
        of_training = training_index(self.request.options) is not None
        return of_training and split in self.labelled.cut_from_train and not self.left_out

    @cached_property
    def health_rows(self) -> HealthRows:
        """The rows on which models are measured without labels, read on first use. Raises `ValueError` if none can be
        read."""
        return health_rows(self)

    @property
    def labelled(self) -> LabelledSet | None:
        """The set of --eval_dataset."""
        return self.sets.labelled

    def as_fast_layout(self, module: torch.nn.Module) -> torch.nn.Module:
        """Converts a convolutional model to channels-last, which is faster on CPUs and GPUs. Returns the model."""
        return module.to(memory_format=torch.channels_last) if self.trial.convolutional else module

    def noise(self) -> list[dict[str, torch.Tensor]]:
        """Returns random batches of the largest size, one for each kind of batch in the training data."""
        return self.inputs.noise(kinds_alone(self.request))

    def panel_models(self) -> dict[str, PretextModel]:
        """Returns the trained and the random model of the first seed, by "trained" and "random"."""
        args, blueprint = self.request.first, self.blueprint
        models = {"trained": blueprint.trained(args.output_dir), "random": blueprint.random(args.seed)}
        return {who: self.as_fast_layout(model) for who, model in models.items()}

    def methods(self, kind: str) -> dict[str, Method]:
        """Returns the methods of transfer (kNN, linear probes) for an encoder of this kind, by name."""
        fractions = self.request.options.eval_fractions
        return methods_of(fractions or self.inputs.by_name[kind].fractions)

    def feature_dtype(self, kind: str) -> torch.dtype | None:
        """Returns the autocast dtype for extracting features of one kind; None for float32."""
        in_bf16 = self.inputs.by_name[kind].features_in_bf16 and self.request.first.bf16
        return torch.bfloat16 if in_bf16 else None

    def fine_tuning(self, kind: str) -> FineTuning | None:
        """Returns the settings of fine-tuning an encoder of this kind; None for no fine-tuning, or if the kind is not
        images."""
        epochs = self.request.options.fine_tune
        return FineTuning(epochs, bf16=self.request.first.bf16) if epochs and kind == KIND else None

    def identity(self, seed: int) -> dict:
        """Returns all values that change the result of a run, except its length, as JSON types."""
        changed = {**changed_arguments(self.request), "seed": seed, **dataclasses.asdict(self.blueprint.task)}
        sources = self.data.fingerprint()
        data = [{**source, "name": os.path.basename(source["name"])} for source in sources]  # the data may move
        changed |= {**self.data_facts, "encoder": without_paths(self.blueprint.config.to_diff_dict()), "data": data}
        changed = {name: value for name, value in changed.items() if not name.startswith(INDIFFERENT)}
        return json.loads(json.dumps(changed, default=str))


def plan(request: Request) -> Experiment:
    """Checks all options together and builds the experiment. Raises `ValueError` with the value and the fix."""
    check_output(request)
    inputs, config, start, facts = plan_inputs(request)
    task = request.objective.complete(request.task, inputs.processors)
    blueprint = Blueprint(request.objective, task, config, start)
    check_start(request, blueprint)
    request, cut = with_question(request, inputs)
    check_evaluation(request)
    data, arguments, more, held = open_data(request, inputs, blueprint, cut)
    request = dataclasses.replace(request, task=task, arguments=arguments)
    keyed = request.objective.needs_keys_of(task)
    check_length(data, request.first.max_steps, request.objective.objective if keyed else None)
    trial = try_out(request, blueprint, inputs, len(data) if keyed else None)
    check_kind_labels(request, trial.encoder_classes)
    sets = open_labelled(request, inputs)
    left_out = cut is not None and bool(cut.places)
    experiment = Experiment(request, blueprint, inputs, data, sets, {**facts, **more}, trial, held, left_out)
    check_finished(experiment)
    if request.options.audit:
        audit_of(experiment)  # its columns are read before training
    return experiment


def ask(
    recipe: "Recipe", objective: type[PretextModel], command_line: CommandLine, values: Mapping[str, Any]
) -> Request:
    """Parses all options and returns a `Request`. Recipe defaults that belong to the recipe's own data are dropped if
    the command line replaces that data (see `out_of_place`).

    Raises `ValueError` for wrong values."""
    given, values = command_line.given, dict(values)
    for name in out_of_place(given):
        values.pop(name, None)
    build = partial(command_line.build, values=values)
    options: RunArguments = build(RunArguments)
    if "seed" in given and "seeds" not in given:
        options.seeds = [given["seed"]]
    if len(set(options.seeds)) < len(options.seeds) or not options.seeds:
        raise ValueError(f"--seeds are {options.seeds}, but they must be different numbers. Give each seed once.")
    check_license(options.license)
    check_language(options.language)
    arguments = {seed: training_arguments(seed, options.seeds, command_line, values) for seed in options.seeds}
    refuse_options(arguments[options.seeds[0]], given)
    check_fixed(objective, values)
    check_libraries(arguments[options.seeds[0]])
    task, stream = build(objective.task_class), build(StreamSettings)
    others = {type_: build(type_) for type_ in command_line.types if type_ not in (RunArguments, TrainingArguments)}
    request = Request(recipe, objective, given, values, options, task, stream, others, arguments)
    if not may_ask(request):
        check_evaluation(request)
    return request


def out_of_place(given: Mapping[str, Any]) -> set[str]:
    """Returns the recipe options that do not apply, because the command line replaces the data they belong to.

    given: options from the command line."""
    names = set()
    kinds_alone = {"images_alone", "videos_alone", "texts_alone"}
    if {"dataset", *kinds_alone} & given.keys():
        names |= {"mixture_weights"}
    if "dataset" in given:
        names |= {"text_column", "other_captions", "caption_weights", "caption_languages", "pair_label"}
        names |= {*kinds_alone}
        names |= {"license", "language", "limits", "image_white"}
    if {"dataset", "eval_dataset"} & given.keys():  # other data has its own question
        names |= {"eval_dataset", "eval_text_column", "eval_label", "audit_nuisance", "audit_same"}
        names |= {"prompts", "heldout_dataset", "report_dataset", "order_classes"}
        names |= {f"eval_{kind}_label" for kind in registry.names("modalities")}
        names |= {field.name for field in dataclasses.fields(LocalizationArguments)}
    if "localization_dataset" in given:
        names |= {f"localization_{column}_column" for column in ("video", "text", "start", "end")}
    if "eval_label" in given:  # another label, which the recipe's other sets may lack, or a nuisance of the recipe
        names |= {"heldout_dataset", "report_dataset", "order_classes", "audit_nuisance"}
    if "other_captions" in given:
        names |= {"caption_weights", "caption_languages"}
    if "num_train_epochs" in given:
        names |= {"max_steps"}
    if {"seconds", "fps"} & given.keys():  # of clips
        names |= {"full_video"}
    if {"encoder", "image_encoder"} & given.keys():  # the encoder's image size applies
        names |= {"image_size"}
    if {"encoder", "audio_encoder"} & given.keys():
        names |= {"num_mel_bins"}
    if {"encoder", "video_encoder"} & given.keys():
        names |= {"video_size"}
    return names - given.keys()


def training_arguments(
    seed: int, seeds: list[int], command_line: CommandLine, values: Mapping[str, Any]
) -> TrainingArguments:
    """Returns the `TrainingArguments` of one seed, with defaults that depend on the machine.

    The first seed writes to the output folder, and the others to its sub-folders `seed-<n>`."""
    values, first = dict(values), seed == seeds[0]
    folder = values["output_dir"]
    values |= {"seed": seed, "push_to_hub": values.get("push_to_hub", False) and first}
    values["output_dir"] = folder if first else os.path.join(folder, f"seed-{seed}")
    values.setdefault("use_cpu", not torch.accelerator.is_available())  # bf16 on a CPU is an error without it
    if not {"bf16", "fp16"} & values.keys():
        values["bf16"] = has_bf16(values.get("use_cpu", False))
    values.setdefault("disable_tqdm", False)  # Trainer's default depends on the log level
    values.setdefault("dataloader_num_workers", default_workers(values.get("use_cpu", False)))
    values.setdefault("ddp_find_unused_parameters", False)  # unused ones are frozen before training
    metric = values.get("metric_for_best_model") or ""
    if any(part in metric for part in LOWER_IS_BETTER):  # Trainer knows only names that end with "loss"
        values.setdefault("greater_is_better", False)
    values |= named_run(values, folder, seed, seeds)
    args = command_line.build(LoggedArguments, values=values)
    if args.n_gpu > 1:
        args._n_gpu = 1  # else Trainer wraps the model in DataParallel, which `refuse_options` refuses
    return args


def changed_arguments(request: Request) -> dict:
    """Returns the training arguments that differ from transformers' defaults, sorted by name."""
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    changed = {
        **{name: request.values[name] for name in request.values if name in defaults},
        "bf16": request.first.bf16,
    }
    return {
        k: relative(v)
        for k, v in sorted(changed.items())
        if v != defaults[k] and k not in NOT_SETTINGS and not k.startswith("hub_")
    }


def announcement(experiment: Experiment) -> str:
    """Returns one line about the data, encoder, seeds and hardware of the run."""
    request, data, args = experiment.request, experiment.data, experiment.request.first
    seeds = ", ".join(map(str, request.arguments))
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
    if precision == "fp32" and not has_bf16(args.use_cpu):
        precision = "fp32 (bf16 is slow here)"
    layout = ", channels_last" if experiment.trial.convolutional else ""
    start = f"from {experiment.blueprint.start}" if experiment.blueprint.start.paths else "from scratch"
    names = " + ".join(relative(source.name) for source in data.sources)
    rows = names if data.endless else f"{len(data):,} {experiment.data_facts['samples']} of {names}"
    encoder = next(iter(experiment.trial.encoder_classes.values()))
    gpus = torch.accelerator.device_count() if args.device.type != "cpu" and args.world_size == 1 else 1
    others = f". Uses 1 of {gpus} GPUs; for all, start it with accelerate launch --num_processes {gpus}" * (gpus > 1)
    return (
        f"{request.recipe.name}: {request.objective.objective} on {rows}; {encoder} {start}, "
        f"seed{'s' * (len(request.arguments) > 1)} {seeds}; {args.device.type}, {precision}{layout}, processes: "
        f"{args.world_size}{others}"
    )
