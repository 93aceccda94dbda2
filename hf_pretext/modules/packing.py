"""Separates the documents of packed sequences in the attention of a text encoder.

document_ids (B, L) -> attention inputs and positions (B, L) of the encoder

The attention inputs depend on the attention implementation of the encoder:

sdpa               the document ids; attention inside each document, see `packed_attention.py`
flash_attention_*  the starts of the documents, for kernels of sequences of different lengths
flex_attention     a `BlockMask`, made from the document ids
others             a mask of all pairs of tokens, (B, 1, L, L)
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    and_masks,
    packed_sequence_mask_function,
    sliding_window_bidirectional_overlay,
)

from ..features import positions
from .packed_attention import NAME as OF_DOCUMENTS

TRIED = 128  # tokens of a packed sequence that shows whether an encoder separates documents
SEPARABLE = {"full_attention", "sliding_attention"}  # layer types that `packed_attention.py` computes


class Packing:
    """What an encoder needs to process packed sequences as if each document were alone.

    The attention implementation "sdpa" of the encoder becomes "sdpa_of_documents", if its architecture supports other
    implementations. It gives the same results without packing, and is not saved in checkpoints.

    encoder: a model that takes input_ids and returns a last hidden state. causal: True if each token attends only to
    those before it, as in a causal language model.
    """

    def __init__(self, encoder: PreTrainedModel, causal: bool = False):
        self.encoder, self.causal = encoder, causal
        self.separates: bool | None = None  # not tried yet
        self.takes = set(inspect.signature(encoder.forward).parameters)
        self.first_position = positions(encoder)[0]
        self.layer_types = set(getattr(encoder.config, "layer_types", None) or ())
        exchangeable = encoder._supports_attention_backend and self.layer_types <= SEPARABLE
        if exchangeable and self.attention == "sdpa":
            encoder.set_attn_implementation(OF_DOCUMENTS)

    @property
    def attention(self) -> str:
        """The attention implementation of the encoder, e.g. "sdpa_of_documents" or "flash_attention_2"."""
        return self.encoder.config._attn_implementation

    @property
    def flash(self) -> bool:
        """True if the encoder uses a kernel of the flash-attention packages."""
        return "flash" in self.attention

    def inputs(self, document_ids: Tensor | None, attention_mask: Tensor | None = None) -> dict[str, Any]:
        """Returns the encoder inputs that separate packed documents. document_ids: `(B, L)`, 0 for padding; None: each
        row is one document, and attention_mask is returned. Raises `ValueError` for an encoder that does not separate
        documents, see `works`.

        attention_mask: see the top of this file; None for flash attention, and for a causal encoder that makes its mask
        from positions that restart. position_ids (`(B, L)`): if the encoder takes them."""
        if document_ids is None:
            return {"attention_mask": attention_mask}
        if self.separates is None:
            self.works(min(document_ids.shape[1], TRIED))
        if not self.separates:
            raise ValueError(
                f"{type(self.encoder).__name__} does not separate the documents of packed sequences. Give one document "
                "a row, with attention_mask."
            )
        return self.separating(document_ids)

    def separating(self, document_ids: Tensor) -> dict[str, Any]:
        """Returns the inputs that separate documents in most encoders, see `inputs`."""
        inputs: dict[str, Any] = {"attention_mask": None}
        if "position_ids" in self.takes:
            inputs["position_ids"] = positions_inside(document_ids) + self.first_position
        if self.causal and "use_cache" in self.takes:
            inputs["use_cache"] = False  # with a cache, transformers does not look for restarts in position_ids
        if self.attention == OF_DOCUMENTS:
            inputs["attention_mask"] = document_ids[:, None, None]
        elif self.flash:
            inputs |= document_bounds(document_ids)
        elif not (self.causal and "position_ids" in inputs):
            inputs["attention_mask"] = self.mask(document_ids)
        return inputs

    def mask(self, document_ids: Tensor) -> Any:
        """Returns transformers' mask of packed sequences for a bidirectional encoder, one per layer type if there are
        several. Its type depends on the attention implementation. Raises `ValueError` for an unknown layer type."""
        kinds = {None: packed_sequence_mask_function(document_ids)}
        if self.layer_types:
            if not self.layer_types <= SEPARABLE:
                raise ValueError(f"Layers of type {sorted(self.layer_types - SEPARABLE)[0]} can't separate documents.")
            near = sliding_window_bidirectional_overlay(getattr(self.encoder.config, "sliding_window", None))
            kinds = {
                kind: and_masks(kinds[None], near) if kind == "sliding_attention" else kinds[None]
                for kind in self.layer_types
            }
        rows, length = document_ids.shape
        options = dict(batch_size=rows, q_length=length, kv_length=length, allow_is_causal_skip=False)
        options |= dict(dtype=self.encoder.dtype, device=document_ids.device, config=self.encoder.config)
        make = ALL_MASK_ATTENTION_FUNCTIONS[self.attention]
        masks = {kind: make(mask_function=function, **options) for kind, function in kinds.items()}
        return masks if self.layer_types else masks[None]

    @torch.no_grad()
    def works(self, length: int = TRIED) -> bool:
        """Returns whether the encoder separates the documents of a packed sequence.

        Encodes two documents in one packed sequence and each one alone, and compares the hidden states. The test is
        needed because some architectures silently ignore a mask per document. length: tokens of the packed sequence.

        Flash attention is tested on the accelerator, and an encoder in float32 under autocast to bfloat16, because its
        kernels need both."""
        encoder, length = self.encoder, max(length, 3)  # below 3, the first document is empty
        training, home, config = encoder.training, encoder.device, encoder.config
        moves = self.flash and home.type == "cpu" and torch.accelerator.is_available()
        device = torch.accelerator.current_accelerator() if moves else home
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(config.vocab_size, (1, length), generator=random).to(device)
        tokens[tokens == config.pad_token_id] = 0 if config.pad_token_id else 1  # padding gets no position
        documents = (torch.arange(length, device=device)[None] >= length // 3) + 1
        lower = self.flash and encoder.dtype == torch.float32
        try:
            encoder.eval()
            if moves:
                encoder.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=lower):
                alone = [encoder(tokens[documents == i][None]).last_hidden_state for i in (1, 2)]
                together = encoder(tokens).last_hidden_state
                packed = encoder(tokens, **self.separating(documents)).last_hidden_state
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, AttributeError, AssertionError):  # architectures differ in these
            self.separates = False
            return False
        finally:
            encoder.train(training)
            if moves:
                encoder.to(home)
        alone = torch.cat(alone, dim=1)
        tolerance = 0.1 if lower or encoder.dtype != torch.float32 else 0.01  # lower precision rounds
        self.separates = bool((packed - alone).abs().max() < tolerance * (together - alone).abs().max())
        return self.separates


def present_tokens(input_ids: Tensor, attention_mask: Tensor | None, document_ids: Tensor | None = None) -> Tensor:
    """Returns which positions have tokens and not padding, `(B, L)`, bool: by document_ids, else by attention_mask,
    else all. All: `(B, L)`."""
    if document_ids is not None:
        return document_ids > 0
    return torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()


def document_bounds(document_ids: Tensor) -> dict[str, Tensor | int]:
    """Returns where documents begin in the flat batch, as transformers passes it to flash attention.

    document_ids: `(B, L)`. Padding is one more document of its row. The maximum length is L, for all batches."""
    starts = (positions_inside(document_ids).flatten() == 0).nonzero().flatten()
    bounds = torch.nn.functional.pad(starts, (0, 1), value=document_ids.numel()).int()
    length = document_ids.shape[1]
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": length, "max_length_k": length}


def positions_inside(document_ids: Tensor) -> Tensor:
    """Returns the position of each token in its document, `(B, L)`, from 0. document_ids: `(B, L)`."""
    at = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return at - torch.where(begins, at, 0).cummax(1).values
