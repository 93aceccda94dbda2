"""Inputs and labels of a decoder of captions, for tokenizers with and without tokens at the start and the end.

input_ids (B, L) -> captions without start and end -> inputs: start, w1, w2, ... (B, L + 1); labels: w1, w2, ..., end
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.corpus import special_tokens
from .masking import IGNORED


@dataclass(frozen=True)
class Tokens:
    """Ids of the tokens that begin a caption, end it, and fill the rest of a row."""

    start: int
    end: int
    pad: int


def tokens_of(tokenizer) -> Tokens:
    """Returns the tokens of a tokenizer: those that it adds to a text, else its bos, cls, eos or sep token.

    A tokenizer without bos, like GPT-2's, begins captions with its end token; one without pad fills rows with it.
    Raises `ValueError` for a tokenizer without an end token."""
    before, after = special_tokens(tokenizer)
    ends = [*after[-1:].tolist(), tokenizer.eos_token_id, tokenizer.sep_token_id]
    end = next((token for token in ends if token is not None), None)
    if end is None:
        raise ValueError(
            f"The tokenizer ({type(tokenizer).__name__}) has no token that ends a text, which decoders predict. "
            'Set one and save the tokenizer: tokenizer.add_special_tokens({"eos_token": "</s>"}).'
        )
    starts = [*before[:1].tolist(), tokenizer.bos_token_id, tokenizer.cls_token_id, end]
    start = next(token for token in starts if token is not None)
    return Tokens(start, end, end if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def tokens_of_config(config, given: Mapping[str, int | None], named: str = "captions") -> Tokens:
    """Returns the tokens in `given` ("start", "end", "pad"), else those of a config, which may be that of an
    encoder-decoder model. named: the texts, in errors.

    Raises `ValueError` for missing tokens, and for tokens outside the vocabulary."""
    known: dict[str, Any] = {
        "start": getattr(config, "decoder_start_token_id", None),
        "end": getattr(config, "eos_token_id", None),
        "pad": getattr(config, "pad_token_id", None),
    }
    known |= {name: value for name, value in given.items() if value is not None}
    known["end"] = known["end"][0] if isinstance(known["end"], (list, tuple)) else known["end"]
    missing = [f"{name}_token_id" for name, value in known.items() if value is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} of the {named} {'is' if len(missing) == 1 else 'are'} not set. Give the ids of the "
            "tokenizer, for example start_token_id=tokenizer.cls_token_id, end_token_id=tokenizer.sep_token_id, "
            "pad_token_id=tokenizer.pad_token_id."
        )
    vocabulary = getattr(config, "decoder", config).vocab_size
    outside = [f"{name}_token_id={value}" for name, value in known.items() if not 0 <= value < vocabulary]
    if outside:
        raise ValueError(
            f"{', '.join(outside)}: the decoder has a vocabulary of {vocabulary:,} tokens. Give a decoder with the "
            "vocabulary of the tokenizer."
        )
    return Tokens(**known)


def bare(input_ids: Tensor, attention_mask: Tensor | None, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Returns where each caption begins and how many tokens it has, without start and end token: `(B,)` each.

    input_ids (`(B, L)`). attention_mask (`(B, L)`, 1 for tokens). Without it, a caption ends at its first end token or
    at padding."""
    if attention_mask is None:
        ends = (input_ids == tokens.end).long()
        if tokens.start == tokens.end:
            ends[:, 0] = 0  # may be the start
        present = (ends.cumsum(1) - ends == 0) & ((input_ids != tokens.pad) | (ends > 0))
        present[:, 0] |= input_ids[:, 0] == tokens.start
    else:
        present = attention_mask.bool()
    length = present.sum(1)
    first = present.long().argmax(1)
    begins = ((input_ids.gather(1, first[:, None])[:, 0] == tokens.start) & (length > 0)).long()
    last = (first + length - 1).clamp(min=0)
    ends = ((input_ids.gather(1, last[:, None])[:, 0] == tokens.end) & (length > begins)).long()
    return first + begins, length - begins - ends


def shifted(
    input_ids: Tensor, first: Tensor, count: Tensor, tokens: Tokens, backward: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns the inputs of a decoder and its labels, `(B, L + 1)` each. Labels after the end are `IGNORED`.

    input_ids (`(B, L)`). first, count (`(B,)`): of the captions, see `bare`. backward: reverses captions, so that they
    are predicted from right to left."""
    at = torch.arange(input_ids.shape[1] + 1, device=input_ids.device)[None]
    count = count[:, None]
    source = first[:, None] + (count - 1 - at if backward else at)
    words = input_ids.gather(1, source.clamp(0, input_ids.shape[1] - 1))
    labels = torch.where(at < count, words, tokens.end).masked_fill(at > count, IGNORED)
    seen = torch.where(at < count, words, tokens.pad)[:, :-1]
    return torch.cat([torch.full_like(seen[:, :1], tokens.start), seen], dim=1), labels
