"""Captions: texts of any type of column, distinct captions, and comparisons of captions."""

import json

import datasets
import numpy as np
import pytest

from hf_pretext.data import captions
from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a dog", ["a dog"]),
        (["a", " ", None, "b"], ["a", "b"]),
        ({"en": "a dog", "de": "ein Hund", "fr": None}, ["a dog", "ein Hund"]),
        (("a", 3, "\ud83d"), ["a"]),
        (" \n", []),
        (None, []),
        (7, []),
    ],
)
def test_texts_of_a_column_of_any_type(value, expected):
    assert captions.texts_in(value) == expected


@pytest.fixture
def source():
    rows = {"text": ["a dog", "a cat", "a dog", None], "keywords": [["dog", "pet"], ["cat"], [], ["pet"]]}
    columns = {"text": "text", "keywords": "keywords"}
    return open_source(datasets.Dataset.from_dict(rows), columns=columns, needed=("text", "keywords"))


def test_distinct_captions_are_of_the_columns_in_use(source):
    def distinct(*parts):
        return [row["text"] for row in captions.distinct_captions(parts).read(0, 0, 99) if "text" in row]

    assert distinct((source, ["text"])) == ["a dog", "a cat"]
    assert distinct((source, ["text", "keywords"])) == ["a dog", "dog", "pet", "a cat", "cat"]
    assert distinct((source, ["keywords"]), (source, ["text"])) == ["dog", "pet", "cat", "a dog", "a cat"]


def test_captions_for_a_tokenizer_are_limited(source, monkeypatch):
    monkeypatch.setattr(captions, "MOST_CAPTIONS", 3)
    assert len(captions.distinct_captions([(source, ["text", "keywords"])])) == 3


def test_a_source_without_captions_is_refused():
    data = datasets.Dataset.from_dict({"text": [" ", ""]}, datasets.Features({"text": datasets.Value("string")}))
    with pytest.raises(ValueError, match="has no text in its caption columns"):
        captions.distinct_captions([(open_source(data, needed=("text",)), ["text"])])


def test_several_keywords_are_drawn_from_a_list_and_one_text_from_a_dict():
    row = {"text": "t", "keywords": ["a", "b", "c"], "languages": {"en": "x", "de": "y"}}
    random = np.random.default_rng(0)
    drawn = {captions.Captions(["keywords"], [0, 1])(row, random) for _ in range(300)}
    lists = [text.split() for text in drawn]
    assert {len(words) for words in lists} == {1, 2, 3} and all(len(set(words)) == len(words) for words in lists)
    assert {captions.Captions(["languages"], [0, 1])(row, random) for _ in range(50)} == {"x", "y"}


def test_texts_of_given_languages_begin_with_their_token():
    row = {"text": "t", "names": {"en": "shield", "es": "escudo", "pt": "escudo", "fr": None}}
    random, draw = np.random.default_rng(0), captions.Captions(["names"], [0, 1], ["pt", "es", "fr"])
    drawn = [draw(row, random) for _ in range(200)]
    assert {*drawn} == {"[es] escudo", "[pt] escudo"} and min(map(drawn.count, {*drawn})) > 60
    assert draw({**row, "names": {"fr": None, "en": "shield"}}, random) == draw({**row, "names": None}, random) == "t"
    assert draw(row, None) == "t"
    both = open_source([row], columns={"names": "names"}, needed=("text", "names"))
    learned = captions.distinct_captions([(both, ["text", "names"])], ["pt", "es"])
    assert [each["text"] for each in learned.read(0, 0, len(learned))] == ["t", "escudo"]  # without tokens


def test_case_and_spaces_do_not_distinguish_captions():
    assert captions.normalised(" Eine  STRASSE\n") == captions.normalised("eine straße") == "eine strasse"
    assert captions.label_number("A  dog") == captions.label_number("a dog") != captions.label_number("a cat")
    assert captions.label_number("a dog") == -143_298_910_849_180_985  # in every process


@pytest.mark.parametrize("value", [["a", " ", "b", "c"], {"en": "a", "de": None, "fr": "b", "it": "c"}])
def test_one_caption_of_a_list_or_of_languages_is_drawn(value):
    draw = captions.Captions()
    assert draw({"text": value}, None) == "a"
    drawn = [draw({"text": value}, np.random.default_rng(seed)) for seed in range(300)]
    assert {text: drawn.count(text) // 60 for text in set(drawn)} == {"a": 1, "b": 1, "c": 1}
    assert drawn == [draw({"text": value}, np.random.default_rng(seed)) for seed in range(300)]
    for empty in ([], [" "], {"en": None}):
        with pytest.raises(BadSample, match="without a text"):
            draw({"text": empty}, None)


def test_a_single_caption_draws_nothing():
    random = np.random.default_rng(0)
    assert captions.Captions()({"text": "a dog"}, random) == "a dog"
    assert random.random() == np.random.default_rng(0).random()


def test_lists_of_captions_from_a_file(tmp_path):
    rows = [{"image": "1.png", "captions": [f"a{i}", f"b{i}"]} for i in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(str(tmp_path), needed=("image", "text"))
    assert [captions.Captions()(row, None) for row in source.read(0, 0, 3)] == ["a0", "a1", "a2"]
    assert list(captions.captions_of(source, ["text"])) == ["a0", "b0", "a1", "b1", "a2", "b2"]
