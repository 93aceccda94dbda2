"""Parts of ELECTRA: a small generator for an encoder of texts, and the native model that its checkpoint is of.

ElectraConfig or ElectraModel -> ElectraForPreTraining; any other config or encoder of texts -> plain encoder
encoder, size -> sizes of a generator -> ElectraForMaskedLM that shares its embeddings with the encoder
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.auto_factory import _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from ..encoders import build_encoder, check_encoder
from ..features import positions, width

POSITIONS = 512  # of a generator for an encoder without a maximum length
SAME = (  # sizes and settings that a generator has from its encoder, if the encoder's config has one of this name
    "num_hidden_layers", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size",
    "initializer_range", "layer_norm_eps", "pad_token_id",
)  # fmt: skip
FEED_FORWARD = ("intermediate_size", "hidden_dim", "ffn_dim", "n_inner", "d_ff")  # its names in configs


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
    full_model = AutoDiscriminator.from_config(copy.deepcopy(encoder.config)).to(encoder.dtype)
    full_model.electra.load_state_dict(encoder.state_dict())
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


def generator_sizes(encoder: PreTrainedModel, size: float) -> dict[str, Any]:
    """Returns the arguments of the `ElectraConfig` of a generator, as JSON types.

    size: its width, heads and feed-forward width, as a share of the encoder's; it has as many layers. Raises
    `ValueError` for an encoder whose config does not name its sizes."""
    config, words = encoder.config, word_embeddings(encoder)
    if getattr(config, "num_hidden_layers", None) is None:
        raise ValueError(
            f"The number of layers of {type(encoder).__name__} is unknown: its config has no num_hidden_layers. Give "
            "the sizes of a generator: parts={'generator': {'num_hidden_layers': ...}}."
        )
    wide = width(encoder)
    heads = max(round((getattr(config, "num_attention_heads", None) or max(wide // 64, 1)) * size), 1)
    inner = next(filter(None, (getattr(config, name, None) for name in FEED_FORWARD)), 4 * wide)
    default, electra = ElectraConfig(), isinstance(encoder, ElectraModel)
    return {
        **{name: getattr(config, name, getattr(default, name)) for name in SAME},
        "vocab_size": words.num_embeddings,
        "embedding_size": words.embedding_dim,
        "hidden_size": heads * max(round(wide * size / heads), 1),
        "num_attention_heads": heads,
        "intermediate_size": max(round(inner * size), 1),
        "max_position_embeddings": config.max_position_embeddings if electra else positions(encoder)[1] or POSITIONS,
    }


def build_generator(encoder: PreTrainedModel, sizes: Mapping[str, Any]) -> ElectraForMaskedLM:
    """Returns a fresh generator that shares its embeddings with an encoder.

    An ELECTRA encoder shares all its embeddings: of tokens, positions and token types, and their norm. Encoders of
    other architectures share the embeddings of tokens. The generator's output layer uses the same table.

    sizes: see `generator_sizes`. Raises `ValueError` for a generator that is wider or deeper than the encoder, or has
    another vocabulary or embeddings of another width."""
    words, config = word_embeddings(encoder), ElectraConfig(**sizes)
    check_sizes(config, encoder, words)
    attention = encoder.config._attn_implementation
    generator = AutoModelForMaskedLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    if isinstance(encoder, ElectraModel):
        generator.electra.embeddings = encoder.embeddings
    else:
        generator.electra.embeddings.word_embeddings.weight = words.weight
    generator.generator_lm_head.weight = words.weight
    return generator


def check_sizes(config: ElectraConfig, encoder: PreTrainedModel, words: nn.Embedding) -> None:
    """Raises `ValueError` for a generator that does not fit an encoder. words: the embeddings of its tokens."""
    name = type(encoder).__name__
    layers = getattr(encoder.config, "num_hidden_layers", None)
    for key, most in (("hidden_size", width(encoder)), ("num_hidden_layers", layers)):
        if most is not None and getattr(config, key) > most:
            raise ValueError(
                f"The generator's {key} is {getattr(config, key)}, but that of its encoder ({name}) is {most}. A "
                "generator must not be larger than its encoder: give smaller sizes, or a generator_size."
            )
    shared = {"vocab_size": words.num_embeddings, "embedding_size": words.embedding_dim}
    if isinstance(encoder, ElectraModel):
        shared |= {key: getattr(encoder.config, key) for key in ("max_position_embeddings", "type_vocab_size")}
    for key, value in shared.items():
        if getattr(config, key) != value:
            raise ValueError(
                f"The generator's {key} is {getattr(config, key)}, but it shares the embeddings of its encoder "
                f"({name}), where it is {value}. Give the same value."
            )
