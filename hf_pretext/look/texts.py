"""What is known of one text, and of all of them.

a text, or a list or dict of texts -> TextFacts: length, hashes, an excerpt -> summary
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.captions import normalised
from ..data.corpus import one_text, texts_in
from ..data.decoding import BadSample
from ..data.narration import parsed
from .numbers import digest, spread

EXCERPT = 70  # characters
FREQUENT = 5  # texts in a summary
NO_LETTERS = re.compile(r"[\W_]+")
MISSING = "no text"
EMPTY = ("blank text", MISSING)  # reasons why a row has no text


@dataclass(frozen=True, slots=True)
class TextFacts:
    """A text. characters, words: its length. texts: of the row, of which this is the first. digest: of the text.
    normal: of the text without case, punctuation and spaces."""

    characters: int
    words: int
    texts: int
    digest: bytes
    normal: bytes
    excerpt: str


def look_at(value, clock) -> TextFacts:
    """Returns the facts of a text; of several texts, of the first. Raises `BadSample` for a value without a text."""
    with clock():
        if value is None:
            raise BadSample(MISSING)  # an empty field of a table, or no file next to an image
        text = one_text(value)
    return facts_of(text, len(texts_in(value)))


def look_at_subtitles(value, clock) -> TextFacts:
    """Returns the facts of all texts of subtitles together. Raises `BadSample` for subtitles that can't be used."""
    with clock():
        narrations = parsed(value)
    if not narrations:
        raise BadSample(MISSING)
    return facts_of(" ".join(narration.text for narration in narrations), len(narrations))


def facts_of(text: str, texts: int) -> TextFacts:
    """Returns the facts of a text."""
    words = text.split()
    excerpt = " ".join(text[: 4 * EXCERPT].split())
    excerpt = excerpt if len(excerpt) <= EXCERPT else excerpt[: EXCERPT - 1].rstrip() + "…"
    normal = NO_LETTERS.sub(" ", unicodedata.normalize("NFKC", normalised(text))).strip() or text
    return TextFacts(len(text), len(words), texts, digest(text.encode()), digest(normal.encode()), excerpt)


def summary(facts: Sequence[TextFacts], empty: int) -> dict:
    """Returns lengths, distinct and frequent texts. empty: number of rows without a text."""
    counts = Counter(each.digest for each in facts)
    excerpts = {each.digest: each.excerpt for each in facts}
    return {
        "count": len(facts),
        "empty": empty,
        "characters": spread([each.characters for each in facts]),
        "words": spread([each.words for each in facts]),
        "texts_in_a_row": spread([each.texts for each in facts]),
        "distinct": len(counts),
        "frequent": [
            {"text": excerpts[text], "count": count} for text, count in counts.most_common(FREQUENT) if count > 1
        ],
    }
