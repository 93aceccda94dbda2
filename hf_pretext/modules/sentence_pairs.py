"""Pairs of segments for predicting whether two segments belong together, and the native heads that predict it.

order: Lan, Chen, Goodman, Gimpel, Sharma and Soricut, "ALBERT: A Lite BERT for Self-supervised Learning of Language
Representations", ICLR 2020, https://huggingface.co/papers/1909.11942; next: Devlin, Chang, Lee and Toutanova, "BERT",
NAACL 2019, https://huggingface.co/papers/1810.04805

    documents (B, L) -> cut into two segments, half of them swapped or with the second segment of another document
    -> first segment, separator, second segment (B, L), token types (B, L), labels (B,)
"""

import inspect
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_PRETRAINING_MAPPING

from ..data.corpus import special_tokens
from .distributed import weights_of_rank
from .draws import drawn_by
from .losses import widened
from .masking import IGNORED

LABELS = {"next_sentence_label", "sentence_order_label"}  # arguments of classes with a head for pairs
SHORTEST = 5  # tokens of a document with two segments: two special tokens, two segments, and a token that is left out


class Pairs(NamedTuple):
    """Pairs of segments as inputs of the encoder.

    input_ids, attention_mask (bool), token_type_ids (0 up to the separator, 1 after it), word_starts (bool or None):
    `(B, L)`. labels (`(B,)`): 0 for a document in its order, 1 for a changed one, `IGNORED` for one that is too short.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    word_starts: Tensor | None
    labels: Tensor


def check_pairs(config: PreTrainedConfig) -> None:
    """Raises `ValueError` for an architecture without a native head for pairs of segments, or without token types."""
    native = MODEL_FOR_PRETRAINING_MAPPING.get(type(config), None)
    if native is None or not LABELS & set(inspect.signature(native.forward).parameters):
        raise ValueError(
            f"transformers has no {config.model_type} model with a head for pairs of segments, which pairs needs. "
            "Choose BERT or ALBERT, or leave pairs out."
        )
    if getattr(config, "type_vocab_size", 2) < 2:
        raise ValueError(f"pairs needs 2 token types, but type_vocab_size is {config.type_vocab_size}. Set it to 2.")


def check_tokenizer_of_pairs(tokenizer) -> None:
    """Raises `ValueError` for a tokenizer that does not put one special token before and one after a text."""
    counts = tuple(map(len, special_tokens(tokenizer)))
    if counts != (1, 1):
        raise ValueError(
            f"pairs needs a tokenizer that adds one special token before and one after a text, but it adds {counts[0]} "
            f"and {counts[1]}. Give another --tokenizer, or leave pairs out."
        )


def cut_places(present: Tensor, word_starts: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Draws the first token of the second segment of each document, `(B,)`, if possible a word in the middle half.

    present: `(B, L)`, bool."""
    at, length = torch.arange(present.shape[1], device=present.device), present.sum(1, keepdim=True)
    score = torch.rand(present.shape, device=present.device, **drawn_by(generator))
    score = score + ((at >= length / 4) & (at < length * 3 / 4)) * 1.0
    score = score if word_starts is None else score + word_starts * 1.0
    return score.masked_fill((at < 2) | (at >= length - 2), -1.0).argmax(1)


def make_pairs(
    input_ids: Tensor,
    present: Tensor,
    word_starts: Tensor | None,
    pairs: str,
    pad_token_id: int = 0,
    generator: torch.Generator | None = None,
) -> Pairs:
    """Makes pairs of segments from documents, each with one special token at its start and one at its end.

    input_ids, present (bool), word_starts (bool): `(B, L)`. pairs: "order" swaps the segments of half of the documents;
    "next" replaces the second segment of half of them by that of another document. Each second segment, replaced or
    not, is as long as the shorter one of these two, so that its length does not give the answer away. The token
    between the segments is the one at the end of the document; the last token before that one is left out for it."""
    rows, longest = input_ids.shape
    device, drawn = input_ids.device, drawn_by(generator)
    length, cut = present.sum(1), cut_places(present, word_starts, generator)
    same, ones = torch.arange(rows, device=device), torch.ones(rows, dtype=torch.long, device=device)
    fits, changed = length >= SHORTEST, torch.rand(rows, device=device, **drawn) < 0.5
    other, shortest = same, None
    if pairs == "next":
        shift = torch.randint(1, max(rows, 2), (1,), device=device, **drawn)
        other = (same + shift) % rows
        exchangeable = fits[other] & (other != same)
        tails = length - 2 - cut
        shortest = torch.where(exchangeable, torch.minimum(tails, tails[other]), tails)
        changed = changed & exchangeable
        other = torch.where(changed, other, same)
    swapped = changed if pairs == "order" else torch.zeros_like(changed)
    head, tail = cut - 1, (length - 2 - cut)[other]  # tokens of the first segment, and of the second
    first, start = torch.where(swapped, tail, head), torch.where(swapped, cut, ones)
    second, start_of_second = torch.where(swapped, head, tail), torch.where(swapped, ones, cut[other])
    second = torch.minimum(second, longest - 3 - first if shortest is None else shortest)
    at, first, second = torch.arange(longest, device=device), first[:, None], second[:, None]
    between, end = at == first + 1, at == first + second + 2
    in_second = (at > first + 1) & (at < first + second + 2)
    column = torch.where(in_second, start_of_second[:, None] + at - first - 2, start[:, None] + at - 1)
    column = torch.where(at == 0, 0, torch.where(between | end, length[:, None] - 1, column))
    unchanged = ~fits[:, None]
    row = torch.where(in_second & ~unchanged, other[:, None], same[:, None])
    column = torch.where(unchanged, at, column).clamp(0, longest - 1)
    filled = torch.where(unchanged, present, at <= first + second + 2)
    ids = torch.where(filled, input_ids[row, column], pad_token_id)
    starts = (
        None
        if word_starts is None
        else word_starts[row, column] | between | end | (at <= 1) | (at == first + 2) | ~filled
    )
    types = ((at > first + 1) & filled & ~unchanged).long()
    return Pairs(ids, filled, types, starts, torch.where(fits, changed.long(), IGNORED))


def pair_prediction(logits: Tensor, labels: Tensor, across: bool = False) -> tuple[Tensor, Tensor]:
    """Returns the loss and the accuracy of predicted pairs, `()` each; 0 without a pair.

    logits: `(B, 2)`. labels: `(B,)`, `IGNORED` for documents that are no pairs. across: weights the loss so that the
    average over ranks is the mean over the pairs of all of them."""
    logits, real = widened(logits), labels != IGNORED
    count = real.sum().to(logits.dtype)
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / count.clamp(min=1)
    right = ((logits.argmax(-1) == labels) & real).sum()
    return loss * weights_of_rank(count, across), right / count.clamp(min=1)
