"""Evaluation of any encoder on a labelled set, compared with random encoders of the same architecture.

folder or user/name + labelled set -> {"transfer": ...}, as in results.json
"""

import copy
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import CONFIG_NAME

from .. import registry
from ..data.lines import Reading
from ..encoders import WEIGHTS, build_encoder, takes_kind
from ..modalities import Inputs, Modality, modality_classes
from ..modalities._saved_clips import saved_clips
from ..modalities._saved_pooling import POOLING, saved_pooling
from ..modeling import PretextModel, load
from ..utils.finite import listed, not_finite
from ..utils.foreign import check_folder, refuse_custom_code
from ..utils.hub import brought
from .baselines import baseline_transfer
from .comparison import compare, described, random_transfer, trained_transfer, with_gray
from .fine_tune import FineTuning, check_fine_tuning, check_in_memory
from .labelled_set import LabelledSet
from .transfer import chosen_together, methods_of

SEEDS = (0, 1, 2)  # of random encoders
PROCESSORS = ("*processor_config.json", "tokenizer_config.json")
SLACK = 10**8  # parameters that a folder may lack: poolers and heads
FOREIGN = "not of hf_pretext"  # name of the objective of other encoders
REASON = 400  # maximum length of an error that is quoted, in characters
LOADED = ("*.json", "*.safetensors", "*.txt", "*.model")  # files of a repository to download: no pickles


class Subject(NamedTuple):
    """An encoder to evaluate. kind: its kind of data. objective: name of the objective. modality: how its inputs are
    made. pooling: of texts."""

    encoder: PreTrainedModel
    kind: str
    objective: str
    modality: Modality
    pooling: str


def evaluate(
    source: str | os.PathLike | PreTrainedModel,
    dataset: Any,
    label: str | None = None,
    column: str | None = None,
    rows: int | None = None,
    image_size: int | None = None,
    image_white: int | None = None,
    revision: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    device: torch.device | str | None = None,
    fine_tune: int = 0,
    processing_class: Any = None,
) -> dict:
    """Measures linear probes and kNN of a frozen encoder, and of three random encoders of the same architecture. Layer
    and strength of the probe are chosen on validation for both. `fine_tune` also measures fine-tuned copies of them.

    source: folder or Hub id of a hf_pretext checkpoint (its first encoder is measured), the folder of one of its
    encoders, or any encoder of one kind of data. Clips are as in training, if its processor says so; texts are pooled
    as a folder of sentence-transformers says. Or a model: a `PretextModel`, or an encoder of transformers.
    processing_class: of a model, its transformers processor, or the `Inputs` of its training; None for the default one
    of images. dataset: the labelled set, a folder, files, a Hub id, the name of a bundled data set, or a `datasets`
    object. label, column: its columns of labels and of inputs, as `--eval_label` and its neighbours. rows: maximum
    number of rows of each split. image_size: replaces the size of the processor, in pixels; without a processor, images
    are scaled to [-1, 1] at this size. image_white: as in training, see `ImageArguments`. revision: branch, tag or
    commit of a repository. encoding, separator: of the data files (see `RunArguments`). device: default: the
    accelerator, else the CPU. fine_tune: epochs of fine-tuning, for image encoders; 0 for none.

    Returns `{"objective", "encoder", "transfer"}`, and `image_white` if given, as in results.json. Raises `ValueError`
    if the source has no such encoder, or no processor or tokenizer; if the Hub denies access; without labels.
    """
    reading = Reading(encoding=encoding, separator=separator)
    device = torch.device(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    open_it, more = (subject_of, processing_class) if isinstance(source, PreTrainedModel) else (opened, revision)
    encoder, kind, objective, modality, pooling = open_it(source, more, image_size, image_white)
    check_fine_tuning(fine_tune, (kind,))
    gray = objective in registry.names("objectives") and registry.objective_class(objective).sees_gray
    labelled = LabelledSet(dataset, Inputs(modality), label, {kind: column}, limit=rows, reading=reading)
    options = {"methods": methods_of(modality.fractions), "device": device, "pooling": pooling}
    if fine_tune:
        check_in_memory(labelled)
        options["fine_tuning"] = FineTuning(fine_tune)
    return {
        "objective": {"name": objective, **({"pooling": pooling} if kind == "text" else {})},
        "encoder": {"class": type(encoder).__name__},
        "transfer": compared(encoder, kind, labelled, gray, **options),
        **({} if image_white is None else {"image_white": image_white}),
    }


def opened(source: str | os.PathLike, revision: str | None, image_size: int | None, image_white: int | None) -> Subject:
    """Loads an encoder from a folder or a repository of the Hub. Raises `ValueError` like `evaluate`."""
    folder = str(brought(source, revision, LOADED, [*registry.names("modalities"), POOLING]))
    encoder, kind, objective = open_encoder(folder, source)
    made = modality_classes([kind])[kind]
    made.check_packages()
    modality = made.from_saved(processor_folder(folder, kind), encoder, str(source), image_size, image_white)
    return Subject(encoder, kind, objective, modality, saved_pooling(folder) if kind == "text" else "mean")


def subject_of(
    model: PreTrainedModel, processing_class: Any, image_size: int | None, image_white: int | None
) -> Subject:
    """Returns the first encoder of a model, with inputs as from the folder of its checkpoint. Raises `ValueError` for
    a model that is no encoder of one kind of data, and without a processor."""
    encoder, kind, objective, pooling = model, None, FOREIGN, "mean"
    if isinstance(model, PretextModel):
        encoder, kind, objective = model.encoder, model.inputs[0], model.objective
        pooling = getattr(model.task, "pooling", "mean")
    name, kind = type(encoder).__name__, kind or kind_of(encoder)
    if kind is None:
        raise ValueError(f"{name} is no encoder of one kind of data. Give a model without a head: its `.base_model`.")
    made = modality_classes([kind])[kind]
    made.check_packages()
    given = processing_class.by_name[kind] if isinstance(processing_class, Inputs) else processing_class
    processor = given.processor if isinstance(given, Modality) else made.processor_in(given)
    processor = processor or made.default_processor(encoder)
    if processor is None and not (kind == "image" and image_size):
        raise ValueError(f"{name} needs a processor of {made.samples}: processing_class={made.processor_example}.")
    with tempfile.TemporaryDirectory() as folder:
        encoder.config.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
        modality = made.from_saved(folder, encoder, name, image_size, image_white)
    return Subject(encoder, kind, objective, modality, pooling)


def compared(encoder: PreTrainedModel, kind: str, labelled: LabelledSet, gray: bool, **options) -> dict:
    """Returns the transfer of an encoder, of random encoders and of baselines. gray: see `with_gray`. options: of
    `encoder_transfer`."""
    measure = partial(with_gray, labelled=labelled, gray=gray, kind=kind, **options)
    trained = measure(partial(trained_transfer, encoder), description="trained")
    random = [
        measure(partial(random_transfer, partial(fresh, encoder, seed)), description=f"random {seed}") for seed in SEEDS
    ]
    baselines = measure(baseline_transfer)
    return {
        **described(labelled, options.get("fine_tuning")),
        "kind": kind,
        "test_seen_in_pretraining": None,
        "random_seeds": list(SEEDS),
        **compare(chosen_together([trained]), chosen_together(random), baselines, labelled.labels.majority()),
    }


def open_encoder(folder: str, source: str | os.PathLike) -> tuple[PreTrainedModel, str, str]:
    """Loads an encoder in float32. Returns it, its kind of data, and the name of its objective.

    Raises `ValueError` if the folder has no encoder of one kind of data; the message names it `source`."""
    if not os.path.exists(os.path.join(folder, CONFIG_NAME)):
        raise ValueError(
            f"{source} contains no encoder: it has no {CONFIG_NAME}. Give a folder or repository that save_pretrained "
            "wrote."
        )
    check_folder(folder, registry.names("modalities"))
    try:
        config, _ = PreTrainedConfig.get_config_dict(folder)  # the objective may define the class of the config
        objective = (config.get("pretext") or {}).get("objective")
        encoder, kind = None, None
        # an encoder that was saved alone has no heads; AutoModel does not know some full models
        name = config.get("model_type")
        if name in CONFIG_MAPPING and CONFIG_MAPPING[name] in MODEL_MAPPING:
            check_parameters(folder)
            encoder = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
            kind = kind_of(encoder, saved_clips(folder).kind)
        if objective and kind is None:
            model = load(folder, dtype=torch.float32)
            encoder, kind = model.encoder, model.inputs[0]
    except Exception as error:  # configs raise errors of many types
        if isinstance(error, ValueError) and folder in str(error):
            raise
        refuse_custom_code(source, error)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:REASON]
        raise ValueError(f"{source} contains no encoder that can be loaded. {reason}") from error
    if kind is None:
        raise ValueError(
            f"{source} is a {config.get('model_type')}: only encoders of one kind of data can be evaluated. Give an "
            f"encoder of one of these kinds: {', '.join(registry.names('modalities'))}."
        )
    if names := not_finite(encoder.state_dict()):
        raise ValueError(f"{source} has weights that are NaN or infinite: {listed(names)}. Give another encoder.")
    return encoder, kind, objective or FOREIGN


def check_parameters(folder: str) -> None:
    """Raises `ValueError` if the config.json of a folder describes a model that its weights are much too small for.

    transformers would fill the rest with random numbers, which may need more memory than any machine has."""
    files = [*Path(folder).glob("*"), *Path(folder).glob("*/*")]  # some models have a sub-folder for each encoder
    stored = sum(path.stat().st_size for path in files if path.name.endswith(WEIGHTS))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    described = sum(parameter.numel() for parameter in model.parameters())
    if described > stored + SLACK:
        raise ValueError(
            f"{folder}/{CONFIG_NAME} describes a model of {described:,} parameters, but its weights have {stored:,} "
            "bytes. The config was edited, or weights are missing: download or copy the folder again."
        )


def processor_folder(folder: str, kind: str) -> str:
    """Returns the folder of the processor of a kind of data: the sub-folder of its encoder, or the folder itself."""
    part = Path(folder, kind)
    return str(part) if any(file for name in PROCESSORS for file in part.glob(name)) else folder


def kind_of(encoder: PreTrainedModel, stated: str | None = None) -> str | None:
    """Returns the kind of data that an encoder takes, found by trying each kind. None for an encoder that needs several
    kinds together, or another kind of data.

    stated: kind that it was trained on, tried first: an encoder of images also takes the frames of videos."""
    kinds = sorted(registry.names("modalities"), key=lambda kind: kind != stated)
    return next((kind for kind in kinds if takes_kind(encoder, kind)), None)


def fresh(encoder: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Makes a randomly initialised encoder of the same architecture."""
    set_seed(seed)
    config = copy.deepcopy(encoder.config)
    if type(config) in AutoModel._model_mapping:
        return build_encoder(config)
    return type(encoder)._from_config(config, dtype=torch.float32)  # parts of image-text models, for example
