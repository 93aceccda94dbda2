"""Tokenises a corpus once, caches the tokens on disk, and reads them as packed sequences by memory map.

Source of texts -> tokens, word starts, bytes of each document -> packed sequences: rows for the stream
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from datasets import Features, Value
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..utils.files import made_once
from ..utils.progress import progress
from .decoding import UNREADABLE, BadSample, is_text, to_text
from .packing import best_fit, pieces
from .remote import digest
from .sources import Source

VERSION = 1  # of the tokenisation; caches of other versions are not used
LONGEST_WORD = 8  # most tokens that are masked as one word
AT_ONCE = 1000  # documents per call of the tokenizer, which then uses all cores
log = logging.get_logger(__name__)


class Texts:
    """A tokenised corpus without special tokens and without blank documents.

    tokens (`(T,)`: token ids), starts (`(T,)`, bool: True at the first token of a word), offsets (`(documents + 1,)`:
    first token of each document), sizes (`(documents,)`: bytes of each document in UTF-8).
    """

    def __init__(self, folder: Path):
        self.tokens, self.starts, self.offsets, self.sizes = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "starts", "offsets", "sizes")
        )

    def __len__(self) -> int:
        return len(self.sizes)


def tokenised(source: Source, tokenizer: PreTrainedTokenizerBase, column: str = "text") -> Texts:
    """Tokenises the texts of a source once and caches them below `HF_HOME`, by source and tokenizer.

    Raises `ValueError` for a source without any text or of unknown length, and for a slow tokenizer.
    """
    from huggingface_hub import constants

    if source.endless:
        raise ValueError(f"{source.name} is an iterable without a length and can't be packed. Give a list or files.")
    name = digest([identity(source, column), fingerprint(tokenizer), VERSION])
    folder = Path(constants.HF_HOME) / "hf_pretext" / "texts" / name
    return Texts(made_once(folder, lambda temporary: write(source, tokenizer, column, temporary)))


def write(source: Source, tokenizer: PreTrainedTokenizerBase, column: str, folder: Path) -> None:
    """Tokenises a source into a folder that `Texts` reads. Raises `ValueError` for a source without any text."""
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    lengths, sizes, bad = [], [], 0
    bar = progress(total=len(source), description=f"tokenising {source.name}", unit="texts")
    with bar, open(folder / "tokens", "wb") as tokens, open(folder / "starts", "wb") as starts:
        for texts in batches(source, column):
            good = [text for text in texts if text is not None]
            bad += len(texts) - len(good)
            bar.update(len(texts))
            if not good:
                continue
            encoded = tokenizer(good, add_special_tokens=False, return_attention_mask=False, verbose=False)
            for i, text in enumerate(good):
                ids = encoded["input_ids"][i]
                tokens.write(np.array(ids, dtype).tobytes())
                starts.write(word_begins(encoded.word_ids(i)).tobytes())
                lengths.append(len(ids))
                sizes.append(len(text.encode()))
    if not sum(lengths):
        name = source.columns[column]
        raise ValueError(f"{source.name} has no text in its column {name!r}. Choose a column that contains texts.")
    if bad:
        log.warning(
            f"{source.name}: {bad:,} of {len(source):,} texts are missing, blank or unreadable and are left out."
        )
    for name, kind in (("tokens", dtype), ("starts", np.bool_)):
        np.save(folder / f"{name}.npy", np.memmap(folder / name, kind, "r"))
        os.unlink(folder / name)
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(folder / "sizes.npy", np.array(sizes, np.int64))


def identity(source: Source, column: str = "text") -> list[str]:
    """Returns a content hash of a text source, as a list of strings.

    The hash is the stamp of the rows and the name of the column; for rows without a stamp, all texts are hashed."""
    if source.rows.stamp is not None:
        return [source.rows.stamp, source.columns[column]]
    content = hashlib.blake2b(digest_size=8)
    for texts in batches(source, column):
        content.update(json.dumps(texts).encode())
    return [content.hexdigest()]


def batches(source: Source, column: str) -> Iterator[list[str | None]]:
    """Yields lists of the texts of a source; None for each text that is missing, blank or unreadable."""
    for piece, count in enumerate(source.counts):
        for first in range(0, count, AT_ONCE):
            rows = source.read(piece, first, min(first + AT_ONCE, count))
            yield [text_or_none(row, column) for row in rows]


def text_or_none(row: dict, column: str) -> str | None:
    """Returns the text of a row; None for a text that is missing, blank or unreadable."""
    if UNREADABLE in row:
        return None
    try:
        return one_text(row[column])
    except BadSample:
        return None


def one_text(value, random: np.random.Generator | None = None) -> str:
    """Returns a text; of a list or dict of texts, a random one, or the first if `random` is None.

    Raises `BadSample` for a value without a text."""
    if not isinstance(value, (list, tuple, dict)):
        return to_text(value)
    texts = texts_in(value)
    if not texts:
        raise BadSample(f"a {type(value).__name__} without a text")
    return texts[0 if random is None else int(random.integers(len(texts)))]


def texts_in(value) -> list[str]:
    """Returns the texts in a column's value (a text, list or dict), without those that `to_text` refuses."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
    return [text for text in values if is_text(text)]


def word_begins(words: Sequence[int | None]) -> np.ndarray:
    """Returns `(tokens,)`, bool: True at the first token of each word.

    words: the index of each token's word, as of `word_ids()`; None for a special token, which counts as a word.

    Words of more than `LONGEST_WORD` tokens are cut into parts. A tokenizer may treat a clause of a language without
    spaces, or a long URL, as one word. Masking all of it would leave too little context to predict it."""
    numbers = np.array([-i - 1 if word is None else word for i, word in enumerate(words)], np.int64)
    starts = np.diff(numbers, prepend=np.int64(-(2**62))) != 0
    at = np.arange(len(starts))
    return starts | ((at - np.maximum.accumulate(np.where(starts, at, 0))) % LONGEST_WORD == 0)


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns a hash of a tokenizer, without its truncation and padding. Raises `ValueError` for a slow tokenizer."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} is a slow tokenizer, without word indices. Give a fast tokenizer "
            "(PreTrainedTokenizerFast)."
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return digest({key: value for key, value in state.items() if key not in ("truncation", "padding")})


class Pieces:
    """Documents cut into pieces of at most `max_length` tokens, including the special tokens around each piece.

    A tokenizer that ends each text, like BERT's, has its special tokens around each piece. One that adds no end token,
    like GPT-2's and Llama's, has them around each document: the first piece of a cut document begins with its start
    tokens, if it has some, and the last one ends with its end token, if it has one. So a causal language model learns
    that a document ends only where it does.

    cuts (`(pieces, 2)`: first token and end of each piece), lengths (`(pieces,)`: tokens, including special tokens).
    """

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int):
        """Raises `ValueError` for a `max_length` without room for a token (see `room`)."""
        self.texts = texts
        self.before, self.after = document_tokens(tokenizer)
        self.of_documents = not len(special_tokens(tokenizer)[1])
        self.cuts = pieces(texts.offsets, room(tokenizer, max_length), texts.starts)
        begins, ends = (np.isin(at, texts.offsets) | (not self.of_documents) for at in self.cuts.T)
        self.lengths = np.diff(self.cuts)[:, 0] + begins * len(self.before) + ends * len(self.after)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Returns tokens (`(L,)`), word starts (`(L,)`, bool) and the number of UTF-8 bytes of a piece.

        The bytes of a cut document are divided among its pieces by their numbers of tokens."""
        begin, end = self.cuts[i].tolist()
        document = int(np.searchsorted(self.texts.offsets, begin, "right")) - 1
        first, last = self.texts.offsets[document : document + 2].tolist()
        before = self.before if begin == first or not self.of_documents else self.before[:0]
        after = self.after if end == last or not self.of_documents else self.after[:0]
        tokens = np.concatenate([before, self.texts.tokens[begin:end], after], dtype=np.int64)
        starts = np.ones(len(tokens), bool)
        starts[len(before) : len(tokens) - len(after)] = self.texts.starts[begin:end]
        return tokens, starts, float(self.texts.sizes[document]) * (end - begin) / (last - first)


class PackedTexts(Sequence):
    """Sequences of at most `max_length` tokens; each packs several documents, or pieces of long documents.

    Row i: input_ids, document_ids (1, 2, ... in the sequence), word_starts (bool), all `(tokens,)`, and num_bytes.
    """

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int):
        """Raises `ValueError` as `Pieces` does."""
        self.pieces, self.max_length = Pieces(texts, tokenizer, max_length), max_length
        self.members, self.ends = best_fit(self.pieces.lengths, max_length)

    def plan(self) -> str:
        """Returns a hash of the tokens and of their division into sequences."""
        return content_digest(self.pieces.texts.tokens, self.pieces.cuts, self.members, self.ends)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def padding(self) -> float:
        """Fraction of padding if all sequences are padded to `max_length`."""
        return 1 - self.pieces.lengths.sum() / (len(self) * self.max_length)

    def __getitem__(self, i: int) -> dict[str, np.ndarray | float]:
        if not 0 <= i < len(self):
            raise IndexError(f"Sequence {i} does not exist: the indices are 0 to {len(self) - 1}.")
        members = self.members[self.ends[i - 1] if i else 0 : self.ends[i]]
        tokens, starts, sizes = zip(*(self.pieces[member] for member in members), strict=True)
        return {
            "input_ids": np.concatenate(tokens),
            "document_ids": np.repeat(np.arange(1, len(tokens) + 1), [len(piece) for piece in tokens]),
            "word_starts": np.concatenate(starts),
            "num_bytes": sum(sizes),
        }


class BatchedTexts(Sequence):
    """Whole batches of documents of similar length, for encoders that can't separate packed documents.

    Row i is a batch of at most `max_length * batch_size` tokens, padding included: input_ids, attention_mask and
    word_starts, all `(B, L)`, and num_bytes `(B,)`. A batch has the same documents in every epoch; the stream shuffles
    the batches.
    """

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_size: int):
        """batch_size: size of a batch in sequences of `max_length` tokens. Raises `ValueError` as `Pieces` does."""
        self.pieces, self.pad_token_id = Pieces(texts, tokenizer, max_length), tokenizer.pad_token_id
        # shuffles documents of equal length; otherwise neighbours in a file share a batch
        random = np.random.default_rng(0).random(len(self.pieces.lengths))
        self.order = np.lexsort((random, self.pieces.lengths))
        ends, first = [], 0
        for i, length in enumerate(self.pieces.lengths[self.order].tolist()):  # ascending: the last one is the longest
            if (i + 1 - first) * length > max_length * batch_size:
                ends.append(i)
                first = i
        self.ends = np.array([*ends, len(self.order)])

    def plan(self) -> str:
        """Returns a hash of the tokens and of their division into batches."""
        return content_digest(self.pieces.texts.tokens, self.pieces.cuts, self.order, self.ends)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def padding(self) -> float:
        """Fraction of padding in all batches."""
        longest = self.pieces.lengths[self.order[self.ends - 1]]
        return 1 - self.pieces.lengths.sum() / (longest * np.diff(self.ends, prepend=0)).sum()

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        if not 0 <= i < len(self):
            raise IndexError(f"Batch {i} does not exist: the indices are 0 to {len(self) - 1}.")
        members = self.order[self.ends[i - 1] if i else 0 : self.ends[i]]
        shape = (len(members), int(self.pieces.lengths[members[-1]]))
        row = {
            "input_ids": np.full(shape, self.pad_token_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "word_starts": np.ones(shape, bool),
            "num_bytes": np.zeros(shape[0], np.float32),
        }
        for at, member in enumerate(members):
            tokens, starts, row["num_bytes"][at] = self.pieces[member]
            row["input_ids"][at, : len(tokens)], row["word_starts"][at, : len(tokens)] = tokens, starts
            row["attention_mask"][at, : len(tokens)] = 1
        return row


def source_of(rows: PackedTexts | BatchedTexts, texts: Source, tokenizer: PreTrainedTokenizerBase) -> Source:
    """Returns tokenised sequences as a source for the stream.

    Its files are those of `texts`, plus the hashes of the tokenizer and of the sequences, so that a run can't resume
    with another tokenizer or other texts."""
    columns = {name: name for name in rows[0]}
    source = Source(rows, columns, texts.name, Features(dict.fromkeys(columns, Value("null"))))
    hashes = (f"tokenizer {fingerprint(tokenizer)}", f"sequences {rows.plan()}")
    source.rows.files = {**texts.rows.files, **dict.fromkeys(hashes, 0)}
    source.revision = texts.revision
    return source


def content_digest(*arrays: np.ndarray) -> str:
    """Returns a hash of the content of arrays, 16 hexadecimal digits."""
    hasher = hashlib.blake2b(digest_size=8)
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def check_pads(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ValueError` for a tokenizer without a padding token."""
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"The tokenizer ({type(tokenizer).__name__}) has no padding token. Set one and save the tokenizer: "
            "tokenizer.pad_token = tokenizer.eos_token."
        )


def room(tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """Returns how many tokens of a text fit into a sequence with its special tokens. Raises `ValueError` for 0."""
    around = sum(map(len, document_tokens(tokenizer)))
    if max_length <= around:
        raise ValueError(
            f"max_length {max_length} leaves no room for text: a text has {around} special tokens. "
            f"Give at least {around + 1}."
        )
    return max_length - around


def document_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of the special tokens before and after a document: those that the tokenizer adds, and its end
    token (`eos_token`, if it has one) where it adds none after a text."""
    before, after = special_tokens(tokenizer)
    if not len(after) and tokenizer.eos_token_id is not None:
        after = np.array([tokenizer.eos_token_id], np.int64)
    return before, after


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of the special tokens that a tokenizer adds before and after a single text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    before = next(i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
    return np.array(full[:before], np.int64), np.array(full[before + len(bare) :], np.int64)
