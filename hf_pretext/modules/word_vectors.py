"""Texts of any length as one vector each, by a vector for each word; and the tokens and masks of texts.

input_ids, attention_mask (B, L) -> word vectors (B, L, V) -> maximum over the words -> (B, D)
"""

import torch
from torch import Tensor, nn


class WordVectors(nn.Module):
    """MIL-NCE's encoder of texts: a vector and a layer for each word, the maximum over all words, and one layer."""

    def __init__(self, words: int, dim: int, hidden: int, size: int):
        super().__init__()
        self.vectors, self.hidden = nn.Embedding(words, dim), nn.Linear(dim, hidden)
        self.output = nn.Linear(hidden, size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns embeddings `(B, size)`, of any length, for texts `(B, L)`."""
        hidden = self.hidden(self.vectors(input_ids)).relu()
        return self.output(hidden.masked_fill(attention_mask[..., None] == 0, 0).amax(1))  # 0 is the least


def tokens_of(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns 1 + the token id where the mask is set, else 0: equal for equal texts of any padding."""
    return (input_ids + 1).masked_fill(attention_mask == 0, 0)


def attended(input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Returns the attention mask of texts `(B, L)`. A missing text, which has no token to attend to, attends to all:
    attention over nothing gives NaN, also in the gradients of the other texts."""
    if attention_mask is None:
        return torch.ones_like(input_ids)
    return torch.where(attention_mask.any(1, keepdim=True), attention_mask, 1)
