"""Bits per byte of held-out texts, and of bigrams and xz."""

import itertools
import lzma
import math
from collections import Counter

import datasets
import pytest
import torch
from test_causal_lm import LIKE_GPT2, LIKE_LLAMA, tokenizer_of
from torch import nn

from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import Subject, fitting
from hf_pretext.evaluation.next_token import (
    MEASURE,
    baselines_of,
    bigram_bits,
    chance_of,
    compute,
    measured,
    model_bits,
    xz_bits,
)
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.text import Corpus
from hf_pretext.objectives.captioning import CaptioningForPreTraining
from hf_pretext.objectives.causal_lm import CausalLMForPreTraining

TEXTS = ["the film is good", "the film is long", "good and long", "the film is long and good"] * 8


class Uniform(nn.Module):
    """Gives each of `options` tokens the same probability; keeps what it was asked."""

    inputs, capabilities = ("text",), ("log_likelihood",)

    def __init__(self, options: int = 4):
        super().__init__()
        self.options, self.asked = options, []

    def log_likelihood(self, input_ids, attention_mask):
        self.asked += [ids[mask == 1].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        return -(attention_mask.sum(1) - 1) * math.log(self.options)


def labelled(max_length: int = 20, **special) -> LabelledSet:
    rows = {"text": TEXTS, "label": ["a", "b"] * (len(TEXTS) // 2)}
    data = datasets.DatasetDict({split: datasets.Dataset.from_dict(rows) for split in ("train", "validation", "test")})
    return LabelledSet(data, Inputs(Corpus(tokenizer_of(**special), max_length)))


@pytest.mark.parametrize(("special", "first"), [(LIKE_LLAMA, 0.0), (LIKE_GPT2, math.log2(10))])
def test_bits_of_a_model_that_knows_nothing(special, first):
    """Each token and end takes 2 bits; without a start token, the first takes the bits of the vocabulary."""
    model, texts = Uniform(), labelled(**special)
    tokens, size = sum(len(text.split()) for text in TEXTS), sum(map(len, TEXTS))
    predicted = tokens + (len(TEXTS) if special is LIKE_LLAMA else 0)  # with the end of each
    metrics = compute(Subject(model, texts))
    assert metrics["text_bits"] == pytest.approx((2 * predicted + first * len(TEXTS)) / size, rel=1e-6)
    assert all(ids[-1] == 3 for ids in model.asked)
    chance = chance_of(texts, model)
    assert chance.keys() == metrics.keys() == {name for name in metrics if MEASURE.words(name)}
    assert metrics["text_bigram_gain"] == pytest.approx(chance["text_bits"] - metrics["text_bits"])
    assert metrics["text_xz_gain"] == pytest.approx(baselines_of(texts, "test")[1] - metrics["text_bits"])


def test_texts_that_are_too_long_are_cut_for_all_and_have_no_end():
    texts = labelled(max_length=5, **LIKE_LLAMA)  # room for three words, a start and an end
    some = measured(texts.inputs.by_name["text"], TEXTS[:4])
    assert [(len(one.tokens), one.ends, one.text) for one in some] == [
        (3, False, "the film is"), (3, False, "the film is"), (3, True, "good and long"), (3, False, "the film is")
    ]  # fmt: skip
    assert [one.size for one in some] == [11, 11, 13, 11]
    model = Uniform()
    bits = model_bits(Subject(model, texts), texts.inputs.by_name["text"].tokenizer, some)
    assert bits == pytest.approx(2 * (3 + 3 + 4 + 3)) and sum(ids[-1] == 3 for ids in model.asked) == 1


def test_bigrams_equal_the_formula():
    """Written out with counters; the probabilities after each token sum to 1."""
    train, vocabulary = [[0, 1, 2], [0, 1, 1], [3]], 5
    rows = [[vocabulary, *ids, vocabulary] for ids in train]
    count = Counter(pair for row in rows for pair in itertools.pairwise(row))
    single = Counter(token for row in rows for token in row[1:])

    def probability(given, token):
        lower = (single[token] + 1) / (single.total() + vocabulary + 1)
        after = {pair: number for pair, number in count.items() if pair[0] == given}
        if not after:
            return lower
        return (count[given, token] + len(after) * lower) / (sum(after.values()) + len(after))

    for given in range(vocabulary + 1):
        assert sum(probability(given, token) for token in range(vocabulary + 1)) == pytest.approx(1)
    for ids, ends in (([0, 1], True), ([4, 4, 2], False), ([3], True)):
        row = [vocabulary, *ids, *([vocabulary] if ends else [])]
        expected = -sum(math.log2(probability(*pair)) for pair in itertools.pairwise(row))
        assert bigram_bits(train, [(ids, ends)], vocabulary) == pytest.approx(expected)


def test_xz_knows_what_it_read_before():
    content = b"a sentence that is not short, and no two parts of it are the same: 1234567890"
    alone, known = xz_bits(b"", content), xz_bits(content * 2, content)
    assert known < alone / 3 and alone <= 8 * len(lzma.compress(content))


def test_the_measure_fits_causal_language_models_alone():
    assert MEASURE in fitting(CausalLMForPreTraining) and MEASURE not in fitting(CaptioningForPreTraining)


def test_a_better_model_has_fewer_bits():
    texts = labelled(**LIKE_LLAMA)
    few, many = (compute(Subject(Uniform(options), texts)) for options in (2, 9))
    assert few["text_bits"] < many["text_bits"] and few["text_xz_gain"] > many["text_xz_gain"]
    assert torch.tensor([*few.values(), *many.values()]).isfinite().all()
