"""From options to data: what kinds, how they are read, what is trained on and what it is judged by.

Request -> Inputs and the full model's config -> sources, mixed -> a labelled set
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, TrainingArguments

from ..data.captions import distinct_captions
from ..data.corpus import fingerprint
from ..data.sources import Source, open_source
from ..encoders import encoder_config
from ..evaluation.knn import TEMPERATURE, K
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.zero_shot import ZeroShotArguments
from ..modalities import Context, Inputs, modality_classes
from ..modalities.text import CaptionArguments, TextArguments
from ..modeling import PretextModel
from ..modules.dual_encoder import batch_norms
from ..stream.mixture import Mixture
from ..utils.paths import relative
from .build import Blueprint, Start, by_name

if TYPE_CHECKING:
    from .experiment import Request

PROBED_LENGTH = 128  # tokens that show whether an architecture packs
TEXT = "text"


def plan_inputs(request: "Request") -> tuple[Inputs, PreTrainedConfig, Start, dict]:
    """What a model sees, the full model's config, what it starts from, and what results.json says of that.

    Raises `ValueError` for options that contradict each other or the data."""
    objective, start = request.objective, start_of(request)
    check_kinds_alone(request)
    full = encoder_config(start.encoder) if start.encoder else None
    towers = {kind: encoder_config(path, start.option(kind)) for kind, path in start.towers.items()}

    def context(kind: str) -> Context:
        config = full if full is not None else towers.get(kind)
        texts = partial(texts_to_learn_from, request, start, full)
        flexible = start.of(kind) is not None and "max_length" not in request.given  # a recipe's is for its own encoder
        return Context(start.of(kind), start.option(kind), config, texts, flexible, request.stream.max_image_pixels)

    classes = modality_classes(objective.inputs, objective.views)
    modalities = [each.from_options(request.settings, context(kind)) for kind, each in classes.items()]
    inputs = Inputs(*modalities, views=objective.views, pair_label=label_column(request))
    if full is None:
        full = by_name(request.encoder_function, inputs.shape())
        full = objective.with_encoders(full, towers) if towers else full
    inputs.combine(full)
    return inputs, full, start, facts(request)


def start_of(request: "Request") -> Start:
    """What training starts from, as options say."""
    given = {field: value for options in request.settings.values() for field, value in vars(options).items()}
    towers = {kind: given.get(f"{kind}_encoder") for kind in request.objective.inputs}
    return Start(request.options.encoder, {kind: path for kind, path in towers.items() if path})


def label_column(request: "Request") -> str | None:
    """The canonical column by whose value rows belong together; None for one kind of data."""
    if request.pairs is None:
        return None
    if request.pairs.pair_label is not None:
        return "pair_label"
    return TEXT if TEXT in request.objective.inputs else None


def check_kinds_alone(request: "Request") -> None:
    """Raises `ValueError` for data of one kind where the objective needs all."""
    names = [f"{kind}s_alone" for kind in request.objective.inputs if alone(request, kind)]
    if names and not request.objective.learns_from_one_kind:
        raise ValueError(
            f"--{' and --'.join(names)}: {request.objective.objective} learns from pairs alone. Leave it out."
        )


def alone(request: "Request", kind: str) -> list[str]:
    """The datasets of which only one kind of data is used."""
    return (vars(request.pairs).get(f"{kind}s_alone") if request.pairs else None) or []


def asked_columns(request: "Request", prefix: str = "") -> dict[str, str | None]:
    """The columns of each kind, by canonical name, as options name them; None where they are to be detected.

    prefix: "eval_" for those of the labelled set."""
    given = {field: value for options in request.settings.values() for field, value in vars(options).items()}
    return {kind: given.get(f"{prefix}{kind}_column") for kind in request.objective.inputs}


def further_columns(request: "Request") -> dict[str, str]:
    """Columns besides those of the kinds, by canonical name: further captions, and the label of pairs."""
    captions = request.settings.get(CaptionArguments)
    others = captions.columns if captions else {}
    label = request.pairs.pair_label if request.pairs else None
    return {**others, **({} if label is None else {"pair_label": label})}


# what a tokenizer is trained on


def texts_to_learn_from(request: "Request", start: Start, full: PreTrainedConfig | None) -> Source:
    """The texts of the first dataset; of several kinds of data, the distinct captions of all of it.

    full: the config of --encoder. Raises `ValueError`, before any text is read, where the objective can't take it."""
    if full is not None:
        with start.named_in_errors():
            request.objective.native(full)
    split, texts = request.options.split, request.settings[TextArguments]
    column = {TEXT: asked_columns(request)[TEXT]}
    if len(request.objective.inputs) == 1:
        return open_source(request.datasets[0], split, column, (TEXT,), texts.sample_by)
    captions = {**column, **{k: v for k, v in further_columns(request).items() if k != "pair_label"}}
    sources = [
        (open_source(dataset, split, captions, tuple(captions)), tuple(captions)) for dataset in request.datasets
    ]
    sources += [(source, (TEXT,)) for source in sources_alone(request, TEXT)]
    return distinct_captions(sources)


# what is trained on


def open_data(
    request: "Request", inputs: Inputs, blueprint: Blueprint
) -> tuple[Mixture, dict[int, TrainingArguments], dict]:
    """What is trained on, training arguments as that data wants them, and what results.json says of it.

    Raises `ValueError` for data that does not fit the options or the model."""
    model, _ = blueprint.fresh(request.first.seed)
    for kind, encoder in model.encoders.items():
        inputs.by_name[kind].fit(encoder)
    say_batch_norm(request, model)
    if set(inputs.by_name) == {TEXT} and not inputs.views:
        return open_corpus(request, inputs, model)
    sources = [open_rows(request, inputs, dataset) for dataset in request.datasets]
    others = [source for kind in request.objective.inputs for source in sources_alone(request, kind)]
    if TEXT in inputs.by_name:
        for source in (*sources, *others):  # a resumed run detects a changed tokenizer
            source.rows.files[f"tokenizer {fingerprint(inputs.by_name[TEXT].tokenizer)}"] = 0
    data = Mixture([*sources, *others], request.options.mixture_weights, one_source_a_step=bool(others))
    arguments = dict(request.arguments)
    if others:  # then a step has no use for some parameters
        arguments = {
            seed: dataclasses.replace(args, ddp_find_unused_parameters=True) for seed, args in arguments.items()
        }
    samples = "samples" if others else inputs.samples
    return data, arguments, {"samples": samples, **inputs.facts()}


def open_rows(request: "Request", inputs: Inputs, dataset: str) -> Source:
    """One dataset of rows. Raises `ValueError` for a column of further captions that holds none."""
    columns = {**asked_columns(request), **further_columns(request)}
    source = open_source(dataset, request.options.split, columns, (*inputs.needed, *further_columns(request)))
    for modality in inputs.modalities:
        modality.check_columns(source)
    return source


def sources_alone(request: "Request", kind: str) -> list[Source]:
    """The datasets of which only one kind of data is used."""
    texts = request.settings.get(TextArguments)
    options = {"split": request.options.split, "columns": {kind: None}, "needed": (kind,)}
    sample_by = texts.sample_by if texts else None
    return [open_source(dataset, **options, sample_by=sample_by) for dataset in alone(request, kind)]


def open_corpus(
    request: "Request", inputs: Inputs, model: PretextModel
) -> tuple[Mixture, dict[int, TrainingArguments], dict]:
    """Texts alone: tokenised once, packed where the model keeps documents apart, else in batches of like length."""
    corpus, split, texts = inputs.by_name[TEXT], request.options.split, request.settings[TextArguments]
    sources = [
        open_source(dataset, split, asked_columns(request), (TEXT,), texts.sample_by) for dataset in request.datasets
    ]
    packs = model.packs(min(corpus.max_length, PROBED_LENGTH))
    rows = corpus.sources(sources, packs, request.first.per_device_train_batch_size)
    arguments = dict(request.arguments)
    if not packs:  # each row is a full batch
        arguments = {seed: dataclasses.replace(a, per_device_train_batch_size=1) for seed, a in arguments.items()}
    return Mixture(rows, request.options.mixture_weights), arguments, {"samples": corpus.samples, **inputs.facts()}


def say_batch_norm(request: "Request", model: PretextModel) -> None:
    """Says where batch norm normalises pieces of a batch."""
    piece, frozen = getattr(request.task, "embed_batch_size", None), getattr(request.task, "frozen", None)
    trained = [encoder for kind, encoder in model.encoders.items() if kind != frozen]
    if piece and piece < request.first.per_device_train_batch_size and any(map(batch_norms, trained)):
        request.say(f"--embed_batch_size {piece}: batch norm normalises each piece of {piece} separately.")


# what it is judged by


def open_labelled(request: "Request", inputs: Inputs) -> LabelledSet:
    """The labelled set of --eval_dataset. Raises `ValueError` as `LabelledSet` does."""
    options = request.options
    return LabelledSet(
        options.eval_dataset,
        inputs,
        options.eval_label,
        asked_columns(request, "eval_"),
        workers=request.first.dataloader_num_workers,
        limit=options.eval_rows,
    )


def facts(request: "Request") -> dict[str, Any]:
    """What results.json says of inputs before the data is opened."""
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
        **({"captions": dataclasses.asdict(captions)} if captions else {}),
        "pair_label": request.pairs.pair_label,
    }
