"""Masks and predicts tokens and patches: shared code of objectives that mask.

input_ids (B, L) -> units drawn -> masked tokens (B, L), bool -> ids with replaced tokens
logits (M, vocabulary) -> sampled tokens (M,)
states (B, T, D), labels (B, T) -> masked positions only -> logits (M, classes) -> cross-entropy
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .draws import drawn_by
from .losses import cross_entropy, rows_of_a_tile

IGNORED = -100  # label of positions that are not predicted, as in PyTorch and transformers
SPAN_STOP, LONGEST_SPAN = 0.2, 10  # SpanBERT's geometric distribution of lengths in words, and the maximum length


@strict
@dataclass
class MaskTask:
    """Settings of objectives that mask tokens.

    mask_token_id: id of the mask token; a recipe takes it from the tokenizer.
    special_token_ids: ids of tokens that are never masked, for example those that begin and end a text; a recipe takes
        them from the tokenizer.
    """

    _argument_group_name: ClassVar[str] = "objective"
    # read by `forward`, so that they may be set after the model is built
    late: ClassVar[tuple[str, ...]] = ("mask_token_id", "special_token_ids")

    mask_token_id: int | None = None
    special_token_ids: list[int] | None = None


def check_share(name: str, value: float) -> None:
    """Raises `ValueError` for a share that is not above 0 and below 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, but is {value}.")


def with_tokens_of(task: MaskTask, tokenizer) -> MaskTask:
    """Returns the settings with the tokenizer's `mask_token_id` and `special_token_ids`, unless they are set already.

    Raises `ValueError` for a tokenizer without a mask token."""
    if task.mask_token_id is None and tokenizer.mask_token_id is None:
        raise ValueError(
            f"The tokenizer ({type(tokenizer).__name__}) has no mask token, like tokenizers of causal language models. "
            "Give another --tokenizer, or the id of one of its tokens as --mask_token_id."
        )
    mask = tokenizer.mask_token_id if task.mask_token_id is None else task.mask_token_id
    special = task.special_token_ids if task.special_token_ids is not None else sorted(tokenizer.all_special_ids)
    return dataclasses.replace(task, mask_token_id=mask, special_token_ids=special)


def without_special(input_ids: Tensor, attention_mask: Tensor, special_token_ids: Sequence[int] | None) -> Tensor:
    """Returns which tokens may be masked, `(B, L)`, bool: those of the attention mask that are not special tokens.

    input_ids (`(B, L)`), attention_mask (`(B, L)`, bool)."""
    if not special_token_ids:
        return attention_mask
    return attention_mask & ~torch.isin(input_ids, on_device(tuple(special_token_ids), input_ids.device))


@functools.lru_cache(maxsize=64)
def on_device(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Returns token ids as a tensor, copied to a device once: each copy from the CPU waits for the device."""
    return torch.tensor(ids, device=device)


def replaced(
    input_ids: Tensor,
    hidden: Tensor,
    mask_token_id: int | None,
    vocab_size: int,
    shares: tuple[float, float] = (0.8, 0.1),
    generator: torch.Generator | None = None,
    special_token_ids: Sequence[int] | None = None,
) -> Tensor:
    """Returns token ids `(B, L)` in which the tokens to predict are replaced, as in BERT.

    hidden (`(B, L)`, bool): tokens to predict. shares: share of them that becomes the mask token, and share that
    becomes a random token; the rest does not change. Random tokens are never special ones: a padding token would shift
    the positions of the tokens after it.
    Raises `ValueError` without a mask token."""
    if mask_token_id is None:
        raise ValueError("mask_token_id is not set. Give the tokenizer's: mask_token_id=tokenizer.mask_token_id.")
    by_mask, by_random = shares
    options = {"device": input_ids.device, **drawn_by(generator)}
    draw = torch.rand(input_ids.shape, **options)
    any_token = torch.randint(vocab_size, input_ids.shape, **options)
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
    """Returns the tokens at which units begin: `(B, L)`, bool. All tokens of a unit are masked, or none of them.

    shape: B and L. unit: "token", "word" or "span" (of words). word_starts (`(B, L)`, bool): first tokens of words. A
    span begins at a word with probability `SPAN_STOP`, so that the lengths of spans in words are geometric, as in
    SpanBERT. Spans have at most `LONGEST_SPAN` words.
    """
    if unit == "token":
        return torch.ones(shape, dtype=torch.bool, device=device)
    if unit == "word":
        return word_starts
    stops = word_starts & (torch.rand(shape, device=device, **drawn_by(generator)) < SPAN_STOP)
    word = word_starts.long().cumsum(1)
    begun = torch.where(stops, word, 0).cummax(1).values  # number of the word that began the current span
    return stops | (word_starts & ((word - begun) % LONGEST_SPAN == 0))


def draw_units(allowed: Tensor, starts: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws units to mask, so that the number of masked tokens is as close as possible to a share of each row's tokens.

    allowed (`(B, L)`, bool): tokens that may be masked. starts (`(B, L)`, bool): tokens at which units begin. ratio:
    share of the allowed tokens to mask; at least one unit is drawn. Returns `(B, L)`, bool.
    """
    unit = starts.long().cumsum(1)  # (B, L)
    draw = torch.rand(len(unit), unit.shape[1] + 1, device=unit.device, **drawn_by(generator))
    score = draw.gather(1, unit).masked_fill(~allowed, 2.0)  # one random number per unit
    size = torch.zeros_like(draw).scatter_add_(1, unit, allowed.to(draw.dtype)).gather(1, unit)  # of a token's unit
    rank = score.argsort(dim=1, stable=True).argsort(dim=1)  # tokens of a unit stay together
    rank = torch.full_like(draw, math.inf).scatter_reduce_(1, unit, rank.to(draw.dtype), "amin").gather(1, unit)
    target = (allowed.sum(1, keepdim=True) * ratio).clamp(min=1)
    return allowed & ((rank + size / 2 <= target) | (rank == 0))


def draw_masked(
    allowed: Tensor,
    ratio: float,
    unit: str = "token",
    word_starts: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws the tokens to mask, as `draw_units` does, with the units of `unit_starts`. Returns `(B, L)`, bool.

    allowed (`(B, L)`, bool): tokens that may be masked. Raises `ValueError` if `unit` needs `word_starts` and gets
    none."""
    if unit != "token" and word_starts is None:
        raise ValueError(
            f"unit={unit!r} needs word_starts in the batch, but got None. Give a bool tensor (B, L), True at the first "
            "token of each word."
        )
    starts = unit_starts(allowed.shape, unit, word_starts, allowed.device, generator)
    return draw_units(allowed, starts, ratio, generator)


@torch.no_grad()
def sampled(
    logits: Tensor,
    temperature: float = 1.0,
    special_token_ids: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples a token from the softmax of each row of logits: `(M, vocabulary)` to `(M,)`, without gradient.

    temperature: divides the logits. special_token_ids: tokens that are never sampled.

    The argmax of logits with Gumbel noise, -log(-log(uniform)), is such a sample. Unlike `multinomial`, it does not
    wait for the device. A tile of rows is computed at a time."""
    exact, tokens = torch.promote_types(logits.dtype, torch.float32), []
    for tile in logits.split(rows_of_a_tile(logits, logits.shape[1])):
        scores = tile.to(exact) / temperature
        if special_token_ids:
            scores.index_fill_(1, on_device(tuple(special_token_ids), logits.device), -math.inf)
        noise = torch.rand(scores.shape, dtype=exact, device=scores.device, **drawn_by(generator))
        noise = noise.log_().neg_().log_()  # four times faster on a CPU than exponential_().log_()
        tokens.append(scores.sub_(noise).argmax(1))
    return torch.cat(tokens)


def prediction_head(width: int, classes: int, epsilon: float = 1e-12) -> nn.Module:
    """Creates a head that predicts masked patches or tokens, as in BERT: `(..., width)` to `(..., classes)`."""
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=epsilon), nn.Linear(width, classes)
    )


def positions_of(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows and columns of the True values of `hidden` (`(B, T)`, bool), `(M,)` each, row by row.

    Index with them instead of `hidden`: each index with a bool tensor, and its backward pass, counts the True values,
    for which the CPU waits for the device. This function is the one place that waits."""
    return hidden.nonzero(as_tuple=True)


@contextmanager
def applied_at(head: nn.Module, where: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Context manager in which a layer is applied to some positions only: of its input `(B, T, D)` it gets `(M, D)`.

    where: rows and columns of the M positions, see `positions_of`. A head over a vocabulary takes most of the compute
    of a small model."""
    handle = head.register_forward_pre_hook(lambda module, arguments: (arguments[0][where], *arguments[1:]))
    try:
        yield
    finally:
        handle.remove()


def masked_prediction(head: nn.Module, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the loss and the accuracy of predictions at masked positions: `()` each, 0 if no position is masked.

    states (`(B, T, D)`), labels (`(B, T)`, `IGNORED` at positions that are not masked). The head is applied to masked
    positions only."""
    where = positions_of(labels != IGNORED)
    logits, labels = head(states[where]), labels[where]
    if not len(labels):
        return logits.sum(), torch.zeros((), device=logits.device)
    return cross_entropy(logits, labels), (logits.argmax(-1) == labels).float().mean()


def visual_tokens(codebook: nn.Module, pixel_values: Tensor, training: bool) -> Tensor:
    """Returns the codes of images' patches, `(B, N)`.

    All codes are 0 in `eval()` if the codebook is not fitted, because a model is tried before its codebook is fitted.
    Raises `ValueError` in training if the codebook is not fitted."""
    if training or codebook.fitted:
        return codebook(pixel_values)
    shape = codebook.describe(pixel_values).shape[:2]  # raises an error if images and patches don't fit
    return torch.zeros(shape, dtype=torch.long, device=pixel_values.device)
