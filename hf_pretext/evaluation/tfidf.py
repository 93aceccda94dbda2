"""Baseline of text encoders: TF-IDF of words as features.

texts -> TF-IDF of words and pairs of words -> linear probes
"""

from collections.abc import Mapping

from .baselines import Baseline
from .labelled_set import LabelledSet
from .transfer import Method, best_layer

TOLERANCE = 1e-6  # with that of standardised features, fits end long before the best weights
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # C of scikit-learn; large, since TF-IDF values are small


def tfidf_transfer(labelled: LabelledSet, methods: Mapping[str, Method]) -> dict:
    """Measures linear probes on TF-IDF features of the full texts. The strength of a probe is chosen on validation, as
    for an encoder. methods: by name; kNN is left out. Returns the metrics by method, as `transfer` does."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = {split: labelled.texts(split) for split in labelled.labels.splits}
    options = {"sublinear_tf": True, "ngram_range": (1, 2)}
    try:
        vectorizer = TfidfVectorizer(min_df=2, **options).fit(texts["train"])
    except ValueError:  # raised if no word of at least two letters occurs in two texts
        vectorizer = TfidfVectorizer(token_pattern=r"\S+", **options).fit(texts["train"])
    features = {split: vectorizer.transform(some) for split, some in texts.items()}
    options = {"standardised": False, "strengths": STRENGTHS, "tolerance": TOLERANCE}
    probes = {name: method for name, method in methods.items() if name != "knn"}
    return {name: best_layer({"TF-IDF": probe(features, labelled.labels, **options)}) for name, probe in probes.items()}


BASELINE = Baseline(
    kind="text",
    name="TF-IDF",
    words="TF-IDF does",
    protocol="TF-IDF: unigrams and bigrams of the full texts, without truncation, fitted on all of train. The "
    "classifier is the same logistic regression, but on unscaled features, with its strength chosen on validation. "
    "TF-IDF has no seeds.",
    transfer=tfidf_transfer,
)
