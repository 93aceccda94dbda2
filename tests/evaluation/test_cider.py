"""CIDEr-D on examples worked by hand, and against its formula written with dense vectors."""

import math

import numpy as np
import pytest

from hf_pretext.evaluation._cider import cider_d, words

PAIR = [["a b"], ["a c"]]  # "a" is in each image and worth nothing, all else is in one of two: log 2
REFERENCES = [
    ["a cat sits on a mat", "the cat sits"],
    ["a dog runs on the grass"],
    ["two dogs run in the park", "a dog and a dog run", "dogs in a park"],
    ["red box"],
]
PROPOSED = ["a cat on a mat", "the dog runs on the grass on the grass", "dogs run in the park", "a red box box box"]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a b", 5.0),  # words and pairs of words are right, and there are no three
        ("b b", 10 / 4 * 1 / 2),  # 2 log 2, clipped to log 2: half of the cosine; the pair "b b" is wrong
        ("b", 10 / 4 * math.exp(-1 / 72)),  # one word shorter
        ("A  B", 5.0),
        ("a, b!", 5.0),
        ("a", 0.0),
        ("c", 0.0),
        ("", 0.0),
        ("b x", 10 / 4 * 1 / math.sqrt(2)),  # an unknown word weighs log 2, as one in a single image
    ],
)
def test_scores_that_were_computed_by_hand(caption, expected):
    assert cider_d([caption, "a c"], PAIR) == pytest.approx([expected, 5.0])


def reference(proposed, references):
    """The formula with one vector per n over all n-grams of all texts, by coco-caption's counts."""

    def grams(text, n):
        tokens = text.lower().split()
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    scores = []
    for caption, own in zip(proposed, references, strict=True):
        total = 0.0
        for n in (1, 2, 3, 4):
            space = sorted({gram for text in [*proposed, *sum(references, [])] for gram in grams(text, n)})
            images = [{gram for text in each for gram in grams(text, n)} for each in references]
            weight = np.array([math.log(len(images) / max(1, sum(g in each for each in images))) for g in space])
            vector = lambda text, n=n, space=space, weight=weight: (  # noqa: E731
                np.array([grams(text, n).count(gram) for gram in space], float) * weight
            )
            for text in own:
                ours, theirs = vector(caption), vector(text)
                norm = np.linalg.norm(ours) * np.linalg.norm(theirs)
                cosine = np.minimum(ours, theirs) @ theirs / norm if norm else 0.0
                total += cosine * math.exp(-((len(caption.split()) - len(text.split())) ** 2) / 72) / len(own)
        scores.append(10 * total / 4)
    return scores


def test_scores_are_those_of_the_formula():
    expected = reference(PROPOSED, REFERENCES)
    assert cider_d(PROPOSED, REFERENCES) == pytest.approx(expected)
    assert 0 < min(expected) < max(expected) < 10


def test_perfect_captions_of_four_words_have_ten():
    texts = ["a cat on a mat", "dogs in the red park"]
    assert cider_d(texts, [[text] for text in texts]) == pytest.approx([10.0, 10.0])


def test_a_single_image_scores_nothing_because_all_its_words_are_in_every_image():
    assert cider_d(["a b"], [["a b"]]) == [0.0] and cider_d([], []) == []


def test_words_are_without_punctuation():
    assert words("Man’s  flag: half-way, 3rd Überfluß") == ["man", "s", "flag", "half", "way", "3rd", "überfluss"]


def test_captions_without_references_are_refused():
    with pytest.raises(ValueError, match="2 captions have references of 1 images"):
        cider_d(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="Image 1 has no reference"):
        cider_d(["a", "b"], [["a"], []])
