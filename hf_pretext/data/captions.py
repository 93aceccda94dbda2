"""Captions: which text of a row is drawn, what part of a long one, and when two read the same.

row {"text", "keywords", ...} -> one caption; a document -> a part of it that begins at a word
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from datasets import Features, Value

from .columns import holds_text
from .corpus import AT_ONCE
from .decoding import to_text
from .sources import Source

CAPTION_DRAWS = 3
MOST_CAPTIONS = 1_000_000  # that a tokenizer is trained on
TEXTS = Features({"text": Value("string")})
LETTERS = 4  # of a token, about, in a language with spaces
LONGEST_WORD = 32  # letters that are left out so that a part of a text begins with a word


class Captions:
    """Which text of a row is shown.

    others: further columns of captions (texts; lists of keywords; texts by language). weights: how often the column
    "text" and each of the others is drawn; all alike where None.
    """

    def __init__(self, others: Sequence[str] = (), weights: Sequence[float] | None = None):
        self.columns = ("text", *others)
        shares = np.array(weights or [1.0] * len(self.columns))
        self.ends = np.cumsum(shares / shares.sum())

    def __call__(self, row: dict, random: np.random.Generator | None) -> str:
        """Returns the caption; where `random` is given, it or one of the others. Raises `BadSample` for a row without
        a caption."""
        caption = to_text(row["text"])
        if random is None or len(self.columns) == 1:
            return caption
        column, which, many = random.random(CAPTION_DRAWS)
        value = row.get(self.columns[int(np.searchsorted(self.ends, column, "right").clip(max=len(self.ends) - 1))])
        texts = texts_in(value)
        if not texts:
            return caption
        if isinstance(value, dict):
            return texts[int(which * len(texts))]
        return " ".join(random.permutation(texts)[: 1 + int(many * len(texts))])


def holds_captions(feature) -> bool:
    """Whether a column's type is that of texts, of lists of texts or of texts by name, or not known."""
    inner = feature.values() if isinstance(feature, dict) else [getattr(feature, "feature", feature)]
    return all(map(holds_text, inner))


def texts_in(value) -> list[str]:
    """The texts of a column's value, whatever its kind."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]


def captions_of(source: Source, columns: Sequence[str]) -> Iterator[str]:
    """Every text in these columns of a source."""
    for piece, count in enumerate(source.counts):
        for first in range(0, count, AT_ONCE):
            for row in source.read(piece, first, min(first + AT_ONCE, count)):
                for column in columns:
                    yield from texts_in(row.get(column))


def distinct_captions(sources: Sequence[tuple[Source, Sequence[str]]]) -> Source:
    """The distinct texts of several sources, each read in some of its columns: what a tokenizer is trained on.

    Raises `ValueError` where there is none."""
    texts = itertools.chain(*(captions_of(source, columns) for source, columns in sources))
    distinct = list(dict.fromkeys(itertools.islice(texts, MOST_CAPTIONS)))
    if not distinct:
        raise ValueError(f"{sources[0][0].name} has no text in its captions: nothing to learn from.")
    return Source([{"text": text} for text in distinct], {"text": "text"}, "captions", TEXTS)


def part_of(text: str, letters: int, random: np.random.Generator | None) -> str:
    """A part of a text, about `letters` long or longer where it has so many, that begins at a word; drawn where
    `random` is given, so that a long text is not known by its beginning alone."""
    spare = len(text) - letters
    if random is None or spare <= 0:
        return text[: LETTERS * letters]
    start = int(random.integers(spare + 1))
    if start:
        word = text.find(" ", start, start + LONGEST_WORD)
        start = start if word < 0 else word + 1
    return text[start : start + LETTERS * letters]  # to spare for long words; the rest need not be tokenised


def normalised(caption: str) -> str:
    """A caption as it is compared with others: without case, and one space between words."""
    return " ".join(caption.casefold().split())


def label_number(text) -> int:
    """A whole number that is the same for equal texts, in every process: what pairs are compared by."""
    return int.from_bytes(hashlib.blake2b(normalised(str(text)).encode(), digest_size=8).digest(), "big", signed=True)
