"""Retrieval of halves: the first half of a text finds its second half among those of all texts of a split.

texts (n) -> first halves, second halves -> text encoder -> vectors (n, D), (n, D) -> cosine -> R@k
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.utils import logging

from ..data.captions import normalised
from ..features import extract
from ..modeling import PretextModel
from .labelled_set import LabelledSet, TextBatches
from .measure import Measure, Metrics, Subject
from .retrieval import CHUNK, TIE, ranks

KS = (1, 10)
PREFIX, TFIDF = "halves_r", "_baseline"  # start of the names of metrics, and end of those of TF-IDF
log = logging.get_logger(__name__)
OPTIONS = {"sublinear_tf": True, "ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"}


def halves(text: str) -> tuple[str, str] | None:
    """Returns the two halves of a text: words up to its middle, in characters, and the others. None for one word."""
    words = text.split()
    if len(words) < 2:
        return None
    ends = torch.tensor([len(word) + 1 for word in words[:-1]]).cumsum(0)
    at = int((ends - (len(" ".join(words)) + 1) / 2).abs().argmin()) + 1
    return " ".join(words[:at]), " ".join(words[at:])


def pairs(labelled: LabelledSet, split: str) -> list[tuple[str, str]]:
    """Returns first and second half of each text of a split. Texts of one word are left out, and of texts with equal
    second halves all but the first."""
    distinct: dict[str, tuple[str, str]] = {}
    for first, second in filter(None, map(halves, labelled.texts(split))):
        distinct.setdefault(normalised(second), (first, second))
    return list(distinct.values())


def vectors(subject: Subject, texts: Sequence[str]) -> Tensor:
    """Returns the vectors of texts, `(n, D)`: the output of the encoder, pooled as in `SentenceTransformer(folder)`."""
    tokens = subject.labelled.inputs.by_name["text"]
    encoded = [*tokens.documents(texts)]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]["input_ids"]))
    batches = TextBatches([encoded[i] for i in order], tokens.tokenizer.pad_token_id, ("input_ids",))
    pooling = getattr(subject.model.task, "pooling", "mean")
    encoder = subject.model.encoders["text"]
    pooled = extract(encoder, batches, (-1,), pooling, subject.device, description=None)[-1]
    return torch.empty_like(pooled).index_copy_(0, torch.tensor(order), pooled)


def recalls(rank: Tensor, end: str = "") -> Metrics:
    """Returns R@k by name. rank: of the right half for each text, from 1, `(n,)`."""
    return {f"{PREFIX}{k}{end}": float((rank <= k).float().mean()) for k in KS}


def tfidf_ranks(first: Sequence[str], second: Sequence[str]) -> Tensor:
    """Returns the rank of the right half by the cosine of TF-IDF vectors, `(n,)`. Ties count against it."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(**OPTIONS).fit([*first, *second])
    queries, candidates = (vectorizer.transform(some) for some in (first, second))
    rank = []
    for at in range(0, len(first), CHUNK):
        cosine = torch.from_numpy((queries[at : at + CHUNK] @ candidates.T).toarray())  # (chunk, n)
        right = cosine.gather(1, torch.arange(at, at + len(cosine))[:, None])
        rank.append((cosine >= right - TIE).sum(1))
    return torch.cat(rank)


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Computes R@k of second halves by the vectors of first halves, and the same by TF-IDF. Returns nothing for a split
    with fewer than two pairs of halves."""
    of_texts = pairs(subject.labelled, split)
    if len(of_texts) < 2:
        return {}
    first, second = zip(*of_texts, strict=True)
    numbers = torch.arange(len(of_texts))
    rank = ranks(vectors(subject, [*first]), vectors(subject, [*second]), numbers, numbers)
    return {**recalls(rank), **recalls(tfidf_ranks(first, second), TFIDF)}


def chance_of(labelled: LabelledSet, model: PretextModel | type[PretextModel], split: str = "test") -> Metrics:
    """Chance levels of `compute`: k of n, for TF-IDF, too. Warns if there are fewer than two pairs of halves."""
    count = len(pairs(labelled, split))
    if count < 2:
        log.warning(
            f"Retrieval of halves is not measured: the {split} split of {labelled.name} has {count} different texts of "
            "two words or more."
        )
        return {}
    return {f"{PREFIX}{k}{end}": min(k / count, 1.0) for end in ("", TFIDF) for k in KS}


WORDS = {
    f"{PREFIX}{k}{end}": f"second half of a text, R@{k}{words}"
    for end, words in {"": "", TFIDF: ", by TF-IDF"}.items()
    for k in KS
}


MEASURE = Measure(
    needs=(),
    kinds=("text",),
    compute=compute,
    chance=chance_of,
    words=WORDS.get,
    protocol=lambda results: (
        "Retrieval of halves: each text of the test split is cut in its middle, between two words. The query is the "
        "first half, the candidates are the second halves of all texts. Vectors are the encoder's output, pooled as in "
        "`SentenceTransformer`, of as many tokens of a half as the encoder reads; compared by cosine. R@k is the share "
        "of queries with the right half among the k nearest. Ties count against the query. TF-IDF: words and pairs of "
        "words of the full halves, fitted on them."
    ),
    headlines=(f"{PREFIX}1", f"{PREFIX}10"),
    most_kinds=1,
    order=6,
)
