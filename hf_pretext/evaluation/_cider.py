"""CIDEr-D: how well generated captions agree with the references of their images, by n-grams weighted by their rarity.

captions (n), references (n lists) -> words -> counts of n-grams, n = 1..4 -> tf-idf -> clipped cosine -> score

Vedantam et al. 2015, https://huggingface.co/papers/1411.5726. As in coco-caption: sigma 6, document frequencies from
the references of the images that are scored, and scores times 10.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ..data.captions import normalised

ORDERS, SIGMA, SCALE = (1, 2, 3, 4), 6.0, 10.0
Counts = Mapping[tuple[str, ...], int]


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Computes CIDEr-D of each caption, 0 to 10, with the references of its image. A corpus score is the mean.

    captions: a generated caption for each image. references: the reference captions of each image. The document
    frequency of an n-gram is the number of images with it in a reference. An n-gram that every image
    has counts 0, so that a single image has a score of 0. A caption that equals its only reference has 2.5 for each n
    up to 4 of which it has n-grams: 5 for two words.

    Raises `ValueError` for other numbers of captions than of references, and for an image without a reference."""
    if len(captions) != len(references):
        raise ValueError(
            f"{len(captions)} captions have references of {len(references)} images. Give one caption each."
        )
    if empty := [number for number, each in enumerate(references) if not each]:
        raise ValueError(f"Image {empty[0]} has no reference caption. Leave out images without one.")
    counts = [[ngrams(words(text)) for text in each] for each in references]
    frequencies = Counter(ngram for each in counts for ngram in set().union(*each))
    rarity = {ngram: math.log(len(references) / count) for ngram, count in frequencies.items()}
    unseen = math.log(len(references)) if references else 0.0  # of an n-gram that no reference has
    scores = []
    for caption, each in zip(captions, counts, strict=True):
        candidate = ngrams(words(caption))
        scores.append(SCALE * sum(similarity(candidate, reference, rarity, unseen) for reference in each) / len(each))
    return scores


def words(text: str) -> list[str]:
    """Returns the words of a text, case-folded: runs of letters, digits and underscores. coco-caption also leaves out
    punctuation, but keeps hyphens and apostrophes in words."""
    return re.findall(r"\w+", normalised(text))


def ngrams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Counts the n-grams of all `ORDERS`."""
    return Counter(tuple(tokens[i : i + n]) for n in ORDERS for i in range(len(tokens) - n + 1))


def similarity(candidate: Counts, reference: Counts, rarity: Mapping[tuple[str, ...], float], unseen: float) -> float:
    """Returns the mean over n of the clipped cosine of two tf-idf vectors, times a penalty for different lengths.

    rarity: logarithm of the inverse document frequency of each n-gram. unseen: of other n-grams. Term frequencies are
    counts: their normalisation cancels in the cosine, but for the clipping, which coco-caption does with counts."""
    total = 0.0
    for n in ORDERS:
        ours, theirs = (
            {ngram: count * rarity.get(ngram, unseen) for ngram, count in counts.items() if len(ngram) == n}
            for counts in (candidate, reference)
        )
        lengths = math.hypot(*ours.values()) * math.hypot(*theirs.values())
        shared = sum(min(ours[ngram], value) * value for ngram, value in theirs.items() if ngram in ours)
        total += shared / lengths if lengths else 0.0
    apart = length(candidate) - length(reference)
    return total / len(ORDERS) * math.exp(-(apart**2) / (2 * SIGMA**2))


def length(counts: Counts) -> int:
    """Returns the number of words, from the counts of their n-grams."""
    return sum(count for ngram, count in counts.items() if len(ngram) == 1)
