"""One vector of each text, and checks that an encoder gives vectors that an objective can learn from.

input_ids (B, L), attention_mask (B, L) -> encoder -> (B, L, D) -> pooled (B, D)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..encoders import tried
from ..features import Pooling, pool
from .dual_encoder import normalised

SAME = 1e-6  # vectors of length 1 that differ by less are the same


def vectors_of(
    encoder: PreTrainedModel, pooling: Pooling, input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Returns the vector of each text, `(B, D)`. input_ids, attention_mask: `(B, L)`; by default, all are tokens."""
    hidden = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return pool(hidden, attention_mask, pooling)


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
