"""Whether a tokenizer and a text encoder fit each other: vocabulary, length, padding, the end of a text."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.captions import holds_captions
from ..data.columns import type_name
from ..data.sources import Source
from ..features import pool

UNMOVED, SAME = 1e-3, 1e-6  # vectors of length 1 that differ by less do so by rounding alone, or are the very same


def check_captions(source: Source, columns: Sequence[str]) -> None:
    """Raises `ValueError` for columns of further captions (canonical names) that hold none."""
    for canonical in columns:
        feature = source.features[canonical]
        if not holds_captions(feature):
            raise ValueError(
                f"{source.name}: the column {source.columns[canonical]!r} (--other_captions) holds "
                f"{type_name(feature)} values, which are neither texts, nor lists of texts, nor texts by language."
            )


def check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, brought_by: str | None, vocabulary: int, encoder: str | None
) -> None:
    """Raises `ValueError` for a tokenizer that is not the one that an encoder was made for, by their sizes.

    brought_by: who brought the tokenizer. encoder: who brought the encoder, if anybody."""
    tokens = len(tokenizer)
    matching = encoder is not None and brought_by == encoder
    if tokens > vocabulary or (tokens < vocabulary and not matching):  # many models have a few rows to spare
        trained = f" or set vocab_size to {tokens} in its config.json" if brought_by is None else ""
        raise ValueError(
            f"The tokenizer has {tokens:,} tokens, but {encoder or 'the encoder'} a vocabulary of {vocabulary:,}. "
            f"Give the --tokenizer that it was made for{trained}."
        )


def check_length(max_length: int, most: int | None, encoder: str, flexible: bool = False) -> None:
    """Raises `ValueError` for texts longer than an encoder has positions for, unless their length is flexible."""
    if most is not None and max_length > most and not flexible:
        raise ValueError(
            f"--max_length {max_length} is more than the {most} positions of {encoder}. Give --max_length {most} or "
            "less."
        )


@torch.no_grad()
def vectors(encoder: PreTrainedModel, **inputs: Tensor) -> Tensor:
    """What an encoder makes of texts, pooled as it does it itself or else by the mean: `(B, D)`, of length 1."""
    training = encoder.training
    outputs = encoder.eval()(**{name: value.to(encoder.device) for name, value in inputs.items()})
    encoder.train(training)
    pooled = getattr(outputs, "pooler_output", None)
    if pooled is None:
        mask = inputs.get("attention_mask")
        pooled = pool(outputs.last_hidden_state, None if mask is None else mask.to(encoder.device))
    return F.normalize(pooled.float().cpu(), dim=1)


def pads_freely(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fills: Mapping[str, float], length: int
) -> bool:
    """Whether an encoder makes the same of a text however far it is padded. SigLIP's pool the last position, so that
    they want all texts of the length they were made for. fills: what the encoder is given, and padded with."""
    ids = torch.tensor([tokenizer("a b", truncation=True, max_length=length)["input_ids"]])
    if ids.shape[1] >= length:
        return True
    columns = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    padded = [
        {name: F.pad(columns[name], (0, more), value=fill) for name, fill in fills.items()}
        for more in (0, length - ids.shape[1])
    ]
    plain, longer = (vectors(encoder, **inputs) for inputs in padded)
    return bool((plain - longer).abs().max() < UNMOVED)


def check_distinguishes(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, Tensor]
) -> None:
    """Raises `ValueError` for an encoder that makes the same of two texts, as one does that pools at another token than
    the tokenizer ends a text with. batch: of two."""
    first, second = vectors(encoder, **batch)
    if (first - second).abs().max() < SAME:
        ends = getattr(encoder.config.get_text_config(), "eos_token_id", None)
        raise ValueError(
            "The text encoder gives different captions the same embedding. It looks for the end of a text at the token "
            f"{ends} (eos_token_id in the text_config of its config.json), where the tokenizer puts "
            f"{tokenizer('a')['input_ids'][-1]}."
        )
