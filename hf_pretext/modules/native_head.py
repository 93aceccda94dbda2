"""The head over the vocabulary that transformers has for the architecture of an encoder.

config, encoder without a head, or full model -> `...ForMaskedLM`, `...ForCausalLM`
full model, batch, positions -> last hidden states (B, L, D), logits of these positions
"""

import copy
from typing import Any

import torch
from torch import Tensor
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
    full_model = auto.from_config(config).to(encoder.device, encoder.dtype)
    missing = full_model.base_model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
    if missing:  # they would stay random; extra weights, for example of a pooler, are ignored
        raise ValueError(
            f"The encoder lacks weights of {type(full_model).__name__}: {', '.join(missing[:5])}. Give an encoder "
            "with all weights, or a config for a new one."
        )
    keep_frozen(full_model.base_model, encoder)
    return full_model


def keep_frozen(copy: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Freezes the weights of a copy of an encoder that are frozen in the encoder."""
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(name not in frozen)


def logits_at(
    full_model: PreTrainedModel, base: PreTrainedModel, where: tuple[Tensor, Tensor], **inputs: Any
) -> tuple[Tensor, tuple]:
    """Returns the last hidden states of a model with a head over the vocabulary, `(B, L, D)`, and its outputs with the
    logits of some tokens only, `(1, M, vocabulary)`.

    base: the part of the model whose hidden states the head gets. where: rows and columns of the M tokens. A head
    processes each token separately, so only these tokens are passed to it, as one sequence `(1, M, D)`."""
    states = []

    def only_some(module, arguments, outputs):
        states.append(outputs.last_hidden_state)
        outputs["last_hidden_state"] = outputs.last_hidden_state[where][None]  # (1, M, D)
        return outputs

    handle = base.register_forward_hook(only_some)
    try:
        outputs = full_model(**inputs).to_tuple()  # without labels, the logits come first
    finally:
        handle.remove()
    return states[0], outputs
