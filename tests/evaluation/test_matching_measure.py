"""What is told of pairs by a model that knows, one that guesses, and one that only compares; and of hidden words."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from test_labelled_pairs import NAMES, Knowing, labelled, tokenizer  # noqa: F401
from torch import nn

from hf_pretext.evaluation import matching
from hf_pretext.evaluation.labelled_pairs import LabelledPairs
from hf_pretext.evaluation.masked import DRAWS, hidden_captions, masked_figures, text_probe
from hf_pretext.evaluation.matching import accuracy, another, captions_shown, matching_figures, threshold
from hf_pretext.modules.masking import IGNORED
from hf_pretext.objectives.masked_lm import MaskedLMTask


def test_anothers_caption_reads_otherwise_and_is_of_the_class_where_there_is_one():
    captions, classes = ["a b", "A  b", "c", "d", "e"], np.array([0, 0, 0, 1, 2])
    shown = another(captions, classes)
    assert shown.tolist()[:2] == [2, 2] and shown[2] in (0, 1)
    assert all(captions[shown[i]] != captions[i] for i in (3, 4))  # alone in their classes: any other
    assert another(captions).tolist() == another(captions).tolist()
    with pytest.raises(ValueError, match="All 2 captions read the same"):
        another(["a", " A"])


def test_accuracy_is_of_as_many_right_as_wrong():
    right, wrong = np.array([0.9, 0.4, 0.8]), np.array([0.5, -0.1, 0.1])
    scores, labels = np.concatenate([right, wrong]), [1] * 3 + [0] * 3
    for at in (0.0, 0.45, 0.6):
        assert accuracy(right, wrong, at) == pytest.approx(balanced_accuracy_score(labels, scores > at))
    best = threshold(right, wrong)
    assert accuracy(right, wrong, best) == max(accuracy(right, wrong, at) for at in scores) == pytest.approx(5 / 6)


class Matching(Knowing):
    """Tells pairs by its embeddings, or always says yes."""

    capabilities = ("embed", "match")

    def __init__(self, tokenizer, always=False):  # noqa: F811
        super().__init__(tokenizer)
        self.always = always

    def match(self, pixel_values, input_ids, attention_mask):
        images, texts = self.embed_images(pixel_values), self.embed_texts(input_ids, attention_mask)
        return torch.ones(len(images)) if self.always else (images * texts).sum(1) - 0.999


def test_who_knows_tells_all_and_who_always_says_yes_a_half(labelled: LabelledPairs, tokenizer):  # noqa: F811
    found = matching_figures(Matching(tokenizer), labelled)
    assert found["matching_shuffled"] == found["matching_hard"] == 1.0
    always = matching_figures(Matching(tokenizer, always=True), labelled)
    assert always["matching_shuffled"] == always["matching_hard"] == 0.5
    assert always["threshold_shuffled"] == found["threshold_shuffled"] == 1.0
    assert always["matching_gain_hard"] == -0.5 and found["matching_gain_hard"] == 0.0
    assert set(matching_figures(Knowing(tokenizer), labelled)) == {"threshold_shuffled", "threshold_hard"}


def test_the_threshold_is_that_of_validation(labelled, tokenizer, monkeypatch):  # noqa: F811
    scores = {
        "validation": {"own": np.array([0.6, 0.7]), "shuffled": np.array([0.5, 0.1]), "hard": np.array([0.5, 0.1])},
        "test": {"own": np.array([0.3, 0.7]), "shuffled": np.array([0.2, 0.1]), "hard": np.array([0.6, 0.1])},
    }
    monkeypatch.setattr(matching, "cosines", lambda model, labelled, split, device: scores[split])
    found = matching_figures(Knowing(tokenizer), labelled)
    assert found == {"threshold_shuffled": 0.75, "threshold_hard": 0.5}  # on test 0.2 would tell all of the first


def test_hard_captions_are_of_the_same_class(labelled):  # noqa: F811
    shown, captions = captions_shown(labelled, "test"), labelled.captions("test")
    colours = [caption.split()[0].lower() for caption in captions]
    assert all(colours[i] == colours[j] for i, j in enumerate(shown["hard"]))
    assert any(colours[i] != colours[j] for i, j in enumerate(shown["shuffled"]))


class Guessing(nn.Module):
    """Reads hidden words off the picture, if there is one; else says the first word of all."""

    def __init__(self, tokenizer):  # noqa: F811
        super().__init__()
        self.task = MaskedLMTask(
            mask_token_id=tokenizer.mask_token_id, special_token_ids=sorted(tokenizer.all_special_ids)
        )
        self.words = [tokenizer(name)["input_ids"] for name in NAMES]
        self.vocabulary = len(tokenizer)

    def predict_tokens(self, hidden, input_ids, attention_mask, pixel_values=None):
        assert (input_ids[hidden] == self.task.mask_token_id).all()
        logits = torch.zeros(*hidden.shape, self.vocabulary)
        if pixel_values is not None:
            for row, number in enumerate(((pixel_values[:, 0, 0, 0] + 1) * 127.5 / 20).round().long().tolist()):
                for place, word in enumerate(self.words[number][: hidden.shape[1]]):
                    logits[row, place, word] = 1.0
        return logits[hidden]


def test_hidden_words_are_told_with_the_own_picture_and_not_with_another(labelled, tokenizer):  # noqa: F811
    found = masked_figures(Guessing(tokenizer), labelled)
    assert found["masked_text_own"] == 1.0 and found["masked_text_none"] == 0.0
    assert 0 < found["masked_text_other"] < 0.8  # names have a word in common now and then
    assert found["masked_text_gain"] == 1.0 - found["masked_text_other"]


def test_each_caption_has_words_hidden_the_same_ones_each_time(labelled, tokenizer):  # noqa: F811
    model = Guessing(tokenizer)
    first, second = ([*hidden_captions(model, labelled, "test")] for _ in range(2))
    assert len(first) == DRAWS
    for (seen, labels, rows), (again, _, _) in zip(first, second, strict=True):
        assert torch.equal(seen["input_ids"], again["input_ids"])
        assert ((labels != IGNORED).sum(1) >= 1).all() and rows.tolist() == list(range(len(labels)))
        captions = tokenizer([labelled.captions("test")[i] for i in rows], padding=True, return_tensors="pt")
        assert torch.equal(torch.where(labels == IGNORED, seen["input_ids"], labels), captions["input_ids"])
    assert any(not torch.equal(first[0][1], other[1]) for other in first[1:])


class Reading(nn.Module):
    """Its only layer that tells anything has a caption's words at each token, or all of them at the first one."""

    def __init__(self, vocabulary: int, telling: int, at_first: bool):
        super().__init__()
        self.vocabulary, self.telling, self.at_first = vocabulary, telling, at_first

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
        states[self.telling] = words
        return SimpleNamespace(last_hidden_state=states[-1], hidden_states=tuple(states))


@pytest.mark.parametrize(("telling", "at_first"), [(-1, False), (-2, False), (-3, True)])
def test_colours_are_read_off_captions_in_whatever_layer_and_token_tells_them(
    labelled,  # noqa: F811
    tokenizer,  # noqa: F811
    telling,
    at_first,
):
    assert text_probe(Reading(len(tokenizer), telling, at_first), labelled) == {"text_probe": 1.0}
