"""Held-out sets: by classes, by captions, and those that are not new."""

import pytest
from captioned import captioned, rows_of, tokenizer_of_names

from hf_pretext.evaluation.held_out import described_as_held_out, held_out_by, protocol


@pytest.fixture(scope="module")
def tokenizer(cache):
    return tokenizer_of_names()


@pytest.fixture(scope="module")
def labelled(tokenizer):
    return captioned(tokenizer)


def renamed(captions=None, colours=None) -> list[dict]:
    rows = rows_of(colours)
    return [{**row, "text": captions[i % len(captions)] if captions else row["text"]} for i, row in enumerate(rows)]


def test_other_classes_are_held_out_also_with_known_captions(tokenizer, labelled):
    heldout = captioned(tokenizer, renamed(colours=["pink", "lime"] * 6))
    assert held_out_by(heldout, labelled) == "classes"
    assert described_as_held_out(heldout, labelled) == {"held_out_by": "classes"}


def test_new_captions_of_known_classes_are_held_out(tokenizer, labelled):
    heldout = captioned(tokenizer, renamed(["box red", "bar  blue", "Bar blue"]))
    assert held_out_by(heldout, labelled) == "captions"
    described = described_as_held_out(heldout, labelled)
    assert described == {"held_out_by": "captions", "captions": {"test": 2, "train_of_labelled": 12}}
    text = protocol({"dataset": "them", "rows": {"test": 1200}, "classes": ["a"], **described})
    assert "(1,200 rows) of `them`, whose 2 different captions are not among the 12 of the train split" in text


def test_one_known_caption_in_any_split_is_refused_with_the_two_fixes(tokenizer, labelled):
    heldout = captioned(tokenizer, renamed(["box red", " Red  BOX"]))
    with pytest.raises(
        ValueError, match="has classes that the train split of .* has, too: blue, green, grey, ..."
    ) as error:
        held_out_by(heldout, labelled)
    assert "and 1 of its 2 different captions, for example 'red box'" in str(error.value)
    assert "Give rows of other classes, or rows without any of these captions, or leave it out." in str(error.value)


def test_an_older_entry_is_of_classes():
    text = protocol({"dataset": "them", "rows": {"test": 220}, "classes": ["a", "b"]})
    assert text.endswith("`them`, whose 2 classes are not in the train split of the other set.")
