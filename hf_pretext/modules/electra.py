"""Parts of ELECTRA: a small generator for an encoder of texts, and the native model that its checkpoint is of.

ElectraConfig or ElectraModel -> ElectraForPreTraining; any other config or encoder of texts -> plain encoder
encoder, size -> sizes of a generator -> `...ForMaskedLM` that shares its embeddings with the encoder
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    ElectraConfig,
    ElectraForPreTraining,
    ElectraModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.auto_factory import _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from ..encoders import build_encoder, check_encoder
from .native_head import keep_frozen, with_head

OF_WIDTH = ("hidden_size", "num_attention_heads", "intermediate_size")  # sizes of an ELECTRA generator that may differ
PER_LAYER = ("layer_types", "attention_window")  # lists in configs with a value for each layer


class AutoDiscriminator(AutoModel):
    """Loads the native model of a checkpoint: `ElectraForPreTraining` for ELECTRA, else what `AutoModel` loads."""

    _model_mapping = _LazyAutoMapping(
        CONFIG_MAPPING_NAMES, OrderedDict(MODEL_MAPPING_NAMES, electra="ElectraForPreTraining")
    )


def discriminator(encoder: PreTrainedModel | PreTrainedConfig) -> PreTrainedModel:
    """Returns an `ElectraForPreTraining` for ELECTRA, else the plain encoder.

    encoder: a config (random weights), an encoder without a head (keeps its weights; ELECTRA's gets a random head), or
    an `ElectraForPreTraining` (returned unchanged). Raises `ValueError` for an encoder that does not take texts."""
    if isinstance(encoder, ElectraForPreTraining):
        return encoder
    if isinstance(encoder, ElectraConfig):
        return AutoDiscriminator.from_config(copy.deepcopy(encoder), dtype=torch.float32)
    if isinstance(encoder, PreTrainedConfig):
        encoder = build_encoder(encoder)
    check_encoder(encoder, "text")
    if not isinstance(encoder, ElectraModel):
        return encoder
    full_model = AutoDiscriminator.from_config(copy.deepcopy(encoder.config)).to(encoder.device, encoder.dtype)
    full_model.electra.load_state_dict(encoder.state_dict())
    keep_frozen(full_model.electra, encoder)
    return full_model


def word_embeddings(encoder: PreTrainedModel) -> nn.Embedding:
    """Returns the embeddings of an encoder's tokens. Raises `ValueError` for an encoder without such a table."""
    try:
        table = encoder.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        table = None
    if not isinstance(table, nn.Embedding):
        raise ValueError(
            f"{type(encoder).__name__} has no table of token embeddings, which a generator would share. Give another "
            "encoder, for example ELECTRA, BERT, RoBERTa or ModernBERT."
        )
    return table


def generator_sizes(encoder: PreTrainedModel, size: float) -> dict[str, int]:
    """Returns the values of the generator's config that differ from the encoder's.

    size: share of the encoder's width, attention heads and feed-forward width for ELECTRA, as in its paper; share of
    the number of layers for other architectures, as in DeBERTaV3 (https://huggingface.co/papers/2111.09543). Raises
    `ValueError` for an encoder whose config does not name its layers."""
    config = encoder.config
    if isinstance(encoder, ElectraModel):
        heads = max(round(config.num_attention_heads * size), 1)
        return {
            "hidden_size": heads * max(round(config.hidden_size * size / heads), 1),
            "num_attention_heads": heads,
            "intermediate_size": max(round(config.intermediate_size * size), 1),
        }
    if getattr(config, "num_hidden_layers", None) is None:
        raise ValueError(
            f"The number of layers of {type(encoder).__name__} is unknown: its config has no num_hidden_layers. Give "
            "another encoder, for example ELECTRA, BERT, RoBERTa or ModernBERT."
        )
    return {"num_hidden_layers": max(round(config.num_hidden_layers * size), 1)}


def build_generator(encoder: PreTrainedModel, sizes: Mapping[str, int]) -> PreTrainedModel:
    """Returns a fresh masked language model of the encoder's architecture, that shares its embeddings with the encoder.

    An ELECTRA encoder shares all its embeddings: of tokens, positions and token types, and their norm. Encoders of
    other architectures share the embeddings of tokens. The generator's output layer uses the same table, if its own has
    that shape.

    sizes: see `generator_sizes`. Raises `ValueError` for a generator that is wider or deeper than the encoder, for
    other sizes that can't differ, and for an architecture without a masked language model."""
    words, config = word_embeddings(encoder), copy.deepcopy(encoder.config)
    check_sizes(sizes, encoder)
    for name, value in sizes.items():
        setattr(config, name, value)
    for name in PER_LAYER:
        if isinstance(value := getattr(config, name, None), list):
            setattr(config, name, value[: config.num_hidden_layers])
    generator = with_head(config, AutoModelForMaskedLM, "replaced token detection", "ELECTRA, BERT or ModernBERT")
    if isinstance(encoder, ElectraModel):
        generator.electra.embeddings = encoder.embeddings
    for part in (generator.get_input_embeddings(), generator.get_output_embeddings()):
        if part is not None and part.weight.shape == words.weight.shape:
            part.weight = words.weight
    return generator


def check_sizes(sizes: Mapping[str, int], encoder: PreTrainedModel) -> None:
    """Raises `ValueError` for sizes of a generator that do not fit its encoder."""
    name = type(encoder).__name__
    known = ("num_hidden_layers", *(OF_WIDTH if isinstance(encoder, ElectraModel) else ()))
    for key, value in sizes.items():
        if key not in known:
            raise ValueError(f"The generator of {name} can't have another {key}. Known sizes: {', '.join(known)}.")
        if value > getattr(encoder.config, key):
            raise ValueError(
                f"The generator's {key} is {value}, but that of its encoder ({name}) is "
                f"{getattr(encoder.config, key)}. A generator must not be larger than its encoder: give smaller sizes, "
                "or a generator_size."
            )
