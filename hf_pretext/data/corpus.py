"""Texts to rows of tokens: a corpus is tokenised once, kept on disk, and read by memory map.

Source of texts -> tokens, where words begin, bytes of each document -> packed sequences: rows for the stream
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from datasets import Features, Value
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..utils.files import made_once
from .decoding import UNREADABLE, BadSample, to_text
from .packing import best_fit, pieces
from .remote import digest
from .sources import Source

VERSION = 1  # of how texts become tokens: kept ones of another are not taken
LONGEST_WORD = 8  # tokens that are hidden as one word
AT_ONCE = 1000  # documents that are tokenised together: the tokenizer uses all cores
log = logging.get_logger(__name__)


class Texts:
    """A tokenised corpus, without special tokens.

    tokens (`(T,)`), starts (`(T,)`, bool: where words begin), offsets (`(documents + 1,)`: where documents begin),
    sizes (`(documents,)`: their length in bytes of UTF-8). Blank documents are left out.
    """

    def __init__(self, folder: Path):
        self.tokens, self.starts, self.offsets, self.sizes = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "starts", "offsets", "sizes")
        )

    def __len__(self) -> int:
        return len(self.sizes)


def tokenised(source: Source, tokenizer: PreTrainedTokenizerBase, column: str = "text") -> Texts:
    """The tokens of a source's texts; made once for this source and this tokenizer, below `HF_HOME`.

    Raises `ValueError` for a source without any text, or an endless one.
    """
    from huggingface_hub import constants

    if source.endless:
        raise ValueError(f"{source.name} is an iterable without a length, which can't be packed. Give a list or files.")
    name = digest([identity(source, column), fingerprint(tokenizer), VERSION])
    folder = Path(constants.HF_HOME) / "hf_pretext" / "texts" / name
    return Texts(made_once(folder, lambda temporary: write(source, tokenizer, column, temporary)))


def write(source: Source, tokenizer: PreTrainedTokenizerBase, column: str, folder: Path) -> None:
    """Tokenises a source into a folder that `Texts` reads. Raises `ValueError` for a source without any text."""
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    lengths, sizes, bad = [], [], 0
    bar = tqdm(total=len(source), desc=f"tokenising {source.name}", unit="texts", leave=False)
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
        raise ValueError(f"{source.name} has no text in its column {source.columns[column]!r}: nothing to learn from.")
    if bad:
        log.warning(f"{source.name}: {bad:,} of {len(source):,} texts are missing or blank and are left out.")
    for name, kind in (("tokens", dtype), ("starts", np.bool_)):
        np.save(folder / f"{name}.npy", np.memmap(folder / name, kind, "r"))
        os.unlink(folder / name)
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(folder / "sizes.npy", np.array(sizes, np.int64))


def identity(source: Source, column: str = "text") -> list[str]:
    """What tells a source's texts from all others; costs a pass over them where nothing else tells."""
    if source.rows.stamp is not None:
        return [source.rows.stamp, source.columns[column]]
    content = hashlib.blake2b(digest_size=8)
    for texts in batches(source, column):
        content.update(json.dumps(texts).encode())
    return [content.hexdigest()]


def batches(source: Source, column: str) -> Iterator[list[str | None]]:
    """The texts of a source, many at a time; None for each that is missing, blank or unreadable."""
    for piece, count in enumerate(source.counts):
        for first in range(0, count, AT_ONCE):
            rows = source.read(piece, first, min(first + AT_ONCE, count))
            yield [text_or_none(row, column) for row in rows]


def text_or_none(row: dict, column: str) -> str | None:
    """A row's text; None for what can't be read."""
    if UNREADABLE in row:
        return None
    try:
        return to_text(row[column])
    except BadSample:
        return None


def word_begins(words: Sequence[int | None]) -> np.ndarray:
    """Where words begin, by the number of each token's word (None for special tokens, each one by itself).

    Words of more than `LONGEST_WORD` tokens are cut into parts: a tokenizer may take a clause of a language without
    spaces, or a long address, for one word, and hiding all of it would leave nothing to tell it by."""
    numbers = np.array([-i - 1 if word is None else word for i, word in enumerate(words)], np.int64)
    starts = np.diff(numbers, prepend=np.int64(-(2**62))) != 0
    at = np.arange(len(starts))
    return starts | ((at - np.maximum.accumulate(np.where(starts, at, 0))) % LONGEST_WORD == 0)


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What tells this tokenizer from another. Raises `ValueError` for one without a fast implementation."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} can't tell where words begin. Give a tokenizer of the tokenizers library."
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return digest({key: value for key, value in state.items() if key not in ("truncation", "padding")})


class Pieces:
    """Documents cut to fit into `max_length` tokens, the tokenizer's special ones around each piece.

    cuts (`(pieces, 2)`: first token and end of each), lengths (`(pieces,)`: special tokens included).
    """

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int):
        """Raises `ValueError` for a `max_length` without room for a token (see `room`)."""
        self.texts = texts
        self.before, self.after = special_tokens(tokenizer)
        inside = room(tokenizer, max_length)
        self.cuts = pieces(texts.offsets, inside, texts.starts)
        self.lengths = np.diff(self.cuts)[:, 0] + max_length - inside

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, float]:
        """A piece's tokens, where its words begin, and its bytes of UTF-8: of a cut document, its share."""
        begin, end = self.cuts[i].tolist()
        tokens = np.concatenate([self.before, self.texts.tokens[begin:end], self.after], dtype=np.int64)
        starts = np.ones(len(tokens), bool)
        starts[len(self.before) : len(tokens) - len(self.after)] = self.texts.starts[begin:end]
        document = int(np.searchsorted(self.texts.offsets, begin, "right")) - 1
        length = int(self.texts.offsets[document + 1] - self.texts.offsets[document])
        return tokens, starts, float(self.texts.sizes[document]) * (end - begin) / length


class PackedTexts(Sequence):
    """Sequences of at most `max_length` tokens, each of whole documents (or pieces of long ones) side by side.

    Row i: input_ids, document_ids (1, 2, ... in the sequence), word_starts, all `(tokens,)`, and num_bytes.
    """

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int):
        """Raises `ValueError` as `Pieces` does."""
        self.pieces, self.max_length = Pieces(texts, tokenizer, max_length), max_length
        self.members, self.ends = best_fit(self.pieces.lengths, max_length)

    def plan(self) -> str:
        """What tells these sequences from any other texts' or of another length."""
        return content_digest(self.pieces.texts.tokens, self.pieces.cuts, self.members, self.ends)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def padding(self) -> float:
        """Share of padding in sequences of `max_length`."""
        return 1 - self.pieces.lengths.sum() / (len(self) * self.max_length)

    def __getitem__(self, i: int) -> dict[str, np.ndarray | float]:
        if not 0 <= i < len(self):
            raise IndexError(f"There are {len(self):,} sequences, so none has number {i}.")
        members = self.members[self.ends[i - 1] if i else 0 : self.ends[i]]
        tokens, starts, sizes = zip(*(self.pieces[member] for member in members), strict=True)
        return {
            "input_ids": np.concatenate(tokens),
            "document_ids": np.repeat(np.arange(1, len(tokens) + 1), [len(piece) for piece in tokens]),
            "word_starts": np.concatenate(starts),
            "num_bytes": sum(sizes),
        }


class BatchedTexts(Sequence):
    """For architectures that can't keep packed documents apart: whole batches of documents of like length.

    Row i is a batch of at most `max_length * batch_size` tokens, padding included: input_ids, attention_mask and
    word_starts, all `(B, L)`, and num_bytes `(B,)`. Documents share a batch with others of their length, always the
    same ones; the order of batches is the stream's.
    """

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_size: int):
        """batch_size: sequences of `max_length` that are as large as a batch. Raises `ValueError` as `Pieces` does."""
        self.pieces, self.pad_token_id = Pieces(texts, tokenizer, max_length), tokenizer.pad_token_id
        random = np.random.default_rng(0).random(len(self.pieces.lengths))  # or neighbours in a file share a batch
        self.order = np.lexsort((random, self.pieces.lengths))
        ends, first = [], 0
        for i, length in enumerate(self.pieces.lengths[self.order].tolist()):  # ascending: the last one is the longest
            if (i + 1 - first) * length > max_length * batch_size:
                ends.append(i)
                first = i
        self.ends = np.array([*ends, len(self.order)])

    def plan(self) -> str:
        """What tells these batches from any other texts' or of another size."""
        return content_digest(self.pieces.texts.tokens, self.pieces.cuts, self.order, self.ends)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def padding(self) -> float:
        """Share of padding in all batches."""
        longest = self.pieces.lengths[self.order[self.ends - 1]]
        return 1 - self.pieces.lengths.sum() / (longest * np.diff(self.ends, prepend=0)).sum()

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        if not 0 <= i < len(self):
            raise IndexError(f"There are {len(self):,} batches, so none has number {i}.")
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
    """Sequences of tokens as the stream's rows, known by the files and the tokenizer that they were made from."""
    columns = {name: name for name in rows[0]}
    files = {**texts.rows.files, f"tokenizer {fingerprint(tokenizer)}": 0, f"sequences {rows.plan()}": 0}
    source = Source(rows, columns, texts.name, Features(dict.fromkeys(columns, Value("null"))), files)
    source.revision = texts.revision
    return source


def content_digest(*arrays: np.ndarray) -> str:
    """Sixteen letters that stand for the content of some arrays."""
    hasher = hashlib.blake2b(digest_size=8)
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def check_pads(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ValueError` for a tokenizer without a token to pad with."""
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"The tokenizer ({type(tokenizer).__name__}) has no padding token. Give it one and save it again: "
            "tokenizer.pad_token = tokenizer.eos_token."
        )


def room(tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """Tokens of a text that fit into a sequence beside the special ones. Raises `ValueError` where none does."""
    around = sum(map(len, special_tokens(tokenizer)))
    if max_length <= around:
        raise ValueError(
            f"max_length {max_length} leaves no room beside {around} special tokens. Give at least {around + 1}."
        )
    return max_length - around


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """What a tokenizer puts before and after a single text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    before = next(i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
    return np.array(full[:before], np.int64), np.array(full[before + len(bare) :], np.int64)
