"""A model of captions whose probabilities are known: what it says of an image, and how likely each caption is."""

import math

import torch
from captioned import NAMES, number_of
from torch import nn

SURE = 0.5  # probability of the token that it expects; the others of the vocabulary share the rest


class Describing(nn.Module):
    """Expects, at each place, the token of the caption of the image, then an end; of the images in `mistaken`, the
    tokens of another caption. Places after the end are certain."""

    inputs, capabilities = ("image", "text"), ("describe",)

    def __init__(self, tokenizer, mistaken: dict[int, int] | None = None, sure: float = SURE):
        super().__init__()
        self.tokenizer, self.sure, self.calls = tokenizer, sure, []
        self.special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
        self.names = [tokenizer(NAMES[(mistaken or {}).get(i, i)])["input_ids"] for i in range(len(NAMES))]

    def plain(self, ids: list[int]) -> list[int]:
        return [one for one in ids if one not in self.special] + [self.tokenizer.sep_token_id]

    def log_likelihood(self, input_ids, attention_mask=None, pixel_values=None):
        assert attention_mask.shape == input_ids.shape and len(input_ids) == len(pixel_values)
        self.calls.append(len(input_ids))
        scores = []
        for ids, mask, number in zip(input_ids, attention_mask.bool(), number_of(pixel_values), strict=True):
            wanted, given = self.plain(self.names[number]), self.plain(ids[mask].tolist())
            right = sum(a == b for a, b in zip(wanted, given, strict=False))
            other = (1 - self.sure) / (len(self.tokenizer) - 1)
            scores.append(right * math.log(self.sure) + (len(given) - right) * math.log(other))
        return torch.tensor(scores)

    def describe(self, max_new_tokens, num_beams=1, pixel_values=None):
        ids = [self.plain(self.names[number])[:max_new_tokens] for number in number_of(pixel_values)]
        longest = max(map(len, ids))
        return torch.tensor([one + [self.tokenizer.pad_token_id] * (longest - len(one)) for one in ids])
