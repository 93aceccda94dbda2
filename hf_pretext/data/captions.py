"""Captions: draws a text of a row or a part of a long text, and compares captions.

row {"text", "keywords", ...} -> one caption; a document -> a part of it that begins at a word
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from datasets import Features, Value

from .corpus import AT_ONCE, is_text, one_text, texts_in
from .decoding import BadSample
from .narration import parsed
from .sources import Source

CAPTION_DRAWS = 3
MOST_CAPTIONS = 1_000_000  # to train a tokenizer on
TEXTS = Features({"text": Value("string")})
LETTERS = 4  # characters per token, approximately, in a language with spaces
LONGEST_WORD = 32  # characters that may be skipped so that a part of a text begins at a word


class Captions:
    """Draws the caption of a row.

    others: further columns of captions (texts, lists of keywords, or dicts of texts, as by language). weights: relative
    frequencies of the column "text" and of each of the others; default: equal. languages: keys of these dicts. Only
    texts of these languages are used, and each begins with `language_token` of its language; default: all texts,
    without tokens.
    """

    def __init__(
        self, others: Sequence[str] = (), weights: Sequence[float] | None = None, languages: Sequence[str] = ()
    ):
        self.columns, self.languages = ("text", *others), tuple(languages)
        shares = np.array(weights or [1.0] * len(self.columns))
        self.ends = np.cumsum(shares / shares.sum())

    def __call__(self, row: dict, random: np.random.Generator | None) -> str:
        """Returns the column "text" if `random` is None, else the text of a drawn column: a random choice of a dict's
        texts, or random keywords of a list. An empty column is replaced by "text". If "text" is a list or dict of
        captions, one of them is drawn; the first one if `random` is None. Raises `BadSample` for a row whose column
        "text" is missing or blank."""
        caption = one_text(row["text"], random)
        if random is None or len(self.columns) == 1:
            return caption
        column, which, many = random.random(CAPTION_DRAWS)
        value = row.get(self.columns[int(np.searchsorted(self.ends, column, "right").clip(max=len(self.ends) - 1))])
        value = in_languages(value, self.languages)
        texts = texts_in(value)
        if not texts:
            return caption
        if isinstance(value, dict):
            index = int(which * len(texts))
            return f"{language_token([*value][index])} {texts[index]}" if self.languages else texts[index]
        return " ".join(random.permutation(texts)[: 1 + int(many * len(texts))])


def language_token(language: str) -> str:
    """Returns the token that a text of a language begins with: "[es]" for "es"."""
    return f"[{language}]"


def in_languages(value, languages: Sequence[str]):
    """Returns of a dict of texts those of some languages. Other values, and all values for no languages, are returned
    as they are."""
    if not languages or not isinstance(value, dict):
        return value
    return {name: value[name] for name in languages if is_text(value.get(name))}


def captions_of(source: Source, columns: Sequence[str], languages: Sequence[str] = ()) -> Iterator[str]:
    """Yields every text in these columns of a source; of subtitles, the text of each cue. languages: see `Captions`."""
    for piece, count in enumerate(source.counts):
        for first in range(0, count, AT_ONCE):
            for row in source.read(piece, first, min(first + AT_ONCE, count)):
                for column in columns:
                    if column == "subtitles":
                        yield from texts_of_subtitles(row)
                    else:
                        yield from texts_in(in_languages(row.get(column), languages))


def texts_of_subtitles(row: dict) -> list[str]:
    """Returns the texts of the subtitles of a row; `[]` for subtitles that can't be read."""
    try:
        return [narration.text for narration in parsed(row.get("subtitles"))]
    except BadSample:
        return []


def distinct_captions(sources: Sequence[tuple[Source, Sequence[str]]], languages: Sequence[str] = ()) -> Source:
    """Returns the distinct captions of several (source, columns) pairs as one source, to train a tokenizer on.

    languages: see `Captions`. Takes at most the first `MOST_CAPTIONS` texts. Raises `ValueError` for sources without
    any text."""
    texts = itertools.chain(*(captions_of(source, columns, languages) for source, columns in sources))
    distinct = list(dict.fromkeys(itertools.islice(texts, MOST_CAPTIONS)))
    if not distinct:
        raise ValueError(
            f"{sources[0][0].name} has no text in its caption columns, so no tokenizer can be trained. "
            "Choose columns that contain texts."
        )
    return Source([{"text": text} for text in distinct], {"text": "text"}, "captions", TEXTS)


def part_of(text: str, letters: int, random: np.random.Generator | None) -> str:
    """Returns a part of a text that begins at a word, of at least about `letters` characters if the text has them.

    The part begins at a random place, so that training also uses the rest of a long text; with `random` None it begins
    at the start. The part has at most `LETTERS * letters` characters."""
    spare = len(text) - letters
    if random is None or spare <= 0:
        return text[: LETTERS * letters]
    start = int(random.integers(spare + 1))
    if start:
        word = text.find(" ", start, start + LONGEST_WORD)
        start = start if word < 0 else word + 1
    return text[start : start + LETTERS * letters]  # room for long words; limits the tokenizer's work


def normalised(caption: str) -> str:
    """Returns a caption in the form for comparisons: case-folded, with one space between words."""
    return " ".join(caption.casefold().split())


def label_number(text) -> int:
    """Returns a signed 64-bit hash of the normalised text, equal in every process; used as the label of a pair."""
    return int.from_bytes(hashlib.blake2b(normalised(str(text)).encode(), digest_size=8).digest(), "big", signed=True)
