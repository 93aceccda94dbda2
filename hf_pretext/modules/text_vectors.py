"""One vector of each text, the loss of SimCSE, and checks of an encoder that gives vectors.

input_ids (B, L), attention_mask (B, L) -> encoder -> (B, L, D) -> pooled (B, D)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..encoders import tried
from ..features import Pooling, pool
from .distributed import gather
from .dual_encoder import normalised, pair_labels
from .losses import softmax_loss

COMPARED = 256  # texts of a batch that count for the accuracy
SAME = 1e-6  # vectors of length 1 that differ by less are the same


def vectors_of(
    encoder: PreTrainedModel, pooling: Pooling, input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Returns the vector of each text, `(B, D)`. input_ids, attention_mask: `(B, L)`; by default, all are tokens."""
    hidden = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return pool(hidden, attention_mask, pooling)


def simcse(
    first: Tensor, second: Tensor, *negatives: Tensor, temperature: float, everywhere: bool
) -> tuple[Tensor, Tensor]:
    """Returns loss and accuracy of SimCSE, `()` each. first, second: of two passes of each text, `(B, D)`, of length 1.
    negatives: of hard negatives, `(B, D)`. everywhere: compares the texts of all ranks; else each rank compares its
    texts with each other only. The accuracy is that of this rank, over the first `COMPARED` texts."""
    everyone = torch.cat([gather(each, everywhere) for each in (second, *negatives)])
    labels = pair_labels(None, len(first), first.device, everywhere)
    all_labels = torch.arange(len(everyone), device=first.device)
    scale = first.new_full((), 1 / temperature)
    loss = softmax_loss(first, everyone, scale, labels, all_labels, symmetric=False)
    with torch.no_grad():
        nearest = (first[:COMPARED] @ second.T).argmax(1)
        accuracy = (nearest == torch.arange(len(nearest), device=nearest.device)).float().mean()
    return loss, accuracy


@contextmanager
def with_dropout(encoder: PreTrainedModel, device: torch.device, seed: int) -> Iterator[None]:
    """Context manager with dropout in an encoder in `eval()`, from a seed. Global generators stay unchanged."""
    training = encoder.training
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        encoder.train()
        try:
            yield
        finally:
            encoder.train(training)


def check_vectors(encoder: PreTrainedModel, pooling: Pooling) -> None:
    """Raises `ValueError` if an encoder gives different texts with the same first token the same vector."""
    with two_texts(encoder) as ids:
        same = distance(vectors_of(encoder, pooling, ids)) < SAME
    if same:
        raise ValueError(
            f"{type(encoder).__name__} gives all texts with the same first token the same vector with pooling="
            f"{pooling!r}: the first token does not see the others. Set pooling='mean'."
        )


def check_dropout(encoder: PreTrainedModel, pooling: Pooling) -> None:
    """Raises `ValueError` if two passes of an encoder in training give a text the same vector."""
    with two_texts(encoder) as ids:
        encoder.train()
        same = distance(vectors_of(encoder, pooling, ids[:1].repeat(2, 1))) < SAME
    if same:
        values = encoder.config.to_dict().items()
        fields = [f"{name}={value}" for name, value in values if "drop" in name and isinstance(value, (int, float))]
        raise ValueError(
            f"Two passes of a text need dropout, but those of {type(encoder).__name__} give the same vector in "
            f"training. Its config has {', '.join(fields) or 'no dropout'}. Set dropout to 0.1 there, or set "
            "method='tsdae'."
        )


@contextmanager
def two_texts(encoder: PreTrainedModel) -> Iterator[Tensor]:
    """Context manager for trials of an encoder, which gives two random texts with the same first token, `(2, 6)`."""
    with tried(encoder):
        ids = torch.randint(encoder.config.vocab_size, (2, 6), generator=torch.Generator().manual_seed(0))
        ids[1, 0] = ids[0, 0]
        yield ids.to(encoder.device)


def distance(vectors: Tensor) -> float:
    """Returns the largest difference of two vectors `(2, D)`, after scaling to length 1."""
    first, second = normalised(vectors)
    return float((first - second).abs().max())
