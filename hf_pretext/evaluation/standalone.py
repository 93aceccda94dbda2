"""What any encoder is worth on a labelled set, beside the same at random: a folder's or a repository's, ours or not.

folder or user/name + labelled set -> {"transfer": ...}, as in results.json
"""

import copy
import os
from collections.abc import Mapping

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.utils import CONFIG_NAME

from ..data.tokenizer import load_tokenizer
from ..encoders import build_encoder
from ..features import positions
from ..modalities.image import Image, load_processor, saved_processor
from ..modeling import load
from ..utils.hub import brought
from .comparison import compare, described, encoder_transfer, pixel_transfer, random_transfer
from .labelled import LabelledImages
from .labelled_texts import LabelledTexts, tfidf_transfer
from .transfer import METHODS, Method, chosen_together, label_fractions

SEEDS = (0, 1, 2)  # of random encoders
LONGEST = 512  # tokens of a text
LOADED = ("*.json", "*.safetensors", "*.txt", "*.model")  # of a repository: weights and words, no pickles
TEXT_METHODS: Mapping[str, Method] = label_fractions(0.01, 0.1, 1.0)


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
    """Linear probe and kNN of a frozen encoder and of three random ones of its shape, layer and strength chosen on
    validation for both.

    source: a folder or Hub id, of a checkpoint of ours (of pairs: its picture encoder) or of any plain encoder of
    pictures or texts. dataset, label, column: the labelled set, as `--eval_dataset` and its options. rows: of each of
    its splits at most. image_size: in place of the processor's own; where there is no processor, pictures are scaled
    to [-1, 1] at this size. revision: of a repository, its branch, tag or commit.

    Returns `{"objective", "encoder", "transfer"}` as in results.json. Raises `ValueError` for what is no such encoder,
    or has no processor or tokenizer, where the Hub refuses, and for a set without labels.
    """
    folder = str(brought(source, revision, LOADED))
    device = torch.device(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    encoder, objective = open_encoder(folder, source)
    kind = kind_of(encoder) or "image"  # one of ours that takes both takes pictures alone, too
    options = {"device": device, "methods": METHODS if kind == "image" else TEXT_METHODS}
    if kind == "image":
        if image_size is None and saved_processor(folder) is None:
            raise ValueError(
                f"{source} has no image processor, so nothing says what its pictures are like. Save the one that the "
                "encoder was made for beside it (of a side in a folder of a model, give the model); or say "
                "--image_size, to have them scaled to [-1, 1]."
            )
        processing = Image(load_processor(folder, image_size, image_size))
        labelled = LabelledImages(dataset, processing, label, column, limit=rows)
        baselines = {"pixels": pixel_transfer(labelled)}
    else:
        tokenizer = load_tokenizer("The tokenizer of", folder)
        if tokenizer is None:  # transformers would make up an empty one
            raise ValueError(f"{source} has no tokenizer. Save the one that the encoder was made for beside it.")
        longest = min(LONGEST, positions(encoder)[1] or LONGEST)
        labelled = LabelledTexts(dataset, tokenizer, longest, label, column, rows)
        baselines = {"TF-IDF": tfidf_transfer(labelled, TEXT_METHODS)}
    trained = chosen_together([{"as trained": encoder_transfer(encoder, labelled, description="trained", **options)}])
    random = chosen_together(
        [random_transfer(lambda s=s: fresh(encoder, s), labelled, description=f"random {s}", **options) for s in SEEDS]
    )
    compared = compare(trained, random, baselines, labelled.labels.majority())
    transfer = {**described(labelled), "test_seen_in_pretraining": None, "random_seeds": list(SEEDS), **compared}
    return {"objective": {"name": objective}, "encoder": {"class": type(encoder).__name__}, "transfer": transfer}


def open_encoder(folder: str, source: str | os.PathLike) -> tuple[PreTrainedModel, str]:
    """An encoder of one kind in float32, and the objective that it learned by. Raises `ValueError` for what is none, in
    which it is called `source`."""
    if not os.path.exists(os.path.join(folder, CONFIG_NAME)):
        raise ValueError(f"{source} holds no encoder: it has no {CONFIG_NAME}.")
    try:
        config, _ = PreTrainedConfig.get_config_dict(folder)  # of a class that the objective may bring
        objective = (config.get("pretext") or {}).get("objective")
        encoder = None
        if config.get("model_type") in CONFIG_MAPPING:  # saved anew by itself, it may lack the heads
            encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
        if objective and (encoder is None or kind_of(encoder) is None):
            encoder = load(folder, dtype=torch.float32).encoder
    except (OSError, SafetensorError, StrictDataclassError, AttributeError, TypeError) as error:
        raise ValueError(f"{source} holds no encoder that can be loaded: {error}") from error
    if encoder is None or (kind_of(encoder) is None and not objective):
        raise ValueError(
            f"{source} is a {config.get('model_type')}: only encoders of pictures or of texts are evaluated."
        )
    return encoder, objective or "not of hf_pretext"


def kind_of(encoder: PreTrainedModel) -> str | None:
    """ "image" or "text"; None for an encoder of something else."""
    takes = encoder.input_modalities
    takes = (takes,) if isinstance(takes, str) else tuple(takes)
    return takes[0] if takes in (("image",), ("text",)) else None


def fresh(encoder: PreTrainedModel, seed: int) -> PreTrainedModel:
    """One of the same shape that has learned nothing."""
    set_seed(seed)
    config = copy.deepcopy(encoder.config)
    if type(config) in AutoModel._model_mapping:
        return build_encoder(config)
    return type(encoder)._from_config(config, dtype=torch.float32)  # a part of a model of both kinds
