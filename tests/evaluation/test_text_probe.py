"""The probe of captions reads whatever layer and token holds what it is asked for."""

from types import SimpleNamespace

import pytest
import torch
from captioned import captioned, tokenizer_of_names
from torch import nn

from hf_pretext.evaluation.measure import Subject
from hf_pretext.evaluation.text_probe import chance_of, compute


@pytest.fixture(scope="module")
def tokenizer(cache):
    return tokenizer_of_names()


@pytest.fixture(scope="module")
def labelled(tokenizer):
    return captioned(tokenizer)


class Reading(nn.Module):
    """Its only layer that is not empty has a caption's words at each token, or all of them at the first one."""

    inputs = ("image", "text")
    capabilities = ("predict_tokens",)

    def __init__(self, vocabulary: int, layer: int, at_first: bool):
        super().__init__()
        self.vocabulary, self.layer, self.at_first = vocabulary, layer, at_first

    @property
    def encoders(self):
        return {"text": self}

    def forward(self, input_ids, attention_mask, output_hidden_states=False):
        words = nn.functional.one_hot(input_ids, self.vocabulary).float() * attention_mask[..., None]
        if self.at_first:  # and at the others what leaves nothing in the mean
            total = words.sum(1, keepdim=True)
            rest = (attention_mask.sum(1)[:, None, None] - 1).clamp(min=1)
            words = torch.cat([total, (-total / rest).expand_as(words[:, 1:]) * attention_mask[:, 1:, None]], 1)
        states = [torch.zeros_like(words)] * 3
        states[self.layer] = words
        return SimpleNamespace(last_hidden_state=states[-1], hidden_states=tuple(states))


@pytest.mark.parametrize(("layer", "at_first"), [(-1, False), (-2, False), (-3, True)])
def test_colours_are_read_off_captions_in_any_layer_and_token(labelled, tokenizer, layer, at_first):
    assert compute(Subject(Reading(len(tokenizer), layer, at_first), labelled)) == {"text_probe": 1.0}
    assert chance_of(labelled, Reading) == {"text_probe": labelled.labels.majority()["top1"]}
