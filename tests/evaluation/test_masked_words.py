"""Masked words: with the caption's image they are predicted, with another's or none they are not."""

import pytest
import torch
from captioned import NAMES, captioned, number_of, tokenizer_of_names
from filmed import filmed, with_capabilities
from torch import nn

from hf_pretext.evaluation.masked_words import DRAWS, MEASURE, chance_of, compute, masked_captions
from hf_pretext.evaluation.measure import Subject
from hf_pretext.modules.masking import IGNORED
from hf_pretext.objectives.masked_lm import MaskedLMTask


@pytest.fixture(scope="module")
def tokenizer(cache):
    return tokenizer_of_names()


@pytest.fixture(scope="module")
def labelled(tokenizer):
    return captioned(tokenizer)


class Guessing(nn.Module):
    """Reads masked words off the image, if there is one; else predicts the first word of all."""

    inputs = ("image", "text")
    capabilities = ("predict_tokens",)

    def __init__(self, tokenizer):
        super().__init__()
        special = sorted(tokenizer.all_special_ids)
        self.task = MaskedLMTask(mask_token_id=tokenizer.mask_token_id, special_token_ids=special)
        self.words = [tokenizer(name)["input_ids"] for name in NAMES]
        self.vocabulary = len(tokenizer)

    def predict_tokens(self, masked, input_ids, attention_mask, pixel_values=None):
        assert (input_ids[masked] == self.task.mask_token_id).all()
        logits = torch.zeros(*masked.shape, self.vocabulary)
        if pixel_values is not None:
            for row, number in enumerate(number_of(pixel_values)):
                for place, word in enumerate(self.words[number][: masked.shape[1]]):
                    logits[row, place, word] = 1.0
        return logits[masked]


def test_masked_words_are_predicted_with_their_image_alone(labelled, tokenizer):
    metrics = compute(Subject(Guessing(tokenizer), labelled))
    assert metrics["masked_text_own"] == 1.0 and metrics["masked_text_none"] == 0.0
    assert 0 < metrics["masked_text_other"] < 0.8  # names have a word in common now and then
    assert metrics["masked_text_gain"] == 1.0 - metrics["masked_text_other"]
    chance = chance_of(labelled, Guessing)
    assert list(chance) == list(metrics) and chance["masked_text_own"] == 1 / len(tokenizer)


def test_masked_words_of_films_are_predicted_with_their_film_alone(cache, tmp_path):
    labelled, kind = filmed(tmp_path), with_capabilities("match", "predict_tokens")
    metrics = compute(Subject(kind(labelled), labelled))
    assert metrics["masked_text_own_video"] == 1.0 and metrics["masked_text_none_video"] == 0.0
    assert 0 < metrics["masked_text_other_video"] < 0.8
    assert metrics["masked_text_gain_video"] == 1.0 - metrics["masked_text_other_video"]
    assert list(chance_of(labelled, kind)) == list(metrics)
    assert [MEASURE.words(name) for name in metrics] == [
        "masked words, with the video", "masked words, with another video", "masked words, without a video",
        "masked words, gain by the video",
    ]  # fmt: skip
    results = {"inputs": ["text", "video"], "data": {"dataset": "films + more"}}
    assert "the model predicts without having been trained so. The" in MEASURE.protocol(results)
    assert "as it learned from texts alone. The" in MEASURE.protocol({**results, "alone": {"texts": ["films"]}})
    apart = MEASURE.protocol({**results, "alone": {"texts": ["more"]}})
    assert "as it learned from texts alone, which came from another dataset. The" in apart
    text = MEASURE.protocol({"inputs": ["text", "video"]})
    assert "given the video of the caption, the video of another caption, or no video" in text and "image" not in text


def test_each_caption_has_words_masked_the_same_ones_each_time(labelled, tokenizer):
    subject = Subject(Guessing(tokenizer), labelled)
    first, second = ([*masked_captions(subject, "test")] for _ in range(2))
    assert len(first) == DRAWS
    for (seen, labels, rows), (same, _, _) in zip(first, second, strict=True):
        assert torch.equal(seen["input_ids"], same["input_ids"])
        assert ((labels != IGNORED).sum(1) >= 1).all() and rows.tolist() == list(range(len(labels)))
        captions = tokenizer([labelled.captions("test")[i] for i in rows], padding=True, return_tensors="pt")
        assert torch.equal(torch.where(labels == IGNORED, seen["input_ids"], labels), captions["input_ids"])
    assert any(not torch.equal(first[0][1], other[1]) for other in first[1:])
