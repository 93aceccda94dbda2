"""TF-IDF next to text encoders."""

import datasets
import pytest
from conftest import CONFIGS, REPOSITORY
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.comparison import encoder_transfer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.linear_probe import probe_path
from hf_pretext.evaluation.tfidf import TOLERANCE, tfidf_transfer
from hf_pretext.evaluation.transfer import label_fractions, methods_of
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.text import Corpus

SHAKESPEARE = str(REPOSITORY / "hf_pretext" / "samples" / "shakespeare")


@pytest.fixture(scope="module")
def labelled(cache):
    tokenizer = train_tokenizer(open_source(SHAKESPEARE, needed=("text",)), size=50)
    return LabelledSet(SHAKESPEARE, Inputs(Corpus(tokenizer, 40)), "kind", limit=60)


def test_tfidf_equals_scikit_learn(labelled):
    methods = label_fractions(0.1, 1.0)
    measured = tfidf_transfer(labelled, methods)
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit(labelled.texts("train"))
    strength = measured["linear_probe_100%"]["C"]
    peer = LogisticRegression(C=strength, max_iter=2000)
    peer.fit(vectorizer.transform(labelled.texts("train")), labelled.labels.splits["train"])
    top1 = peer.score(vectorizer.transform(labelled.texts("test")), labelled.labels.splits["test"])
    assert measured["linear_probe_100%"]["test"]["top1"] == pytest.approx(top1, abs=0.03)
    assert set(measured) == set(methods) and measured["linear_probe_10%"]["layer"] == "TF-IDF"
    transferred = encoder_transfer(build_encoder(CONFIGS["bert"]()), labelled, "text", methods)
    assert set(transferred) == set(methods) and set(transferred["linear_probe_10%"]["layers"]) == {"-1", "-2", "-3"}


def test_tfidf_has_no_neighbours(labelled):
    assert set(tfidf_transfer(labelled, methods_of(None))) == {"linear_probe"}


def test_tfidf_of_texts_that_share_no_word(labelled):
    """No word is in two texts, or of two letters: what is there counts, and a finished run is not lost by it."""
    tokenizer = labelled.inputs.by_name["text"].tokenizer
    for word in ("word{}", "{}"):
        rows = [{"text": word.format(chr(0x4E00 + i)), "label": "ab"[i % 2]} for i in range(40)]
        alone = LabelledSet(datasets.Dataset.from_list(rows), Inputs(Corpus(tokenizer, 10)))
        top1 = tfidf_transfer(alone, methods_of(None))["linear_probe"]["test"]["top1"]
        share = float((alone.labels.splits["test"] == 0).mean())  # nothing of test is known: one class for all
        assert min(abs(top1 - share), abs(top1 - (1 - share))) < 1e-6


def test_a_fit_does_not_end_before_the_best_weights(cache):
    """With the tolerance of standardised features, values as small as those of TF-IDF end a fit much too early."""
    tokenizer = train_tokenizer(open_source(SHAKESPEARE, needed=("text",)), size=50)
    labelled = LabelledSet(SHAKESPEARE, Inputs(Corpus(tokenizer, 40)), "kind")
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit(labelled.texts("train"))
    train, test = (vectorizer.transform(labelled.texts(split)) for split in ("train", "test"))
    labels = labelled.labels.splits["train"]
    best = LogisticRegression(C=10.0, tol=1e-9, max_iter=3000).fit(train, labels).predict(test)
    agreed = {}
    for tolerance in (1e-3, TOLERANCE):
        ((_, (predicted,)),) = probe_path(train, labels, [test], [10.0], False, tolerance)
        agreed[tolerance] = float((predicted == best).mean())
    assert agreed[TOLERANCE] > 0.995 > 0.99 > agreed[1e-3], agreed
