"""Opens the data of a run from its options: inputs of the model, training data and labelled set.

Request -> Inputs and config of the full model -> sources, mixed -> a labelled set
"""

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import PreTrainedConfig, TrainingArguments

from .. import registry
from ..data.captions import distinct_captions
from ..data.columns import TIMES
from ..data.hold_out import Cut, HeldOut
from ..data.sources import Source, open_source
from ..encoders import encoder_config
from ..evaluation.fine_tune import check_in_memory
from ..evaluation.frame_order import chosen_classes
from ..evaluation.held_out import held_out_by
from ..evaluation.knn import TEMPERATURE, K
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.localization import LocalizationArguments
from ..evaluation.measure import fitting
from ..evaluation.timed_films import TimedFilms
from ..evaluation.zero_shot import ZeroShotArguments
from ..modalities import Context, Inputs, Modality, columns_to_read, modality_classes
from ..modalities._for_model import TEXT, fit, rows_for
from ..modalities.text import CaptionArguments
from ..modules.dual_encoder import batch_norm_note
from ..stream.mixture import Mixture
from ..utils.paths import relative
from ..utils.ranks import on_main_process
from .build import Blueprint, Start, by_name
from .health import held_out
from .settings import same_data

if TYPE_CHECKING:
    from .experiment import Request


def plan_inputs(request: "Request") -> tuple[Inputs, PreTrainedConfig, Start, dict]:
    """Returns the inputs, the config of the full model, the pretrained encoders, and entries for results.json.

    Raises `ValueError` for options that contradict each other or the data."""
    objective, start, views = request.objective, start_of(request), request.objective.views_of(request.task)
    check_kinds_alone(request)
    full = encoder_config(start.encoder, auto_class=objective.auto_class) if start.encoder else None
    towers = {kind: encoder_config(path, start.option(kind)) for kind, path in start.towers.items()}

    def context(kind: str) -> Context:
        config = full if full is not None else towers.get(kind)
        texts = partial(texts_to_learn_from, request, start, full)
        # a recipe's max_length fits only its own encoder
        flexible = start.of(kind) is not None and "max_length" not in request.given
        return Context(start.of(kind), start.option(kind), config, texts, flexible, request.stream.limits)

    classes = modality_classes(objective.inputs, views, objective.one_text_a_row)
    for each in classes.values():
        each.check_packages()
    modalities = [each.from_options(request.settings, context(kind)) for kind, each in classes.items()]
    check_same_seconds(modalities)
    inputs = Inputs(*modalities, views=views, pair_label=label_column(request))
    if full is None:
        full = by_name(request.encoder_function, inputs.shape())
        full = objective.with_encoders(full, towers) if towers else full
    inputs.combine(full)
    return inputs, full, start, facts(request)


def check_same_seconds(modalities: Collection[Modality]) -> None:
    """Raises `ValueError` for full videos next to clips of sounds."""
    if len({modality.part.seconds for modality in modalities if modality.timed}) > 1:
        raise ValueError("Sounds and frames must be of the same seconds. Give --seconds, and no --full_video.")


def start_of(request: "Request") -> Start:
    """Returns the pretrained encoders that the options name."""
    given = {field: value for options in request.settings.values() for field, value in vars(options).items()}
    towers = {kind: given.get(f"{kind}_encoder") for kind in request.objective.inputs}
    return Start(request.options.encoder, {kind: path for kind, path in towers.items() if path})


def label_column(request: "Request") -> str | None:
    """Returns the canonical column whose equal values mark positive pairs; None for one kind of data."""
    if request.pairs is None:
        return None
    if request.pairs.pair_label is not None:
        return "pair_label"
    return TEXT if TEXT in request.objective.inputs else None


def check_kinds_alone(request: "Request") -> None:
    """Raises `ValueError` for data of one kind if the objective needs all kinds in each batch or does not take it."""
    for kind in set(registry.names("modalities")) - {*request.objective.inputs}:
        if alone(request, kind):
            raise ValueError(
                f"--{kind}s_alone: {request.objective.objective} takes {' and '.join(request.objective.inputs)}, no "
                f"{kind}. Leave it out."
            )
    names = [f"{kind}s_alone" for kind in request.objective.inputs if alone(request, kind)]
    if names and not request.objective.learns_from_one_kind:
        raise ValueError(
            f"--{' and --'.join(names)}: {request.objective.objective} can learn only from pairs. Leave it out."
        )


def alone(request: "Request", kind: str) -> list[str]:
    """Returns the names of the datasets from --images_alone, --videos_alone or --texts_alone, by kind."""
    return (vars(request.pairs).get(f"{kind}s_alone") if request.pairs else None) or []


def asked_columns(request: "Request", prefix: str = "") -> dict[str, str | None]:
    """Returns `{kind: column}` from `--<kind>_column`; None for columns that are detected.

    prefix: "eval_" for the columns of the labelled set."""
    given = {field: value for options in request.settings.values() for field, value in vars(options).items()}
    return {kind: given.get(f"{prefix}{kind}_column") for kind in request.objective.inputs}


def eval_columns(request: "Request", dataset: str) -> dict[str, str | None]:
    """Returns `{kind: column}` of a labelled set. Where it is the training data, its columns are those of training, if
    no other is given."""
    columns, training = asked_columns(request, "eval_"), asked_columns(request)
    if not any(same_data(dataset, other) for other in request.options.dataset):
        return columns
    return {kind: column or training[kind] for kind, column in columns.items()}


def kind_labels(request: "Request") -> dict[str, str]:
    """Returns `{kind: column}` from `--eval_<kind>_label`: labels by which the encoder of one kind is measured."""
    given = {field: value for options in request.settings.values() for field, value in vars(options).items()}
    labels = {kind: given.get(f"eval_{kind}_label") for kind in request.objective.inputs}
    return {kind: column for kind, column in labels.items() if column is not None}


def check_kind_labels(request: "Request", kinds: Collection[str]) -> None:
    """Raises `ValueError` for `--eval_<kind>_label` of a kind without an encoder. kinds: of the model's encoders."""
    for kind, column in kind_labels(request).items():
        if kind not in kinds:
            raise ValueError(
                f"--eval_{kind}_label {column}: {request.objective.objective} has no encoder of {kind} to measure. "
                "Leave it out."
            )


def further_columns(request: "Request") -> dict[str, str]:
    """Returns additional columns by canonical name: further captions, the label of pairs, and what the objective needs
    with its settings."""
    captions = request.settings.get(CaptionArguments)
    others = captions.columns if captions else {}
    label = request.pairs.pair_label if request.pairs else None
    of_task = request.objective.columns_of(request.task)
    return {**others, **of_task, **({} if label is None else {"pair_label": label})}


# training data of the tokenizer


def texts_to_learn_from(request: "Request", start: Start, full: PreTrainedConfig | None) -> Source:
    """Returns the texts to train a tokenizer on: the first dataset, or for pairs, the distinct captions of all data.

    full: config of --encoder. Raises `ValueError`, before reading texts, if it does not fit the objective."""
    if full is not None:
        with start.named_in_errors():
            request.objective.native(full)
    split, reading = request.options.split, request.reading
    column = {TEXT: asked_columns(request)[TEXT]}
    if len(request.objective.inputs) == 1:
        return open_source(request.datasets[0], split, column, (TEXT,), reading)
    others = {k: v for k, v in further_columns(request).items() if k != "pair_label"}
    read = columns_to_read(modality_classes(request.objective.inputs).values())
    needed, further = (read[TEXT], *others), tuple(read.values())  # of the same files
    sources = [
        open_source(dataset, split, {**column, **others}, needed, reading, further=further)
        for dataset in request.datasets
    ]
    sources += sources_alone(request, TEXT)
    drawn = request.settings.get(CaptionArguments)
    pairs = [(source, [each for each in source.columns if each not in TIMES]) for source in sources]
    return distinct_captions(pairs, (drawn and drawn.caption_languages) or ())


# training data


def open_data(
    request: "Request", inputs: Inputs, blueprint: Blueprint, cut: Cut | None = None
) -> tuple[Mixture, dict[int, TrainingArguments], dict, list[HeldOut]]:
    """Returns the training data, `TrainingArguments` by seed for this data, entries for results.json, and the rows that
    are held out (see `held_out`). cut: rows of the labelled set, which are left out of training.

    Raises `ValueError` for data that does not fit the options or the model."""
    model, _ = blueprint.fresh(request.first.seed)
    fit(inputs, model)
    batch_size = request.first.per_device_train_batch_size
    if note := batch_norm_note(model, batch_size):
        request.say(note)
    sources, held = held_out(request, [open_rows(request, inputs, dataset) for dataset in request.datasets], cut)
    others = [
        source for kind in request.objective.inputs for source in sources_alone(request, kind, share=on_main_process)
    ]
    rows, rows_a_batch = rows_for(model, inputs, [*sources, *others], batch_size)
    data = Mixture(rows, request.options.mixture_weights, one_source_a_step=bool(others))
    changed: dict[str, Any] = {}
    if rows_a_batch != batch_size:
        changed["per_device_train_batch_size"] = rows_a_batch
    if others:  # a batch of one kind leaves some parameters unused
        changed["ddp_find_unused_parameters"] = True
    arguments = dict(request.arguments)
    if changed:
        arguments = {seed: dataclasses.replace(args, **changed) for seed, args in arguments.items()}
    samples = "samples" if others else inputs.samples
    return data, arguments, {"samples": samples, **inputs.facts()}, held


def open_rows(request: "Request", inputs: Inputs, dataset: str) -> Source:
    """Opens one dataset. Raises `ValueError` for a column of further captions without captions."""
    columns = {**asked_columns(request), **further_columns(request)}
    needed = (*inputs.needed, *further_columns(request))
    source = open_source(dataset, request.options.split, columns, needed, request.reading, share=on_main_process)
    for modality in inputs.modalities:
        modality.check_columns(source)
    return source


def sources_alone(request: "Request", kind: str, **further) -> list[Source]:
    """Opens the datasets of which only one kind of data is used. further: arguments of `open_source`."""
    column = columns_to_read(modality_classes(request.objective.inputs).values())[kind]
    options = {"split": request.options.split, "columns": {kind: None}, "needed": (column,), "reading": request.reading}
    return [open_source(dataset, **options, **further) for dataset in alone(request, kind)]


# labelled sets


class LabelledSets(NamedTuple):
    """The sets of --eval_dataset and --heldout_dataset, and the one whose examples the report shows. None without one,
    and on all processes but the main one."""

    labelled: LabelledSet | None = None
    heldout: LabelledSet | None = None
    shown: LabelledSet | None = None


def open_labelled(request: "Request", inputs: Inputs) -> LabelledSets:
    """Opens the labelled sets of a run. Raises `ValueError` like `LabelledSet`, for a set that --fine_tune can't use,
    for options of a measure that do not fit it, and like `held_out_by`."""
    if not (request.evaluated and request.main_process):
        return LabelledSets()
    options, heldout = request.options, None
    timed = timed_films(request, inputs)
    labelled = labelled_set(request, inputs, options.eval_dataset, kind_labels(request))
    labelled.timed = timed
    if options.fine_tune:
        check_in_memory(labelled)
    for measure in fitting(request.objective):
        if measure.check is not None:
            measure.check(labelled, request.settings)
    if request.pairs is not None and request.pairs.heldout_dataset:
        heldout = labelled_set(request, inputs, request.pairs.heldout_dataset)
        held_out_by(heldout, labelled)
    shown = labelled_set(request, inputs, options.report_dataset) if options.report_dataset else labelled
    return LabelledSets(labelled, heldout, shown)


def timed_films(request: "Request", inputs: Inputs) -> TimedFilms | None:
    """Opens the films of --localization_dataset; None without one. Raises `ValueError` like `TimedFilms`."""
    settings = request.settings.get(LocalizationArguments)
    if settings is None or settings.localization_dataset is None:
        return None
    return TimedFilms(
        settings.localization_dataset,
        inputs,
        settings.columns,
        settings.localization_seconds,
        settings.localization_step,
        workers=request.first.dataloader_num_workers,
        reading=dataclasses.replace(request.reading, sample_by=None),
    )


def labelled_set(
    request: "Request", inputs: Inputs, dataset: str, labels: Mapping[str, str] | None = None
) -> LabelledSet:
    """Opens a labelled set with the options of --eval_dataset. labels: of one kind each, see `kind_labels`."""
    options = request.options
    return LabelledSet(
        dataset,
        inputs,
        options.eval_label,
        eval_columns(request, dataset),
        workers=request.first.dataloader_num_workers,
        limit=options.eval_rows,
        reading=dataclasses.replace(request.reading, sample_by=None),
        kind_labels=labels,
    )


def facts(request: "Request") -> dict[str, Any]:
    """Returns entries for results.json about the inputs, from the options."""
    common: dict[str, Any] = {"knn": {"k": K, "temperature": TEMPERATURE}}
    if request.pairs is None:
        return common
    zero_shot = request.settings.get(ZeroShotArguments)
    captions = request.settings.get(CaptionArguments)
    kinds_alone = {f"{kind}s": relative(alone(request, kind)) or None for kind in request.objective.inputs}
    return {
        **common,
        **({"alone": kinds_alone} if any(kinds_alone.values()) else {}),
        **({"eval_prompts": zero_shot.templates} if zero_shot else {}),
        **({"eval_order_classes": classes} if (classes := chosen_classes(request.settings)) else {}),
        **({"captions": dataclasses.asdict(captions)} if captions else {}),
        "pair_label": request.pairs.pair_label,
    }
