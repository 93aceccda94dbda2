"""What any encoder is worth on a labelled set, next to random ones of its shape: of a folder or a repository.

folder or user/name + labelled set -> {"transfer": ...}, as in results.json
"""

import copy
import os
from functools import partial
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.utils import CONFIG_NAME

from .. import registry
from ..encoders import build_encoder, takes_kind
from ..modalities import Inputs, modality_classes
from ..modeling import load
from ..utils.hub import brought
from .baselines import baseline_transfer
from .comparison import compare, described, encoder_transfer, random_transfer
from .labelled_set import LabelledSet
from .transfer import chosen_together, methods_of

SEEDS = (0, 1, 2)  # of random encoders
PROCESSORS = ("*processor_config.json", "tokenizer_config.json")
LOADED = ("*.json", "*.safetensors", "*.txt", "*.model")  # of a repository: weights and words, no pickles


def evaluate(
    source: str | os.PathLike,
    dataset: str,
    label: str | None = None,
    column: str | None = None,
    rows: int | None = None,
    image_size: int | None = None,
    revision: str | None = None,
    device: torch.device | str | None = None,
) -> dict:
    """Linear probes and kNN of a frozen encoder and of three random ones of its shape, layer and strength chosen on
    validation for both.

    source: a folder or Hub id, of a checkpoint of ours (its first encoder) or of any plain encoder of one kind of data.
    dataset, label, column: the labelled set, as `--eval_dataset` and its options. rows: of each of its splits at most.
    image_size: in place of the processor's own; where there is no processor, images are scaled to [-1, 1] at this size.
    revision: of a repository, its branch, tag or commit.

    Returns `{"objective", "encoder", "transfer"}` as in results.json. Raises `ValueError` for what is no such encoder,
    or has no processor or tokenizer, where the Hub refuses, and for a set without labels.
    """
    folder = str(brought(source, revision, LOADED, registry.names("modalities")))
    device = torch.device(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    encoder, kind, objective = open_encoder(folder, source)
    modality = modality_classes([kind])[kind].from_saved(
        processor_folder(folder, kind), encoder, str(source), image_size
    )
    labelled = LabelledSet(dataset, Inputs(modality), label, {kind: column}, limit=rows)
    methods = methods_of(modality.fractions)
    options = {"device": device, "methods": methods}
    trained = {"as trained": encoder_transfer(encoder, labelled, kind, description="trained", **options)}
    random = [
        random_transfer(partial(fresh, encoder, seed), labelled, kind, description=f"random {seed}", **options)
        for seed in SEEDS
    ]
    baselines = baseline_transfer(kind, labelled, methods)
    compared = compare(chosen_together([trained]), chosen_together(random), baselines, labelled.labels.majority())
    transfer = {**described(labelled), "kind": kind, "test_seen_in_pretraining": None, "random_seeds": list(SEEDS)}
    return {
        "objective": {"name": objective},
        "encoder": {"class": type(encoder).__name__},
        "transfer": {**transfer, **compared},
    }


def open_encoder(folder: str, source: str | os.PathLike) -> tuple[PreTrainedModel, str, str]:
    """An encoder in float32, the kind of data that it takes, and the objective that it learned by. Raises `ValueError`
    for what is none, in which it is called `source`."""
    if not os.path.exists(os.path.join(folder, CONFIG_NAME)):
        raise ValueError(f"{source} holds no encoder: it has no {CONFIG_NAME}.")
    try:
        config, _ = PreTrainedConfig.get_config_dict(folder)  # of a class that the objective may bring
        objective = (config.get("pretext") or {}).get("objective")
        encoder, kind = None, None
        if config.get("model_type") in CONFIG_MAPPING:  # saved alone, it may lack the heads
            encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
            kind = kind_of(encoder)
        if objective and kind is None:
            model = load(folder, dtype=torch.float32)
            encoder, kind = model.encoder, model.inputs[0]
    except (OSError, SafetensorError, StrictDataclassError, AttributeError, TypeError) as error:
        raise ValueError(f"{source} holds no encoder that can be loaded: {error}") from error
    if kind is None:
        raise ValueError(f"{source} is a {config.get('model_type')}: only encoders of one kind of data are evaluated.")
    return encoder, kind, objective or "not of hf_pretext"


def processor_folder(folder: str, kind: str) -> str:
    """Where the processor of a kind lies: beside its encoder in a sub-folder, or in the folder itself."""
    part = Path(folder, kind)
    return str(part) if any(file for name in PROCESSORS for file in part.glob(name)) else folder


def kind_of(encoder: PreTrainedModel) -> str | None:
    """The kind of data that an encoder takes, tried out; None for one that takes several together, or none of ours."""
    return next((kind for kind in registry.names("modalities") if takes_kind(encoder, kind)), None)


def fresh(encoder: PreTrainedModel, seed: int) -> PreTrainedModel:
    """One of the same shape that has learned nothing."""
    set_seed(seed)
    config = copy.deepcopy(encoder.config)
    if type(config) in AutoModel._model_mapping:
        return build_encoder(config)
    return type(encoder)._from_config(config, dtype=torch.float32)  # a part of an image-text model
