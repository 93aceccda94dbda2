"""`BertForPreTraining` from a BERT of any form.

BertConfig, BertModel or BertForPreTraining -> BertForPreTraining
"""

import copy

import torch
from transformers import (
    AutoModelForPreTraining,
    BertConfig,
    BertForPreTraining,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
)


def check_bert(encoder: PreTrainedModel | PreTrainedConfig, objective: str) -> None:
    """Raises `ValueError` for anything but a BERT or its config, without pooler, and for less than two token types.

    objective: named in errors."""
    if type(encoder) not in (BertConfig, BertModel, BertForPreTraining):
        raise ValueError(
            f"{objective} needs a BertConfig, a BertModel or a BertForPreTraining, not a {type(encoder).__name__}."
        )
    types = encoder.type_vocab_size if isinstance(encoder, BertConfig) else encoder.config.type_vocab_size
    if types < 2:
        raise ValueError(f"{objective} needs 2 token types, for text and film, but type_vocab_size is {types}.")
    if isinstance(encoder, BertModel) and encoder.pooler is None:
        raise ValueError("The BertModel has no pooler, which alignment needs. Give one with a pooler.")


def with_heads(encoder: PreTrainedModel | PreTrainedConfig) -> BertForPreTraining:
    """Returns a `BertForPreTraining`. encoder: a config (random weights), a `BertModel` (keeps its weights, random
    heads), or a `BertForPreTraining` (returned unchanged)."""
    if isinstance(encoder, BertForPreTraining):
        return encoder
    if isinstance(encoder, BertConfig):
        return AutoModelForPreTraining.from_config(copy.deepcopy(encoder), dtype=torch.float32)
    full_model = AutoModelForPreTraining.from_config(copy.deepcopy(encoder.config)).to(encoder.dtype)
    full_model.bert.load_state_dict(encoder.state_dict())
    return full_model
