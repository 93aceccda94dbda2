"""TF-IDF of words as features: what a text encoder has to beat.

texts -> TF-IDF of words and pairs of words -> linear probes
"""

from collections.abc import Mapping

from .baselines import Baseline
from .labelled_set import LabelledSet
from .transfer import Method, best_layer

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # its features are small, so that C is large


def tfidf_transfer(labelled: LabelledSet, methods: Mapping[str, Method]) -> dict:
    """What linear probes find in the words alone, of entire texts, with the strength of the probe chosen on validation
    as for an encoder. methods: linear probes, by name; a kNN is left out."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = {split: labelled.texts(split) for split in labelled.labels.splits}
    options = {"sublinear_tf": True, "ngram_range": (1, 2)}
    try:
        vectorizer = TfidfVectorizer(min_df=2, **options).fit(texts["train"])
    except ValueError:  # no word of two letters or more is in two texts
        vectorizer = TfidfVectorizer(token_pattern=r"\S+", **options).fit(texts["train"])
    features = {split: vectorizer.transform(some) for split, some in texts.items()}
    options = {"standardised": False, "strengths": STRENGTHS}
    probes = {name: method for name, method in methods.items() if name != "knn"}
    return {name: best_layer({"TF-IDF": probe(features, labelled.labels, **options)}) for name, probe in probes.items()}


BASELINE = Baseline(
    kind="text",
    name="TF-IDF",
    words="TF-IDF does",
    protocol="TF-IDF: words and pairs of words of entire texts, however long, of all of train, with the same logistic "
    "regression, its strength chosen on validation too; it has no seeds.",
    transfer=tfidf_transfer,
)
