"""Retrieval of halves: where texts are cut, what finds a half, and which models are measured."""

from types import SimpleNamespace

import datasets
import pytest
import torch
from torch import nn

from hf_pretext import registry
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation import halves as module
from hf_pretext.evaluation.halves import chance_of, compute, halves, pairs
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import Subject, fitting
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.text import Corpus, Sentences

WORDS = ["apple", "bread", "cheese", "dates", "eggs", "figs", "grapes", "honey", "ice", "jam", "kale", "lemon"]


def rows(count: int) -> list[dict]:
    """Texts whose halves have the same two words, in another order; no two texts have both in common."""
    drawn = [(a, b) for i, a in enumerate(WORDS) for b in WORDS[i + 1 :]][:count]
    return [{"text": f"{a} {b} {b} {a}", "label": i % 2} for i, (a, b) in enumerate(drawn)]


@pytest.fixture(scope="module")
def tokenizer(cache):
    return train_tokenizer(open_source(rows(40), needed=("text",)), size=120)


def labelled_of(tokenizer, some: list[dict], kind=Corpus) -> LabelledSet:
    splits = {split: datasets.Dataset.from_list(some) for split in ("train", "validation", "test")}
    return LabelledSet(datasets.DatasetDict(splits), Inputs(kind(tokenizer, 12)), "label")


class Reading(nn.Module):
    """An encoder whose hidden states are the words of a text, or nothing."""

    inputs, capabilities = ("text",), ()
    device = torch.device("cpu")

    def __init__(self, vocabulary: int, pooling: str = "mean", blind: bool = False):
        super().__init__()
        self.vocabulary, self.blind, self.task = vocabulary, blind, SimpleNamespace(pooling=pooling)
        self.encoders = {"text": _Words(vocabulary, blind)}


class _Words(nn.Module):
    device = torch.device("cpu")

    def __init__(self, vocabulary: int, blind: bool):
        super().__init__()
        self.vocabulary, self.blind = vocabulary, blind

    def forward(self, input_ids, attention_mask):
        words = nn.functional.one_hot(input_ids, self.vocabulary).float()
        return SimpleNamespace(last_hidden_state=torch.ones_like(words) if self.blind else words)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("one two", ("one", "two")),
        ("a bb ccc dddd", ("a bb", "ccc dddd")),
        ("  long-first-word b c ", ("long-first-word", "b c")),
        ("a\nb\tc d", ("a b", "c d")),
        ("one", None),
        ("", None),
    ],
)
def test_a_text_is_cut_between_the_words_in_its_middle(text, cut):
    assert halves(text) == cut


@pytest.mark.parametrize("kind", [Corpus, Sentences])
def test_words_find_the_half_with_the_same_words(tokenizer, kind):
    labelled = labelled_of(tokenizer, rows(40), kind)
    metrics = compute(Subject(Reading(len(tokenizer)), labelled))
    assert metrics == dict.fromkeys(("halves_r1", "halves_r10", "halves_r1_baseline", "halves_r10_baseline"), 1.0)
    assert chance_of(labelled, Reading) == {
        "halves_r1": 1 / 40, "halves_r10": 10 / 40, "halves_r1_baseline": 1 / 40, "halves_r10_baseline": 10 / 40,
    }  # fmt: skip


def test_equal_vectors_find_nothing_and_the_pooling_of_the_objective_counts(tokenizer):
    labelled = labelled_of(tokenizer, rows(40))
    blind = compute(Subject(Reading(len(tokenizer), blind=True), labelled))
    assert (blind["halves_r1"], blind["halves_r10"], blind["halves_r1_baseline"]) == (0.0, 0.0, 1.0)
    first = compute(Subject(Reading(len(tokenizer), pooling="cls"), labelled))  # [CLS] is the same in all texts
    assert first["halves_r1"] == 0.0


def test_vectors_are_in_the_order_of_the_texts(tokenizer):
    subject = Subject(Reading(len(tokenizer)), labelled_of(tokenizer, rows(40)))
    texts = ["apple bread cheese dates", "eggs", "figs grapes", "honey ice jam kale lemon"]
    together = module.vectors(subject, texts)
    for text, vector in zip(texts, together, strict=True):
        torch.testing.assert_close(module.vectors(subject, [text])[0], vector)


def test_one_word_and_repeated_halves_are_left_out(tokenizer, monkeypatch):
    some = [*rows(3), {"text": "apple", "label": 0}, {"text": "figs Bread  apple", "label": 1}]
    assert sorted(pairs(labelled_of(tokenizer, some), "test")) == [
        ("apple bread", "bread apple"), ("apple cheese", "cheese apple"), ("apple dates", "dates apple"),
        ("figs Bread", "apple"),
    ]  # fmt: skip
    twice = [*rows(2), *rows(2)]
    assert len(pairs(labelled_of(tokenizer, twice), "test")) == 2
    warned = []
    monkeypatch.setattr(module.log, "warning", warned.append)
    alone = labelled_of(tokenizer, [{"text": "apple", "label": 0}, {"text": "figs", "label": 1}])
    assert chance_of(alone, Reading) == {} == compute(Subject(Reading(len(tokenizer)), alone))
    assert "test split" in warned[0] and "0 different texts of two words or more" in warned[0]


def test_every_objective_of_texts_alone_is_measured_and_no_other():
    measured = {
        name for name in registry.names("objectives") if module.MEASURE in fitting(registry.objective_class(name))
    }
    assert {"masked_lm", "sentence"} <= measured
    assert all(registry.objective_class(name).inputs == ("text",) for name in measured)
