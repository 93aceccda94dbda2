"""Hiding words and patches, and telling them: what objectives that mask share.

input_ids (B, L) -> units drawn -> hidden (B, L), ids with others in their place
states (B, T, D), labels (B, T) -> hidden ones alone -> logits (M, classes) -> cross-entropy
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .losses import cross_entropy

IGNORED = -100  # the label of what is not to be told, as everywhere
SPAN_STOP, LONGEST_SPAN = 0.2, 10  # SpanBERT's geometric distribution of lengths, and where it is cut


def with_tokens_of(task, tokenizer):
    """Settings that have `mask_token_id` and `special_token_ids`, with the tokenizer's where they leave them open.

    Raises `ValueError` for a tokenizer without a mask token."""
    if task.mask_token_id is None and tokenizer.mask_token_id is None:
        raise ValueError(
            f"The tokenizer ({type(tokenizer).__name__}) has no mask token, as those of causal language models. "
            "Give another --tokenizer, or name one of its tokens with --mask_token_id."
        )
    mask = tokenizer.mask_token_id if task.mask_token_id is None else task.mask_token_id
    special = task.special_token_ids if task.special_token_ids is not None else sorted(tokenizer.all_special_ids)
    return dataclasses.replace(task, mask_token_id=mask, special_token_ids=special)


def without_special(input_ids: Tensor, there: Tensor, special_token_ids: Sequence[int] | None) -> Tensor:
    """Tokens that may be hidden, `(B, L)`: those that are `there`, without the special ones."""
    if not special_token_ids:
        return there
    return there & ~torch.isin(input_ids, torch.tensor(special_token_ids, device=input_ids.device))


def replaced(
    input_ids: Tensor,
    hidden: Tensor,
    mask_token_id: int | None,
    vocab_size: int,
    shares: tuple[float, float] = (0.8, 0.1),
    generator: torch.Generator | None = None,
    special_token_ids: Sequence[int] | None = None,
) -> Tensor:
    """The ids with hidden tokens (`(B, L)`, bool) as the model sees them: a share of them becomes the mask token, a
    share any token but special ones (padding would move the positions of what follows), the rest stays as it is.

    Raises `ValueError` without a mask token."""
    if mask_token_id is None:
        raise ValueError("mask_token_id is not set. Give the tokenizer's: mask_token_id=tokenizer.mask_token_id.")
    by_mask, by_random = shares
    draw = torch.rand(input_ids.shape, device=input_ids.device, generator=generator)
    any_token = torch.randint(vocab_size, input_ids.shape, device=input_ids.device, generator=generator)
    by_another = without_special(any_token, hidden & (draw < by_mask + by_random), special_token_ids)
    input_ids = torch.where(by_another, any_token, input_ids)
    return input_ids.masked_fill(hidden & (draw < by_mask), mask_token_id)


def unit_starts(
    shape: tuple[int, int],
    unit: str,
    word_starts: Tensor | None,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Where a unit begins that is hidden as a whole or not at all: `(B, L)`, bool.

    Spans begin at each word with probability `SPAN_STOP`, so that their lengths in words are geometric, as SpanBERT's;
    a span of `LONGEST_SPAN` words ends.
    """
    if unit == "token":
        return torch.ones(shape, dtype=torch.bool, device=device)
    if unit == "word":
        return word_starts
    stops = word_starts & (torch.rand(shape, device=device, generator=generator) < SPAN_STOP)
    word = word_starts.long().cumsum(1)
    begun = torch.where(stops, word, 0).cummax(1).values  # the word that the span so far began with
    return stops | (word_starts & ((word - begun) % LONGEST_SPAN == 0))


def draw_units(allowed: Tensor, starts: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws units to hide, as many as come closest to a share of each row's tokens, and at least one.

    allowed, starts (`(B, L)`, bool): which tokens may be hidden, and where units begin. Returns `(B, L)`, bool.
    """
    unit = starts.long().cumsum(1)  # (B, L)
    draw = torch.rand(len(unit), unit.shape[1] + 1, device=unit.device, generator=generator)
    score = draw.gather(1, unit).masked_fill(~allowed, 2.0)  # one number for each unit
    size = torch.zeros_like(draw).scatter_add_(1, unit, allowed.to(draw.dtype)).gather(1, unit)  # of a token's unit
    rank = score.argsort(dim=1, stable=True).argsort(dim=1)  # tokens of a unit follow each other
    rank = torch.full_like(draw, math.inf).scatter_reduce_(1, unit, rank.to(draw.dtype), "amin").gather(1, unit)
    wanted = (allowed.sum(1, keepdim=True) * ratio).clamp(min=1)
    return allowed & ((rank + size / 2 <= wanted) | (rank == 0))


def prediction_head(width: int, classes: int, epsilon: float = 1e-12) -> nn.Module:
    """What tells a hidden patch or token, as BERT's: `(..., width)` to `(..., classes)`."""
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=epsilon), nn.Linear(width, classes)
    )


def masked_prediction(head: nn.Module, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of telling what is hidden, and the share that is told: `()` each; 0 where nothing is hidden. The head
    sees hidden places alone.

    states (`(B, T, D)`), labels (`(B, T)`, `IGNORED` where nothing is hidden)."""
    hidden = labels != IGNORED
    logits, labels = head(states[hidden]), labels[hidden]
    if not len(labels):
        return logits.sum(), torch.zeros((), device=logits.device)
    return cross_entropy(logits, labels), (logits.argmax(-1) == labels).float().mean()


def visual_tokens(codebook: nn.Module, pixel_values: Tensor, training: bool) -> Tensor:
    """The codes of pictures' patches, `(B, N)`. A model is tried out, in `eval()`, before its codebook is fitted: then
    all are 0. Raises `ValueError` for one that is not fitted in training."""
    if training or codebook.fitted:
        return codebook(pixel_values)
    shape = codebook.describe(pixel_values).shape[:2]  # which says where pictures and patches don't fit
    return torch.zeros(shape, dtype=torch.long, device=pixel_values.device)
