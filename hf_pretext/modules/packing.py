"""Separates the documents of packed sequences in the attention of a text encoder.

document_ids (B, L) -> attention mask (B, 1, L, L) and positions (B, L) of the encoder
"""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..features import positions


class Packing:
    """What an encoder needs to process packed sequences as if each document were alone.

    encoder: a model that takes input_ids and returns a last hidden state. causal: True for a causal language model, in
    which a token attends to those before it. The mask of documents replaces transformers' causal one, so it must
    contain it.
    """

    def __init__(self, encoder: PreTrainedModel, causal: bool = False):
        self.encoder, self.causal = encoder, causal
        self.takes = set(inspect.signature(encoder.forward).parameters)
        self.first_position = positions(encoder)[0]

    def inputs(self, document_ids: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        """Returns the encoder inputs that separate packed documents: attention_mask (one per layer type if there are
        several), and position_ids if the encoder takes them. document_ids: `(B, L)`, 0 for padding."""
        dtype, config = self.encoder.dtype, self.encoder.config
        layer_types = set(getattr(config, "layer_types", None) or ())
        if self.causal:
            window = getattr(config, "sliding_window", None)
            near = None if window is None else window - 1
        else:
            near = config.local_attention // 2 if layer_types else None
        if layer_types:
            mask = {
                kind: document_mask(document_ids, dtype, near if "sliding" in kind else None, self.causal)
                for kind in layer_types
            }
        else:
            mask = document_mask(document_ids, dtype, near, self.causal)
        inputs = {"attention_mask": mask}
        if "position_ids" in self.takes:
            inputs["position_ids"] = positions_inside(document_ids) + self.first_position
        return inputs

    @torch.no_grad()
    def works(self, length: int = 128) -> bool:
        """Returns whether the encoder separates the documents of a packed sequence.

        Encodes two documents in one packed sequence and each one alone, and compares the hidden states. The test is
        needed because some architectures silently ignore a mask per document. length: tokens of the packed sequence."""
        encoder, length = self.encoder, max(length, 3)  # below 3, the first document is empty
        training, device, config = encoder.training, encoder.device, encoder.config
        encoder.eval()
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(config.vocab_size, (1, length), generator=random).to(device)
        tokens[tokens == config.pad_token_id] = 0 if config.pad_token_id else 1  # padding gets no position
        documents = (torch.arange(length, device=device)[None] >= length // 3) + 1
        alone = torch.cat([encoder(tokens[documents == i][None]).last_hidden_state for i in (1, 2)], dim=1)
        together = encoder(tokens).last_hidden_state
        try:
            packed = encoder(tokens, **self.inputs(documents)).last_hidden_state
        except (TypeError, ValueError, RuntimeError, AttributeError):  # architectures differ in what they raise
            return False
        finally:
            encoder.train(training)
        return bool((packed - alone).abs().max() < 0.01 * (together - alone).abs().max())


def document_mask(document_ids: Tensor, dtype: torch.dtype, near: int | None = None, causal: bool = False) -> Tensor:
    """Returns the additive attention mask `(B, 1, L, L)` that limits attention to tokens of the same document.

    document_ids: `(B, L)`, 0 for padding; padding attends to padding. near: maximum distance in tokens between a token
    and those it attends to; None for no maximum. causal: True limits attention to a token and those before it.
    """
    same = document_ids[:, :, None] == document_ids[:, None, :]
    at = torch.arange(document_ids.shape[1], device=document_ids.device)
    if near is not None:
        same = same & ((at[:, None] - at).abs() <= near)
    if causal:
        same = same & (at[:, None] >= at)
    blocked = torch.zeros(same.shape, dtype=dtype, device=same.device)
    return blocked.masked_fill_(~same, torch.finfo(dtype).min)[:, None]


def positions_inside(document_ids: Tensor) -> Tensor:
    """Returns the position of each token in its document, `(B, L)`, from 0. document_ids: `(B, L)`."""
    at = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return at - torch.where(begins, at, 0).cummax(1).values
