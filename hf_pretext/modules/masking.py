"""Masking words and patches, and predicting them: what objectives that mask share.

input_ids (B, L) -> units drawn -> hidden (B, L), ids with others in their place
states (B, T, D), labels (B, T) -> hidden ones alone -> logits (M, classes) -> cross-entropy
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .losses import cross_entropy

IGNORED = -100  # the label of what is not to be predicted, as everywhere
SPAN_STOP, LONGEST_SPAN = 0.2, 10  # SpanBERT's geometric distribution of lengths, and where it is cut


@strict
@dataclass
class MaskTask:
    """Settings of objectives that mask tokens.

    mask_token_id: the mask token; a recipe takes it from the tokenizer.
    special_token_ids: tokens that are never masked, as those that begin and end a text; from the tokenizer too.
    """

    _argument_group_name: ClassVar[str] = "objective"

    mask_token_id: int | None = None
    special_token_ids: list[int] | None = None


def check_share(name: str, value: float) -> None:
    """Raises `ValueError` for a share that is not between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, but is {value}.")


def with_tokens_of(task: MaskTask, tokenizer) -> MaskTask:
    """Settings with the tokenizer's `mask_token_id` and `special_token_ids` where they leave them open.

    Raises `ValueError` for a tokenizer without a mask token."""
    if task.mask_token_id is None and tokenizer.mask_token_id is None:
        raise ValueError(
            f"The tokenizer ({type(tokenizer).__name__}) has no mask token, as those of causal language models. "
            "Give another --tokenizer, or name one of its tokens with --mask_token_id."
        )
    mask = tokenizer.mask_token_id if task.mask_token_id is None else task.mask_token_id
    special = task.special_token_ids if task.special_token_ids is not None else sorted(tokenizer.all_special_ids)
    return dataclasses.replace(task, mask_token_id=mask, special_token_ids=special)


def without_special(input_ids: Tensor, attention_mask: Tensor, special_token_ids: Sequence[int] | None) -> Tensor:
    """Tokens that may be masked, `(B, L)`: those of the attention mask (bool), without the special ones."""
    if not special_token_ids:
        return attention_mask
    return attention_mask & ~torch.isin(input_ids, torch.tensor(special_token_ids, device=input_ids.device))


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
    randomised = without_special(any_token, hidden & (draw < by_mask + by_random), special_token_ids)
    input_ids = torch.where(randomised, any_token, input_ids)
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
    """What predicts a masked patch or token, as BERT's: `(..., width)` to `(..., classes)`."""
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=epsilon), nn.Linear(width, classes)
    )


def masked_prediction(head: nn.Module, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of predicting what is masked, and the accuracy: `()` each; 0 where nothing is masked. The head sees
    masked positions alone.

    states (`(B, T, D)`), labels (`(B, T)`, `IGNORED` where nothing is hidden)."""
    hidden = labels != IGNORED
    logits, labels = head(states[hidden]), labels[hidden]
    if not len(labels):
        return logits.sum(), torch.zeros((), device=logits.device)
    return cross_entropy(logits, labels), (logits.argmax(-1) == labels).float().mean()


def visual_tokens(codebook: nn.Module, pixel_values: Tensor, training: bool) -> Tensor:
    """The codes of images' patches, `(B, N)`. A model is tried out, in `eval()`, before its codebook is fitted: then
    all are 0. Raises `ValueError` for one that is not fitted in training."""
    if training or codebook.fitted:
        return codebook(pixel_values)
    shape = codebook.describe(pixel_values).shape[:2]  # which says where images and patches don't fit
    return torch.zeros(shape, dtype=torch.long, device=pixel_values.device)
