"""Gives an encoder the head over the vocabulary that transformers has for its architecture.

config, encoder without a head, or full model -> `...ForMaskedLM`, `...ForCausalLM`
"""

import copy

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..encoders import check_encoder


def with_head(encoder: PreTrainedModel | PreTrainedConfig, auto: type, task: str, examples: str) -> PreTrainedModel:
    """Returns the model of `auto` for an encoder of texts.

    encoder: a config (random weights), an encoder without a head (keeps its weights, random head), or a model of `auto`
    (returned unchanged). auto: class like `AutoModelForMaskedLM`. task: what the model does, and examples: some
    architectures with such a model, for errors. Raises `ValueError` if transformers has no such model of this
    architecture, or if the encoder lacks weights of the full model (except the head's)."""
    config = encoder if isinstance(encoder, PreTrainedConfig) else getattr(encoder, "config", None)
    native = auto._model_mapping.get(type(config), None)
    if native is not None and type(encoder) is native:
        return encoder
    if native is None and config is not None:
        raise ValueError(
            f"transformers has no {config.model_type} model for {task} ({auto.__name__}). Choose another architecture, "
            f"for example {examples}."
        )
    if isinstance(encoder, PreTrainedConfig):
        return auto.from_config(copy.deepcopy(config), dtype=torch.float32)
    check_encoder(encoder, "text")
    full_model = auto.from_config(config).to(encoder.dtype)
    missing = full_model.base_model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
    if missing:  # they would stay random; extra weights, for example of a pooler, are ignored
        raise ValueError(
            f"The encoder lacks weights of {type(full_model).__name__}: {', '.join(missing[:5])}. Give an encoder "
            "with all weights, or a config for a new one."
        )
    return full_model
