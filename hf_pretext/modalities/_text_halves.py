"""Cuts a tokenised text into two halves, each with the special tokens of the text.

input_ids (T,) [CLS] a b c d [SEP] -> [CLS] a b [SEP], [CLS] c d [SEP]
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.decoding import BadSample
from ._modality import Example


def halves(
    example: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase, padded: bool = False
) -> tuple[Example, Example]:
    """Returns the two halves of a text, cut at the begin of a word next to its middle.

    example: input_ids `(T,)`; attention_mask and word_starts `(T,)` where it has them. padded: True pads each half to
    `(T,)`. Returns input_ids `(t,)`, and attention_mask if the example has one. Raises `BadSample` for a text with less
    than two tokens."""
    ids, mask = torch.as_tensor(example["input_ids"]), example.get("attention_mask")
    present = ids != tokenizer.pad_token_id if mask is None else torch.as_tensor(mask).bool()
    tokens = ids[present]
    content = (~torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))).nonzero().flatten().tolist()
    if len(content) < 2:
        raise BadSample("a text with less than two tokens, which has no halves")
    first, end = content[0], content[-1] + 1
    middle = (first + end) // 2
    if "word_starts" in example:
        starts = torch.as_tensor(example["word_starts"])[present]
        begins = [at for at in range(first + 1, end) if starts[at]]
        middle = min(begins, key=lambda at: abs(at - middle), default=middle)
    before, after = tokens[:first], tokens[end:]
    parts = (torch.cat([before, some, after]) for some in (tokens[first:middle], tokens[middle:end]))
    one, other = (columns(part, len(ids) if padded else 0, tokenizer.pad_token_id, mask is not None) for part in parts)
    return one, other


def columns(ids: Tensor, length: int, fill: int, masked: bool) -> Example:
    """Returns input_ids padded to `length`, and attention_mask if `masked`. ids: `(t,)`. fill: the padding token."""
    missing = max(length - len(ids), 0)
    made = {"input_ids": F.pad(ids, (0, missing), value=fill)}
    return {**made, "attention_mask": F.pad(torch.ones_like(ids), (0, missing))} if masked else made
