"""Trained tokenizers: reproducible, cached, and loadable by `AutoTokenizer`."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_texts import corpus, source
from transformers import AutoTokenizer

from hf_pretext.data.tokenizer import train_tokenizer, trained

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_trained_tokenizer_is_the_same_each_time_and_loads_anywhere(kind, tmp_path):
    first, second = (trained(source(corpus(400)), kind, 300, False, "text", 512) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    first.save_pretrained(tmp_path / "tokenizer")
    again = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = "people never said Größe"
    ids = again(text)["input_ids"]
    assert ids == first(text)["input_ids"]
    assert ids[0] == again.cls_token_id and ids[-1] == again.sep_token_id and again.mask_token_id is not None
    assert again.decode(ids, skip_special_tokens=True) == text
    assert len(again) <= 300


SCRIPT = """
import sys
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import trained
source = open_source(sys.argv[1], needed=("text",))
for kind in ("wordpiece", "bpe", "unigram"):
    print(trained(source, kind, 1000, True, "text", 128).backend_tokenizer.to_str())
"""


@pytest.mark.slow
def test_a_trained_tokenizer_is_the_same_in_any_process():
    """The library's hash tables differ between processes; this text has characters so rare that they are tokens only
    because of the alphabet."""
    text = str(Path(__file__).parents[2] / "hf_pretext" / "samples" / "shakespeare" / "validation.jsonl")
    command = [sys.executable, "-c", SCRIPT, text]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(4)]
    found = [[line for line in run.communicate()[0].splitlines() if line.startswith("{")] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert len(found[0]) == 3
    for of_kind in zip(*found, strict=True):
        assert len(set(of_kind)) == 1
        assert "[MASK]" in of_kind[0]


def test_a_trained_tokenizer_is_kept_for_the_same_texts(monkeypatch):
    first = train_tokenizer(source(corpus(60)), size=200)
    monkeypatch.setattr("hf_pretext.data.tokenizer.trained", None)  # would fail
    again = train_tokenizer(source(corpus(60)), size=200)
    assert again.backend_tokenizer.to_str() == first.backend_tokenizer.to_str()
    assert again.mask_token_id == first.mask_token_id and again.model_max_length == first.model_max_length
    with pytest.raises(TypeError):
        train_tokenizer(source(corpus(60, seed=1)), size=200)  # as many texts, but others


def test_a_tiny_vocabulary_is_refused():
    with pytest.raises(ValueError, match="A vocabulary of 7 tokens is too small"):
        train_tokenizer(source(corpus()), size=7)
