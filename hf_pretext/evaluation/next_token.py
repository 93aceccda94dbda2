"""Next token: the bits that held-out texts take, compared with bigrams of tokens and with the compressor xz.

texts (n) -> tokens with start and end -> log p(token | tokens before it) -> bits per byte
"""

import lzma
import math
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.corpus import document_tokens, room
from ..modalities.text import Text
from ..stream.collate import collate
from ..utils.places import evenly
from .labelled_set import BATCH_TOKENS, LabelledSet
from .measure import Measure, Metrics, Subject

ROWS = 1000  # most texts of a split
PREFIX = 2**23  # most bytes of the train texts that xz reads before the test texts
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**26}]
# bits per byte of the two baselines, by split: they are the same for every model
_baselines: WeakKeyDictionary[LabelledSet, dict[str, tuple[float, float]]] = WeakKeyDictionary()


class Measured(NamedTuple):
    """A text as it is measured: its first tokens, without special ones, as many as fit into a sequence.

    tokens: ids. ends: True if these are all tokens, so that the end token follows. text: the part of the text that the
    tokens are of, as the tokenizer's normaliser returns it. size: bytes of this part in UTF-8, not normalised."""

    tokens: list[int]
    ends: bool
    text: str
    size: int


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Computes metrics of up to `ROWS` labelled texts of a split, evenly spaced, cut to the maximum length.

    `text_bits`: bits per byte. `text_bigram_gain`, `text_xz_gain`: bits per byte of the baselines minus it."""
    text = subject.labelled.inputs.by_name["text"]
    texts = measured(text, some_texts(subject.labelled, split))
    bits = model_bits(subject, text.tokenizer, texts) / size_of(texts)
    bigram, xz = baselines_of(subject.labelled, split)
    return {"text_bits": bits, "text_bigram_gain": bigram - bits, "text_xz_gain": xz - bits}


def some_texts(labelled: LabelledSet, split: str) -> list[str]:
    """Returns the texts that are measured."""
    texts = labelled.texts(split)
    return [texts[i] for i in evenly(len(texts), ROWS)]


def measured(text: Text, texts: Sequence[str], max_length: int | None = None) -> list[Measured]:
    """Returns texts as they are measured, without those that have no token. max_length: of a text with its special
    tokens; default: that of `text`."""
    tokenizer, result = text.tokenizer, []
    most = room(tokenizer, text.max_length if max_length is None else max_length)
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    encoded = tokenizer(list(texts), **options)
    for content, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        ends = len(ids) <= most
        part = content if ends else content[: max(end for _, end in offsets[:most])]
        if ids:
            result.append(Measured(ids[:most], ends, normalised(tokenizer, part), len(part.encode())))
    return result


def normalised(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Returns a text as the tokenizer splits it, for example in lower case: a compressor needs no bits for the rest."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return text if normalizer is None else normalizer.normalize_str(text)


def size_of(texts: Sequence[Measured]) -> int:
    """Returns the number of bytes of all texts."""
    return sum(one.size for one in texts)


def model_bits(subject: Subject, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Measured]) -> float:
    """Returns the bits of all tokens and ends by a model with `log_likelihood`. The first token of a text takes log2
    of the vocabulary if the tokenizer has no start token."""
    before, after = document_tokens(tokenizer)
    fills = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
    bits = 0.0 if len(before) else len(texts) * math.log2(len(tokenizer))
    rows = [np.array([*before, *one.tokens, *(after if one.ends else ())], np.int64) for one in texts]
    rows.sort(key=len, reverse=True)  # little padding
    at_once = max(BATCH_TOKENS // len(rows[0]), 1)
    for first in range(0, len(rows), at_once):
        some = [torch.from_numpy(row) for row in rows[first : first + at_once]]
        batch = collate([{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in some], fills=fills)
        bits -= float(subject.model.log_likelihood(**subject.moved(batch)).double().sum()) / math.log(2)
    return bits


# baselines


def baselines_of(labelled: LabelledSet, split: str) -> tuple[float, float]:
    """Returns the bits per byte of bigrams and of xz, computed once for each set and split."""
    known = _baselines.setdefault(labelled, {})
    if split not in known:
        text, train = labelled.inputs.by_name["text"], labelled.texts("train")
        texts = measured(text, some_texts(labelled, split))
        learned = [one.tokens for one in measured(text, train, max_length=2**62)]
        bits = bigram_bits(learned, [(one.tokens, one.ends) for one in texts], len(text.tokenizer))
        prefix = "\n".join(normalised(text.tokenizer, one) for one in train).encode()[:PREFIX]
        compressed = xz_bits(prefix, "\n".join(one.text for one in texts).encode())
        known[split] = bits / size_of(texts), compressed / size_of(texts)
    return known[split]


def bigram_bits(train: Sequence[Sequence[int]], texts: Sequence[tuple[Sequence[int], bool]], vocabulary: int) -> float:
    """Returns the bits of tokens given the token before, by interpolated Witten-Bell smoothing: a token after v has the
    probability (count(v, token) + kinds(v) * p(token)) / (count(v) + kinds(v)), where kinds(v) is the number of
    different tokens after v, and p(token) is its frequency with add-one smoothing. After a token that train lacks, it
    is p(token).

    train: token ids of texts. texts: token ids, and whether the end follows. vocabulary: number of token ids. A text
    begins after a start, and its end is a token."""
    edge = vocabulary  # start and end
    given, following = (np.concatenate(some) for some in zip(*(pairs(ids, edge) for ids in train), strict=True))
    unigrams = np.bincount(following, minlength=vocabulary + 1) + 1
    followed, counts = np.unique(given * (vocabulary + 1) + following, return_counts=True)
    totals = np.bincount(given, minlength=vocabulary + 1)
    kinds = np.bincount(followed // (vocabulary + 1), minlength=vocabulary + 1)
    some = [pairs(ids, edge, ends) for ids, ends in texts]
    given, following = (np.concatenate(each) for each in zip(*some, strict=True))
    wanted = given * (vocabulary + 1) + following
    at = np.minimum(np.searchsorted(followed, wanted), len(followed) - 1)
    count = np.where(followed[at] == wanted, counts[at], 0)
    lower = unigrams[following] / unigrams.sum()
    weight = np.maximum(kinds[given], 1)
    return float(-np.log2((count + weight * lower) / (totals[given] + weight)).sum())


def pairs(ids: Sequence[int], edge: int, ends: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns each token of a text and the one before it: `(T,)` each, or `(T + 1,)` with the end. edge: id of the
    start and of the end."""
    tokens = np.array([edge, *ids, *([edge] if ends else [])], np.int64)
    return tokens[:-1], tokens[1:]


def xz_bits(prefix: bytes, content: bytes) -> int:
    """Returns by how many bits the content makes a compressed prefix longer, with xz's strongest preset."""
    lengths = [len(lzma.compress(some, lzma.FORMAT_RAW, filters=XZ)) for some in (prefix, prefix + content)]
    return 8 * (lengths[1] - lengths[0])


# wording


def chance_of(labelled: LabelledSet, model, split: str = "test") -> Metrics:
    """Levels to compare with: the bits per byte of bigrams; no gain."""
    return {"text_bits": baselines_of(labelled, split)[0], "text_bigram_gain": 0.0, "text_xz_gain": 0.0}


WORDS = {
    "text_bits": "next token, bits per byte",
    "text_bigram_gain": "next token, bits per byte saved compared with bigrams",
    "text_xz_gain": "next token, bits per byte saved compared with xz",
}


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    return (
        f"Next token: up to {ROWS:,} labelled texts of the test split, evenly spaced, cut to the maximum length. Bits "
        "per byte: the sum of -log2 p(token) over their tokens and ends, divided by their bytes in UTF-8; lower is "
        "better. Chance is the level of bigrams of the same tokens, counted in the train split of the labelled set, "
        "with interpolated Witten-Bell smoothing. xz reads the train texts first "
        f"(up to {PREFIX // 2**20} MB), with the strongest preset, and counts the bytes that the test texts add; it "
        "gets them as the tokenizer normalises them, for example in lower case. Unknown tokens take the bits of one "
        "token, which favours the model and the bigrams."
    )


MEASURE = Measure(
    needs=("log_likelihood",),
    kinds=("text",),
    compute=compute,
    chance=chance_of,
    words=WORDS.get,
    protocol=protocol,
    headlines=("text_bits", "text_bigram_gain", "text_xz_gain"),
    order=7,
)
