"""Pictures with captions, and either alone, row to tensors.

row {"image", "text", "keywords", ...} -> one caption, drawn -> pixel_values (3, S, S) uint8, input_ids (l,)
row {"image"} -> pixel_values; row {"text"} -> a part of it, drawn -> input_ids
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from ..stream.collate import collate
from .columns import holds_text
from .corpus import AT_ONCE, check_pads
from .decoding import BadSample, to_text
from .processing import ImageProcessing
from .sources import Source

CAPTION_DRAWS = 3
LETTERS = 4  # of a token, about, in a language with spaces
LONGEST_WORD = 32  # letters that are left out so that a part of a text begins with a word


class Captions:
    """Which text of a row is shown with its picture.

    others, weights: see `PairArguments`.
    """

    def __init__(self, others: Sequence[str] = (), weights: Sequence[float] | None = None):
        self.columns = ("text", *others)
        shares = np.array(weights or [1.0] * len(self.columns))
        self.ends = np.cumsum(shares / shares.sum())

    def __call__(self, row: dict, random: np.random.Generator | None) -> str:
        """The caption; where `random` is given, it or one of the others. Raises `BadSample` for a row without one."""
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
    """A whole number that is the same for equal texts, in every process: `positives="label"` goes by it."""
    return int.from_bytes(hashlib.blake2b(normalised(str(text)).encode(), digest_size=8).digest(), "big", signed=True)


class PairProcessing:
    """What happens to a picture and its caption between their row and the model; or to either alone, as the row has it.

    images: what happens to the picture; without an augmentation the caption is the row's own, never drawn.
    processor: of both, saved with each checkpoint. pair_label: see `PairArguments`. fixed: whether all texts are padded
    to `max_length` (for towers that pool the last position), not to the longest of a batch.

    `cut` counts the texts that were longer than `max_length`.
    """

    def __init__(
        self,
        images: ImageProcessing,
        processor: ProcessorMixin,
        max_length: int,
        captions: Captions | None = None,
        pair_label: str = "text",
        fixed: bool = False,
    ):
        """Raises `ValueError` for a tokenizer without a token to pad with."""
        check_pads(processor.tokenizer)
        self.images, self.processor, self.max_length, self.fixed = images, processor, max_length, fixed
        self.captions, self.pair_label = captions or Captions(), pair_label
        self.tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        self.fills = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0}
        if "attention_mask" not in self.tokenizer.model_input_names:  # as of SigLIP, which sees its padding
            del self.fills["attention_mask"]
        self.cut: Tensor | int = 0

    def __call__(self, row: dict, random: np.random.Generator | None) -> dict[str, Tensor | int]:
        """One example. Raises `BadSample` for a picture or a text that can't be used."""
        drawn = None if self.images.augmentation is None else random
        if "image" not in row:
            return self.tokenised(part_of(to_text(row["text"]), LETTERS * self.max_length, drawn))
        example = self.images(row, drawn)
        if "text" not in row:
            return example
        caption = self.captions(row, drawn)
        label = row.get(self.pair_label)
        if label is None:
            raise BadSample(f"nothing in the column {self.pair_label!r} (--pair_label)")
        return {**example, **self.tokenised(caption), "labels": label_number(label)}

    def tokenised(self, text: str) -> dict[str, Tensor | int]:
        """A text's tokens, `(l,)`, and whether it was cut."""
        ids = self.tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
        cut = len(ids) > self.max_length
        if cut:
            ids = self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]
        columns = {
            "input_ids": torch.tensor(ids, dtype=torch.long),
            "attention_mask": torch.ones(len(ids), dtype=torch.long),
        }
        missing = self.max_length - len(ids) if self.fixed else 0
        return {
            **{name: F.pad(columns[name], (0, missing), value=v) for name, v in self.fills.items()},
            "cut": int(cut),
        }

    def texts(self, texts: Sequence[str], labels: bool = True) -> dict[str, Tensor]:
        """Captions as a batch: the text tower's inputs, `(n, longest)`, and labels, `(n,)`, if wanted."""
        batch = collate([{**self.tokenised(text), "labels": label_number(text)} for text in texts], fills=self.fills)
        return {name: value for name, value in batch.items() if name in self.fills or (labels and name == "labels")}

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pixels to the floats that the model wants, on the batch's device."""
        batch = self.images.finish(batch) if "pixel_values" in batch else dict(batch)
        cut = batch.pop("cut", None)
        if "pixel_values" in batch and cut is not None:  # of a text alone another part comes another time
            self.cut = self.cut + cut.sum()  # no .item(): the device need not be waited for
        return batch
