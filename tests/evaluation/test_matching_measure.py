"""Matching: a model that knows, one that says yes to all, and one that only compares."""

import numpy as np
import pytest
import torch
from captioned import Knowing, captioned, tokenizer_of_names
from filmed import filmed, with_capabilities
from sklearn.metrics import balanced_accuracy_score

from hf_pretext.evaluation import matching
from hf_pretext.evaluation.matching import (
    MEASURE,
    accuracy,
    captions_shown,
    chance_of,
    compute,
    other_captions,
    threshold,
)
from hf_pretext.evaluation.measure import Subject


@pytest.fixture(scope="module")
def tokenizer(cache):
    return tokenizer_of_names()


@pytest.fixture(scope="module")
def labelled(tokenizer):
    return captioned(tokenizer)


def test_a_wrong_caption_reads_otherwise_and_is_of_the_class_where_it_can_be():
    captions, classes = ["a b", "A  b", "c", "d", "e"], np.array([0, 0, 0, 1, 2])
    shown = other_captions(captions, classes)
    assert shown.tolist()[:2] == [2, 2] and shown[2] in (0, 1)
    assert all(captions[shown[i]] != captions[i] for i in (3, 4))  # alone in their classes: any other
    assert other_captions(captions).tolist() == other_captions(captions).tolist()
    with pytest.raises(ValueError, match="All 2 captions are the same"):
        other_captions(["a", " A"])


def test_accuracy_is_of_as_many_right_as_wrong():
    right, wrong = np.array([0.9, 0.4, 0.8]), np.array([0.5, -0.1, 0.1])
    scores, labels = np.concatenate([right, wrong]), [1] * 3 + [0] * 3
    for at in (0.0, 0.45, 0.6):
        assert accuracy(right, wrong, at) == pytest.approx(balanced_accuracy_score(labels, scores > at))
    best = threshold(right, wrong)
    assert accuracy(right, wrong, best) == max(accuracy(right, wrong, at) for at in scores) == pytest.approx(5 / 6)


class Matching(Knowing):
    """Matches pairs by its embeddings, or says yes to all."""

    capabilities = ("embed", "match")

    def __init__(self, tokenizer, always=False):
        super().__init__(tokenizer)
        self.always = always

    def match(self, pixel_values, input_ids, attention_mask):
        images = self.embed("image", pixel_values=pixel_values)
        texts = self.embed("text", input_ids=input_ids, attention_mask=attention_mask)
        return torch.ones(len(images)) if self.always else (images * texts).sum(1) - 0.999


def test_a_model_that_knows_is_always_right_and_one_that_says_yes_half_the_time(labelled, tokenizer):
    knowing = compute(Subject(Matching(tokenizer), labelled))
    assert knowing["matching_shuffled"] == knowing["matching_hard"] == 1.0
    always = compute(Subject(Matching(tokenizer, always=True), labelled))
    assert always["matching_shuffled"] == always["matching_hard"] == 0.5
    assert always["threshold_shuffled"] == knowing["threshold_shuffled"] == 1.0
    assert always["matching_gain_hard"] == -0.5 and knowing["matching_gain_hard"] == 0.0
    assert set(compute(Subject(Knowing(tokenizer), labelled))) == {"threshold_shuffled", "threshold_hard"}
    for model, metrics in ((Matching, knowing), (Knowing, {"threshold_shuffled": 1, "threshold_hard": 1})):
        assert set(chance_of(labelled, model)) == set(metrics)


def test_the_threshold_is_that_of_validation(labelled, tokenizer, monkeypatch):
    scores = {
        "validation": {"own": np.array([0.6, 0.7]), "shuffled": np.array([0.5, 0.1]), "hard": np.array([0.5, 0.1])},
        "test": {"own": np.array([0.3, 0.7]), "shuffled": np.array([0.2, 0.1]), "hard": np.array([0.6, 0.1])},
    }
    monkeypatch.setattr(matching, "cosines", lambda subject, split: scores[split])
    metrics = compute(Subject(Knowing(tokenizer), labelled))
    assert metrics == {"threshold_shuffled": 0.75, "threshold_hard": 0.5}  # on test 0.2 would be best for the first


def test_a_match_that_is_the_cosine_is_measured_once(labelled, tokenizer):
    class Comparing(Matching):
        match_is_cosine = True

    assert set(compute(Subject(Comparing(tokenizer), labelled))) == {"threshold_shuffled", "threshold_hard"}
    assert set(chance_of(labelled, Comparing)) == {"threshold_shuffled", "threshold_hard"}


@pytest.mark.parametrize("capabilities", [("embed", "match"), ("match",)])
def test_films_are_matched_by_the_cosine_or_by_match(capabilities, cache, tmp_path):
    labelled, kind = filmed(tmp_path), with_capabilities(*capabilities)
    by = "threshold" if "embed" in capabilities else "matching"
    assert compute(Subject(kind(labelled), labelled)) == {f"{by}_shuffled": 1.0, f"{by}_hard": 1.0}
    blind = compute(Subject(kind(labelled, last_alone=True), labelled))
    assert blind == pytest.approx({f"{by}_shuffled": (1 + 3 / 9) / 2, f"{by}_hard": (1 + 3 / 9) / 2}, abs=0.12)
    results = {"inputs": ["video", "text"], "measures": {"trained": dict.fromkeys(blind)}}
    assert "video-caption pairs" in MEASURE.protocol(results) and "image" not in MEASURE.protocol(results)
    assert ("cosine" in MEASURE.protocol(results)) == (by == "threshold")


def test_hard_captions_are_of_the_same_class(labelled):
    shown, captions = captions_shown(labelled, "test"), labelled.captions("test")
    colours = [caption.split()[0].lower() for caption in captions]
    assert all(colours[i] == colours[j] for i, j in enumerate(shown["hard"]))
    assert any(colours[i] != colours[j] for i, j in enumerate(shown["shuffled"]))
