"""Texts to rows of tokens: a corpus is tokenised once, kept on disk, and read by memory map.

Source of texts -> tokens, where words begin, bytes of each document -> packed sequences: rows for the stream
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..files import whole
from .decoding import UNREADABLE, BadSample, to_text
from .packing import best_fit, pieces
from .remote import digest
from .sources import Source

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
    name = digest([source.rows.fingerprint(), source.columns, fingerprint(tokenizer)])
    folder = Path(constants.HF_HOME) / "hf_pretext" / "texts" / name
    if not folder.exists():
        with whole(folder) as temporary:
            temporary.mkdir(parents=True)
            write(source, tokenizer, column, temporary)
    return Texts(folder)


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
                words = np.array([-1 if word is None else word for word in encoded.word_ids(i)], np.int64)
                tokens.write(np.array(ids, dtype).tobytes())
                starts.write((np.diff(words, prepend=-2) != 0).tobytes())
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


def batches(source: Source, column: str):
    """The texts of a source, many at a time; None for each that is missing, blank or unreadable."""
    for piece, count in enumerate(source.counts):
        for first in range(0, count, AT_ONCE):
            rows = source.read(piece, first, min(first + AT_ONCE, count))
            yield [text_or_none(row, column) for row in rows]


def text_or_none(row: dict, column: str) -> str | None:
    if UNREADABLE in row:
        return None
    try:
        return to_text(row[column])
    except BadSample:
        return None


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What tells this tokenizer from another. Raises `ValueError` for one without a fast implementation."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} can't tell where words begin. Give a tokenizer of the tokenizers library."
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return digest({key: value for key, value in state.items() if key not in ("truncation", "padding")})


class PackedTexts(Sequence):
    """Sequences of at most `max_length` tokens, each of whole documents (or pieces of long ones) side by side.

    Row i: input_ids, document_ids (1, 2, ... in the sequence), word_starts, all `(tokens,)`, and num_bytes. Each
    document has the tokenizer's special tokens around it.
    """

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int):
        """Raises `ValueError` for a `max_length` without room for a token between the special ones."""
        self.texts, self.max_length = texts, max_length
        self.before, self.after = special_tokens(tokenizer)
        around = len(self.before) + len(self.after)
        if max_length <= around:
            raise ValueError(f"max_length {max_length} leaves no room beside {around} special tokens.")
        self.pieces = pieces(texts.offsets, max_length - around, texts.starts)
        self.lengths = np.diff(self.pieces)[:, 0] + around
        self.members, self.ends = best_fit(self.lengths, max_length)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def padding(self) -> float:
        """Share of padding in sequences of `max_length`."""
        return 1 - self.lengths.sum() / (len(self) * self.max_length)

    def __getitem__(self, i: int) -> dict[str, np.ndarray | float]:
        if not 0 <= i < len(self):
            raise IndexError(f"There are {len(self):,} sequences, so none has number {i}.")
        ids, documents, starts, num_bytes = [], [], [], 0.0
        for number, member in enumerate(self.members[self.ends[i - 1] if i else 0 : self.ends[i]], 1):
            begin, end = self.pieces[member].tolist()
            ids += [self.before, self.texts.tokens[begin:end], self.after]
            starts += [np.ones(len(self.before), bool), self.texts.starts[begin:end], np.ones(len(self.after), bool)]
            documents.append(np.full(self.lengths[member], number, np.int64))
            document = int(np.searchsorted(self.texts.offsets, begin, "right")) - 1
            length = int(self.texts.offsets[document + 1] - self.texts.offsets[document])
            num_bytes += float(self.texts.sizes[document]) * (end - begin) / length
        return {
            "input_ids": np.concatenate(ids, dtype=np.int64),
            "document_ids": np.concatenate(documents),
            "word_starts": np.concatenate(starts),
            "num_bytes": num_bytes,
        }


class TextProcessing:
    """Rows of `PackedTexts` to tensors, all of one length; nothing is left to do on the device."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int):
        """Raises `ValueError` for a tokenizer without a token to pad with."""
        if tokenizer.pad_token_id is None:
            raise ValueError("The tokenizer has no padding token. Give it one: tokenizer.pad_token = ...")
        self.processor, self.max_length = tokenizer, max_length

    def __call__(self, row: dict, random: np.random.Generator | None) -> dict[str, Tensor]:
        fills = {"input_ids": self.processor.pad_token_id, "document_ids": 0, "word_starts": True}
        example = {"num_bytes": torch.tensor(row["num_bytes"], dtype=torch.float32)}
        for name, fill in fills.items():
            values = torch.from_numpy(row[name])
            example[name] = torch.cat([values, values.new_full((self.max_length - len(values),), fill)])
        return example

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return batch


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """What a tokenizer puts before and after a single text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    before = next(i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
    return np.array(full[:before], np.int64), np.array(full[before + len(bare) :], np.int64)
