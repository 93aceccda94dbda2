"""Changed texts in the entry of results.json: encoders whose invariances are known."""

import pytest
import torch
from identified import labelled_pairs
from markov import chains, labelled, masked_lm, words
from transformers import BertConfig, BertModel

from hf_pretext.audit.changed_inputs import WORDS, clean_batches, encoder_inputs
from hf_pretext.audit.entry import Audit, AuditOptions
from hf_pretext.audit.text_changes import beginning
from hf_pretext.features import extract


@pytest.fixture(scope="module")
def chain_set():
    some = {split: rows[:300] for split, rows in chains().items()}
    return labelled(some, words(4))


def with_positions(size: float):
    """An encoder that sees positions by vectors of this size, in multiples of those of words. Capitals are unknown."""
    model = masked_lm(4)
    with torch.no_grad():
        model.encoder.embeddings.position_embeddings.weight.mul_(size)
    return model


def test_an_encoder_without_positions_ignores_the_order_of_words(chain_set):
    builds = {"trained": [lambda: with_positions(0)], "random": [lambda: with_positions(10)]}
    audit = Audit(chain_set, AuditOptions(only=("transformations",)))
    entry = audit.entry(builds)
    blind, sees = (entry["encoders"]["text"][who] for who in ("trained", "random"))
    assert all("effective rank" in warning for warning in entry["warnings"])  # the encoder is tiny
    assert "cues" not in entry
    assert blind["invariance_word_order"]["mean"] > 0.999 and sees["invariance_word_order"]["mean"] < 0.9
    assert blind["parameter_bits_word_order"]["mean"] == 0 and blind["equivariance_word_order"]["mean"] > 0.999
    assert blind["parameter_bits_casing"]["mean"] == pytest.approx(0.918, abs=0.01)  # upper case or not, of 3 levels
    assert blind["invariance_casing"]["mean"] < 0.6  # the mean of 1, in lower case, and of capitals
    assert 0 < blind["invariance_deletion"]["mean"] < 0.95
    assert audit.entry(builds) == entry


def text_encoder(vocabulary: int) -> BertModel:
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    return BertModel(BertConfig(vocab_size=vocabulary, **sizes))


@pytest.mark.parametrize("captions", [False, True])
def test_unchanged_texts_have_the_features_of_the_set(captions, chain_set):
    some = labelled_pairs("drawn") if captions else chain_set
    encoder = text_encoder(len(some.inputs.by_name["text"].tokenizer))
    expected = extract(encoder, some.batches("test", "text"))[-1]
    given = extract(encoder, encoder_inputs(some, "text", some.texts("test")))[-1]
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)


def test_long_texts_are_cut_before_they_are_changed(chain_set):
    (batch,) = clean_batches(chain_set, "text")["test"]
    whole = [text for text in chain_set.texts("test") if text.split()[:WORDS] == batch[0].split()]
    assert len(batch) == 300 and {len(text.split()) for text in batch} == {WORDS} and whole
    assert beginning(" a  b\tc d", 3) == " a  b\tc" and beginning("a b ", 3) == "a b" and beginning(" ", 3) == " "
