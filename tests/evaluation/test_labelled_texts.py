"""Labelled texts: read, tokenised and probed with few labels."""

import datasets
import numpy as np
import pytest
import torch
from conftest import CONFIGS, REPOSITORY
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation import labelled_texts as module
from hf_pretext.evaluation.comparison import encoder_transfer
from hf_pretext.evaluation.labelled_texts import LabelledTexts, tfidf_transfer
from hf_pretext.evaluation.transfer import DRAWS, Labels, label_fractions, linear_probe, some_of_each
from hf_pretext.features import extract, pool

SHAKESPEARE = str(REPOSITORY / "recipes" / "data" / "shakespeare")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path_factory.mktemp("home")))
        yield train_tokenizer(open_source(SHAKESPEARE, needed=("text",)), size=50)


@pytest.fixture(scope="module")
def labelled(tokenizer):
    return LabelledTexts(SHAKESPEARE, tokenizer, 40, "kind", limit=60)


def test_texts_and_labels_stay_together(labelled, tokenizer):
    kinds = {row["text"]: row["kind"] for row in rows("test")}
    assert labelled.labels.names == ["comedy", "sonnets", "tragedy"]
    assert [labelled.labels.names[i] for i in labelled.labels.splits["test"]] == [
        kinds[text] for text in labelled.texts["test"]
    ]
    ids = torch.cat([batch["input_ids"] for batch in labelled.batches("test")])
    first = tokenizer(labelled.texts["test"][0], truncation=True, max_length=40)["input_ids"]
    assert ids[0, : len(first)].tolist() == first


def rows(split):
    return datasets.load_dataset("json", data_files=f"{SHAKESPEARE}/{split}.jsonl", split="train")


def test_batches_are_of_like_length_and_features_those_of_each_text_alone(labelled, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 200)
    encoder = build_encoder(CONFIGS["bert"]()).eval()
    batches = labelled.batches("test")
    assert len(batches) == len(list(batches)) > 5
    assert all(batch["input_ids"].numel() <= 200 for batch in batches)
    together = extract(encoder, batches, description=None)[-1]
    for i in (0, 20, len(together) - 1):
        alone = tokenizer(labelled.texts["test"][i], truncation=True, max_length=40, return_tensors="pt")
        with torch.no_grad():
            expected = pool(encoder(alone["input_ids"]).last_hidden_state)
        torch.testing.assert_close(together[i : i + 1], expected, atol=1e-5, rtol=1e-4)


def test_what_an_objective_needs_of_a_text(labelled, tokenizer):
    (batch,) = labelled.pretext_batches("validation")
    text, size = labelled.texts["validation"][-1], int(batch["num_bytes"][-1])
    decoded = text.encode()[:size].decode()  # the part that its tokens stand for
    assert tokenizer(decoded)["input_ids"] == batch["input_ids"][-1].tolist()
    assert size < len(text.encode()) and batch["word_starts"][-1][:2].all()


def test_blank_texts_and_missing_labels_are_left_out_and_counted(tokenizer):
    data = datasets.Dataset.from_dict(
        {"text": ["a b", " ", None, "c"] * 10, "label": ["x", "y", "x", None] * 5 + ["y"] * 20}
    )
    found = LabelledTexts(data, tokenizer, 10)
    assert found.left_out == {"rows without a label": 5, "texts that can't be read": 20}
    assert len(found) == 15


def test_some_of_each_class():
    labels = np.array([0] * 1000 + [1] * 100 + [2] * 3)
    found = some_of_each(labels, 0.1, draw=0)
    assert np.bincount(labels[found]).tolist() == [100, 10, 1] and len(set(found)) == 111
    assert np.array_equal(found, some_of_each(labels, 0.1, draw=0))
    assert not np.array_equal(found, some_of_each(labels, 0.1, draw=1))


def test_fewer_labels_are_means_over_draws():
    random = np.random.default_rng(0)
    labels = {split: random.integers(0, 2, 300) for split in ("train", "validation", "test")}
    features = {split: torch.randn(300, 6) + torch.tensor(y)[:, None] for split, y in labels.items()}
    labels = Labels(labels, ["a", "b"])
    few, all_ = (linear_probe(features, labels, fraction) for fraction in (0.02, 1.0))
    assert few["labels"] == 6 and len(few["C"]) == DRAWS
    assert 0.5 < few["test"]["top1"] < all_["test"]["top1"]
    assert list(label_fractions(0.01, 0.1, 1.0)) == ["linear_probe_1%", "linear_probe_10%", "linear_probe_100%"]


def test_tfidf_equals_scikit_learn(labelled):
    methods = label_fractions(0.1, 1.0)
    found = tfidf_transfer(labelled, methods)
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit(labelled.texts["train"])
    strength = found["linear_probe_100%"]["C"]
    peer = LogisticRegression(C=strength, max_iter=2000)
    peer.fit(vectorizer.transform(labelled.texts["train"]), labelled.labels.splits["train"])
    top1 = peer.score(vectorizer.transform(labelled.texts["test"]), labelled.labels.splits["test"])
    assert found["linear_probe_100%"]["test"]["top1"] == pytest.approx(top1, abs=0.03)
    assert set(found) == set(methods) and found["linear_probe_10%"]["layer"] == "TF-IDF"
    transferred = encoder_transfer(build_encoder(CONFIGS["bert"]()), labelled, methods)
    assert set(transferred) == set(methods) and set(transferred["linear_probe_10%"]["layers"]) == {"-1", "-2", "-3"}
