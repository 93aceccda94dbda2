"""Inputs and data for a model that is built already: what a recipe does with its options, for use in Python.

model, transformers processor -> Inputs that fit its encoders
model, Inputs, dataset -> rows for the stream: texts alone tokenised once and packed, others as they are
"""

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from ..data.corpus import fingerprint
from ..data.folders import Wanted
from ..data.limits import LIMITS, Limits
from ..data.lines import Reading
from ..data.sources import Source, open_source, usual_splits
from ..encoders import tried
from ..modeling import PretextModel
from ..registry import modality_class
from ..stream.mixture import Mixture
from ..stream.settings import StreamSettings
from ..utils.ranks import on_main_process
from . import Context, Inputs, Modality, modality_classes
from .text import Corpus

PROBED_LENGTH = 128  # tokens; length of the test whether an architecture supports packing
TEXT = "text"


class ForTraining(NamedTuple):
    """What a trainer needs. data: rows for the stream. batch_size: rows of a batch of one process."""

    inputs: Inputs
    data: Source | Mixture
    batch_size: int


def for_training(
    model: PretextModel,
    dataset: Any,
    processing_class: Any,
    columns: Mapping[str, str] | None,
    stream: StreamSettings,
    batch_size: int,
) -> ForTraining:
    """Returns inputs that fit a model, and the rows of a dataset for the stream. An open `Source` or `Mixture` with
    `Inputs` stays as it is: the caller has fitted them.

    dataset: see `open_source`, or an open `Source` or `Mixture`; of splits, "train". columns: see `columns_for`.
    Raises `ValueError` for inputs and data that do not fit the model."""
    opened, inputs = isinstance(dataset, Source | Mixture), inputs_for(model, processing_class, stream.limits)
    if opened and columns:
        raise ValueError("columns has no effect: train_dataset is open already. Give columns to open_source.")
    if opened and is_inputs(processing_class):
        return ForTraining(inputs, dataset, batch_size)
    fit(inputs, model)
    check_takes(model, inputs)
    if not opened:
        dataset = open_rows(model, inputs, dataset, columns, stream, "train_dataset")
    if not isinstance(dataset, Mixture):
        (rows,), batch_size = rows_for(model, inputs, [dataset], batch_size)
        return ForTraining(inputs, rows, batch_size)
    rows, batch_size = rows_for(model, inputs, dataset.sources, batch_size)
    return ForTraining(inputs, Mixture(rows, dataset.weights, dataset.one_source_a_step), batch_size)


def is_inputs(processing_class: Any) -> bool:
    """Returns True for `Inputs` and what has its methods, False for a transformers processor and None."""
    return hasattr(processing_class, "finish")


def inputs_for(model: PretextModel, processing_class: Any, limits: Limits = LIMITS) -> Inputs:
    """Returns the inputs of a model: `Inputs` as they are, a `Modality` alone as `Inputs`, or new ones for a
    transformers processor. These have the default options of a recipe, and fit the encoders.

    processing_class: a processor of one kind of data, or of several; None: of each kind its default (see
    `Modality.default_processor`). Raises `ValueError` for a kind without a processor, for a processor that does not fit
    its encoder, and for a model that was built with other settings than its processors need."""
    if is_inputs(processing_class):
        return Inputs(processing_class) if isinstance(processing_class, Modality) else processing_class
    views = model.views_of(model.task)
    classes = modality_classes(model.inputs, views, model.one_text_a_row)
    fixed = {name: value for name, (value, _) in model.fixed_options.items()}
    made = modalities_for(classes, processing_class, model.readers, fixed, limits, type(model).__name__)
    inputs = Inputs(*made, views=views, pair_label=TEXT if TEXT in classes and len(classes) > 1 else None)
    inputs.combine(model.full_model.config)
    complete(model, inputs.processors)
    return inputs


def modalities_for(
    classes: Mapping[str, type[Modality]],
    processing_class: Any,
    encoders: Mapping[str, PreTrainedModel],
    fixed: Mapping[str, Any],
    limits: Limits,
    taker: str,
) -> list[Modality]:
    """Returns modalities with default options, made of their processors in `processing_class`.

    classes: by kind of data. encoders: the models that read them, by kind. fixed: values of some options. taker: who
    takes them, for errors. Raises `ValueError` like `inputs_for`."""
    processors = {}
    for kind, each in classes.items():
        each.check_packages()
        processor = each.processor_in(processing_class)
        processors[kind] = each.default_processor(encoders.get(kind)) if processor is None else processor
    check_processors(classes, processors, processing_class, encoders, taker)
    made = []
    for kind, each in classes.items():
        encoder = encoders.get(kind)
        context = Context(
            getattr(encoder, "name_or_path", None) or None,
            config=getattr(encoder, "config", None),
            flexible=True,
            limits=limits,
            processor=processors[kind],
            encoder=encoder,
        )
        made.append(each.from_options({type_: with_fixed(type_, fixed) for type_ in each.options}, context))
    return made


def with_fixed(type_: type, fixed: Mapping[str, Any]) -> Any:
    """Returns an option dataclass with its defaults, and those of the values `fixed` that it has."""
    names = {field.name for field in dataclasses.fields(type_)}
    return type_(**{name: value for name, value in fixed.items() if name in names})


def check_processors(
    classes: Mapping[str, type[Modality]],
    processors: Mapping[str, Any],
    processing_class: Any,
    encoders: Mapping[str, PreTrainedModel],
    taker: str,
) -> None:
    """Raises `ValueError` for a kind of data without a processor, and for a `processing_class` of none of the kinds."""
    used = any(each.processor_in(processing_class) is not None for each in classes.values())
    missing = [kind for kind, processor in processors.items() if processor is None]
    if not missing and (used or processing_class is None):
        return
    given = "is missing" if processing_class is None else f"is a {type(processing_class).__name__}"
    kinds = missing or [*classes]
    needs = " and ".join(modality_class(kind).samples for kind in kinds)
    examples = " or ".join(f"processing_class={classes[kind].processor_example}" for kind in kinds)
    reason = ""
    if "image" in missing and (encoder := encoders.get("image")) is not None:
        unknown = "no image processor next to its weights" if encoder.name_or_path else "no image_size in its config"
        reason = f" {type(encoder).__name__} has {unknown}."
        examples = "processing_class=default_processor(224), of hf_pretext.modalities.image, or " + examples
    several = " For several kinds of data, give Inputs(Image(...), Text(...)), of hf_pretext." * (len(classes) > 1)
    raise ValueError(f"processing_class {given}, but {taker} takes {needs}.{reason} Give {examples}.{several}")


def complete(model: PretextModel, processors: Mapping[str, Any]) -> None:
    """Fills in the settings of a model that its processors determine, e.g. the id of the mask token.

    Raises `ValueError` for a setting that its modules were built without: give it to `from_encoder`."""
    task = type(model).complete(model.task, processors)
    names = [field.name for field in dataclasses.fields(task)]
    changed = {name: getattr(task, name) for name in names if getattr(task, name) != getattr(model.task, name)}
    late, assumed = getattr(task, "late", ()), getattr(task, "assumed", {})
    built = {name: value for name, value in changed.items() if name not in late}
    if any(assumed.get(name) != value for name, value in built.items()):
        values = ", ".join(f"{name}={value!r}" for name, value in built.items())
        raise ValueError(
            f"{type(model).__name__} was built without {', '.join(built)}, which its processor determines. Build it "
            f"with them: from_encoder(..., {values})."
        )
    model.task = task


def fit(inputs: Inputs, model: PretextModel) -> None:
    """Adapts inputs to the models that read them. Raises `ValueError` if the two do not fit."""
    for kind, reader in model.readers.items():
        inputs.by_name[kind].fit(reader)


def rows_for(
    model: PretextModel, inputs: Inputs, sources: Sequence[Source], batch_size: int
) -> tuple[list[Source], int]:
    """Returns sources as the stream reads them, and the number of rows in a batch of `batch_size` samples.

    Texts alone are tokenised once, and packed if the model supports it. Else one row is a batch of texts of similar
    lengths. inputs: fitted to the model. Raises `ValueError` for texts that can't be tokenised."""
    texts = inputs.by_name.get(TEXT)
    if isinstance(texts, Corpus) and all("input_ids" in source.columns for source in sources):
        return list(sources), batch_size  # tokenised already
    if isinstance(texts, Corpus):
        packs = model.packs(min(texts.max_length, PROBED_LENGTH))
        return texts.sources(list(sources), packs, batch_size), batch_size if packs else 1
    for source in sources if texts is not None else ():  # so that a resumed run detects a changed tokenizer
        source.rows.files[f"tokenizer {fingerprint(texts.tokenizer)}"] = 0
    return list(sources), batch_size


def columns_for(
    model: PretextModel, inputs: Inputs, columns: Mapping[str, str] | None
) -> tuple[tuple[str | tuple[str, ...], ...], dict[str, str]]:
    """Returns the needed columns and the named ones, as `open_source` takes them. columns: named by the user.

    Raises `ValueError` for a name that is not of a column that the model reads."""
    named = {**model.columns_of(model.task)}
    for modality in inputs.modalities:
        named |= modality.further_columns
    if inputs.pair_label not in (None, TEXT):
        named[inputs.pair_label] = inputs.pair_label
    read = [name for some in inputs.needed for name in ([some] if isinstance(some, str) else some)]
    for name in columns or {}:
        if name not in (*read, *named):
            known = ", ".join(dict.fromkeys([*read, *named]))
            raise ValueError(
                f"columns has {name!r}, but {type(model).__name__} reads {known}. Give names of these, as "
                f"columns={{{read[0]!r}: 'its name in the dataset'}}."
            )
    return (*inputs.needed, *named), {**named, **(columns or {})}


def open_rows(
    model: PretextModel,
    inputs: Inputs,
    dataset: Any,
    columns: Mapping[str, str] | None,
    stream: StreamSettings,
    argument: str,
    held_out: bool = False,
) -> Source:
    """Opens a dataset with the columns that a model reads. Call it on every rank.

    held_out: opens the split "validation", else "test", else all of a dataset without these. argument: that the dataset
    was given as, for errors. Raises `ValueError` like `open_source` and `columns_for`."""
    if dataset is None:
        raise ValueError(f"{argument} is missing. Give a folder, a Hub id, a datasets.Dataset, or a list of rows.")
    needed, named = columns_for(model, inputs, columns)
    dataset = str(dataset) if isinstance(dataset, PathLike) else dataset
    splits = usual_splits(dataset, Wanted(needed, named)) if held_out else {}
    split = splits.get("validation") or splits.get("test") or "train"
    reading = Reading(max_bad_fraction=stream.max_bad_fraction)
    source = open_source(dataset, split, named, needed, reading, share=on_main_process)
    for modality in inputs.modalities:
        modality.check_columns(source)
    return source


def check_takes(model: PretextModel, inputs: Inputs) -> None:
    """Raises `ValueError` if a model does not take inputs of this size. It is tried on noise."""
    with tried(model):
        batch = {name: value.to(model.device) for name, value in inputs.noise()[0].items()}
        try:
            model(**batch)
        except (ValueError, RuntimeError, IndexError, TypeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            sizes = " with ".join(modality.largest() for modality in inputs.modalities)
            raise ValueError(
                f"{sizes} do not fit {type(model.full_model).__name__}: {reason} Give a processing_class of its size."
            ) from error
