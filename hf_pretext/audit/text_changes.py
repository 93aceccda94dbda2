"""Changes of texts whose level is known: casing, word order, deletion of words.

texts before the tokenizer, level -> texts

Words are separated by white space; a text without it is one word, which has no order and is never deleted. Random
choices depend on the text alone, so that they are the same in each batch.
"""

import itertools
import re
import zlib
from collections.abc import Sequence

import numpy as np

CASES = {"unchanged": str, "lower": str.lower, "upper": str.upper}
WORD = re.compile(r"(\s*)(\S+)")  # with the white space before it


def beginning(text: str, words: int) -> str:
    """Returns the first words of a text, and the white space between them."""
    first = [*itertools.islice(WORD.finditer(text), words)]
    return text[: first[-1].end()] if first else text


def cased(texts: Sequence[str], case: str) -> list[str]:
    """Returns texts in lower or upper case. case: "unchanged", "lower" or "upper"."""
    return [CASES[case](text) for text in texts]


def reordered(texts: Sequence[str], share: float) -> list[str]:
    """Moves a random `share` of the words of each text to one another's places. White space stays where it is."""
    return [with_words_moved(text, share) for text in texts]


def shortened(texts: Sequence[str], share: float) -> list[str]:
    """Deletes a random `share` of the words of each text, with the white space before them. One word always stays."""
    return [with_words_deleted(text, share) for text in texts]


def with_words_moved(text: str, share: float) -> str:
    """Returns one text of `reordered`: each of the moved words has a new place."""
    spaces, words, end = parts(text)
    moved = random_of(text).permutation(len(words))[: round(share * len(words))]
    words[moved] = words[np.roll(moved, 1)]
    return "".join(map("".join, zip(spaces, words, strict=True))) + end


def with_words_deleted(text: str, share: float) -> str:
    """Returns one text of `shortened`. It begins with the white space of the text, if there is any."""
    spaces, words, end = parts(text)
    deleted = min(round(share * len(words)), max(len(words) - 1, 0))
    kept = np.sort(random_of(text).permutation(len(words))[deleted:])
    before = [*spaces[:1], *spaces[kept[1:]]]
    return "".join(map("".join, zip(before, words[kept], strict=True))) + end


def parts(text: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns the white space before each word, the words, and what follows the last word."""
    pairs = WORD.findall(text)
    size = sum(len(space) + len(word) for space, word in pairs)
    spaces, words = (np.array([pair[i] for pair in pairs], dtype=object) for i in (0, 1))
    return spaces, words, text[size:]


def random_of(text: str) -> np.random.Generator:
    """Returns a generator whose seed is a checksum of the text."""
    return np.random.default_rng(zlib.crc32(text.encode("utf-8", "surrogatepass")))
