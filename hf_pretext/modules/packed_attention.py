"""Attention inside the documents of packed sequences, without a mask over all pairs of tokens.

query, key, value (B, H, L, D), document_ids (B, 1, 1, L) in place of the attention mask -> (B, L, H, D)

PyTorch's attention kernels convert a mask of booleans to the dtype of the query, `(B, 1, L, L)` in each layer. Here
each document is processed alone, so the memory grows with the squared lengths of documents, not of sequences.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_of_documents"  # of this attention in transformers, as in `set_attn_implementation`
SHORT, SHORT_ON_GPU = 256, 1024  # sequences up to this length, in tokens: a mask of all pairs is as fast, and small
SMALLEST_BLOCK = 16  # tokens


class Reach(NamedTuple):
    """Which tokens of its document a token attends to.

    causal: not to later ones. near: maximum distance in tokens; None for no maximum."""

    causal: bool = False
    near: int | None = None

    def mask(self, distance: Tensor) -> Tensor:
        """Returns True where attention is allowed. distance: position of the query minus position of the key."""
        allowed = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        return allowed if self.near is None else allowed & (distance.abs() <= self.near)

    def masks(self, length: int) -> bool:
        """Returns whether a document of this length needs a mask for the maximum distance."""
        return self.near is not None and length > self.near + 1


def sdpa_of_documents(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Returns the output of attention, `(B, L, H, D)`: transformers' interface of attention functions.

    attention_mask: document ids, integers `(B, 1, 1, L)`, for attention inside documents. Any other mask, or None,
    gives the result of transformers' "sdpa". sliding_window: maximum distance in tokens, plus one.
    Raises `ValueError` for arguments that attention inside documents does not support."""
    if attention_mask is None or attention_mask.dtype.is_floating_point or attention_mask.dtype == torch.bool:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, sliding_window=sliding_window,
            **kwargs,
        )  # fmt: skip
    refused = [name for name in ("position_bias", "softcap", "s_aux") if kwargs.get(name) is not None]
    if refused:
        raise ValueError(f"Attention inside documents does not support {refused[0]}. Give the texts without packing.")
    groups = getattr(module, "num_key_value_groups", 1)
    qkv = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    reach = Reach(causal, None if sliding_window is None else sliding_window - 1)
    attend = functools.partial(F.scaled_dot_product_attention, dropout_p=dropout, scale=scaling)
    return way_of(query, reach)(attend, qkv, attention_mask, reach), None


AttentionInterface.register(NAME, sdpa_of_documents)
AttentionMaskInterface.register(NAME, sdpa_mask)  # of sequences that are not packed


def way_of(query: Tensor, reach: Reach) -> Callable[..., Tensor]:
    """Returns the function below that is fastest for these sequences, `(B, H, L, D)`."""
    length, on_cpu = query.shape[2], query.device.type == "cpu"
    # the lengths of documents change with each batch: a compiled graph with them would be compiled for each batch
    if torch.compiler.is_compiling() or length <= (SHORT if on_cpu else SHORT_ON_GPU):
        return with_mask
    if reach.near is not None and 3 * max(reach.near, SMALLEST_BLOCK) <= length:
        return in_blocks
    return one_by_one if on_cpu else by_length  # on a GPU, launching kernels for each document takes too long


def with_mask(attend: Callable, qkv: tuple[Tensor, ...], document_ids: Tensor, reach: Reach) -> Tensor:
    """Attends with a mask of all pairs of tokens, `(B, 1, L, L)`, bool."""
    at = torch.arange(document_ids.shape[-1], device=document_ids.device)
    same = document_ids == document_ids.transpose(2, 3)
    return attend(*qkv, attn_mask=same & reach.mask(at[:, None] - at)).transpose(1, 2)


def one_by_one(attend: Callable, qkv: tuple[Tensor, ...], document_ids: Tensor, reach: Reach) -> Tensor:
    """Attends in one document after the other."""
    lengths, outputs = lengths_of(document_ids), []
    documents = (x.transpose(1, 2).flatten(0, 1).split(lengths) for x in qkv)  # (n, H, D) each
    for parts in zip(*documents, strict=True):
        mask, length = None, len(parts[0])
        if reach.masks(length):
            at = torch.arange(length, device=document_ids.device)
            mask = reach.mask(at[:, None] - at)
        of_document = (x.transpose(0, 1)[None] for x in parts)  # (1, H, n, D)
        output = attend(*of_document, attn_mask=mask, is_causal=reach.causal and mask is None)
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs).unflatten(0, (len(document_ids), -1))


def by_length(attend: Callable, qkv: tuple[Tensor, ...], document_ids: Tensor, reach: Reach) -> Tensor:
    """Attends in groups of documents of similar lengths, padded to the longest of the group."""
    groups, where = groups_of(document_ids)
    flat, outputs = [x.transpose(1, 2).flatten(0, 1) for x in qkv], []  # (B * L, H, D)
    for index, real in groups:  # (n, l)
        mask = None if reach.causal else real[:, None, None]  # padding is at the end: no token before it attends to it
        if reach.masks(index.shape[1]):
            at = torch.arange(index.shape[1], device=index.device)
            mask = reach.mask(at[:, None] - at) & real[:, None, None]
        of_group = (x.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2) for x in flat)
        output = attend(*of_group, attn_mask=mask, is_causal=mask is None)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, where).unflatten(0, (len(document_ids), -1))


def in_blocks(attend: Callable, qkv: tuple[Tensor, ...], document_ids: Tensor, reach: Reach) -> Tensor:
    """Attends in blocks of `reach.near` tokens: tokens of a block attend to this block and those next to it."""
    block = max(reach.near, SMALLEST_BLOCK)
    length, after = document_ids.shape[-1], 0 if reach.causal else block
    fill = -length % block
    query, *others = (F.pad(x, (0, 0, 0, fill)) for x in qkv)
    query = query.unflatten(2, (-1, block)).transpose(1, 2).flatten(0, 1)  # (B * blocks, H, block, D)
    size = 2 * block + after
    others = [F.pad(x, (0, 0, block, after)).unfold(2, size, block).permute(0, 2, 1, 4, 3).flatten(0, 1)
              for x in others]  # fmt: skip
    ids = F.pad(document_ids[:, 0, 0], (0, fill), value=-1)  # padding attends to padding: a row without keys gives NaN
    of_keys = F.pad(ids, (block, after), value=-1).unfold(1, size, block).flatten(0, 1)  # (B * blocks, size)
    of_queries = ids.unflatten(1, (-1, block)).flatten(0, 1)
    at = torch.arange(size, device=ids.device)
    mask = (of_queries[:, :, None] == of_keys[:, None]) & reach.mask(at[:block, None] + block - at)
    output = attend(query, *others, attn_mask=mask[:, None])
    return output.unflatten(0, (len(ids), -1)).transpose(2, 3).flatten(1, 2)[:, :length]


@functools.lru_cache(maxsize=4)  # all layers get the same tensor, and reading its values waits for the device
def lengths_of(document_ids: Tensor) -> list[int]:
    """Returns the length of each document in tokens, row by row. document_ids: `(B, 1, 1, L)`."""
    ids = document_ids[:, 0, 0]
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    starts = begins.flatten().nonzero().flatten().tolist()
    return [end - start for start, end in zip(starts, [*starts[1:], ids.numel()], strict=True)]


@functools.lru_cache(maxsize=4)
def groups_of(document_ids: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Returns groups of documents of similar lengths, and the place of each token in the groups one after the other.

    document_ids: `(B, 1, 1, L)`. A group has the indices of its tokens in the flat batch, `(n, l)`, and True for those
    that are not padding, `(n, l)`. l is at most 1.25 times the length of each document, plus 8. Places: `(B * L,)`."""
    members: dict[int, list[tuple[int, int]]] = {}
    start = 0
    for length in lengths_of(document_ids):
        step = max(8, 2 ** (math.frexp(length)[1] - 3))
        members.setdefault(-(-length // step) * step, []).append((start, length))
        start += length
    groups, where, before = [], torch.empty(start, dtype=torch.long), 0
    for size, documents in members.items():
        starts, lengths = torch.tensor(documents).T[..., None]
        real = torch.arange(size) < lengths
        index = torch.where(real, starts + torch.arange(size), starts)
        where[index[real]] = before + real.flatten().nonzero().flatten()
        before += real.numel()
        groups.append((index.to(document_ids.device), real.to(document_ids.device)))
    return groups, where.to(document_ids.device)
