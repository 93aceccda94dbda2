"""Texts in three forms: captions (`Text`), one text a row (`Sentences`), a corpus that is tokenised once (`Corpus`).

row {"text", ...} -> a caption, or a part of a document -> input_ids (T,), attention_mask (T,)
row {"text", "negative"} -> a part of each -> input_ids, attention_mask, word_starts (T,), negative_input_ids (S,), ...
Source {"text"} -> tokens, once -> rows of packed documents -> input_ids (L,), document_ids, word_starts
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.captions import LETTERS, Captions, part_of
from ..data.corpus import BatchedTexts, PackedTexts, check_pads, one_text, room, source_of, tokenised, word_begins
from ..data.sources import Source
from ..data.tokenizer import load_tokenizer
from ..features import positions
from ..stream.collate import collate
from ..utils.paths import relative
from ._modality import MIDDLE, Batch, Context, Example, Modality
from ._narrated import captions_of_clip, clip_in, texts_of_clip
from ._text_fit import check_captions, check_distinguishes, check_fits, ids_of, pads_freely, random_tokens
from ._text_halves import halves
from ._text_options import OTHERS, CaptionArguments, TextArguments, drawn_captions, length_for, token_ids, tokenizer_of
from ._text_words import USAGE, text_preparation, tokenizer_facts, tokenizer_words

__all__ = ["CaptionArguments", "Corpus", "Sentences", "Text", "TextArguments", "halves"]
NEGATIVE = "negative"  # canonical column of a text that does not mean the same as that of its row
LONGEST = 512  # tokens of a text; used if the encoder has no limit
SHOWN = ("image", "audio", "video")  # a text in a row with one of these is a caption


class Text(Modality):
    """Texts one by one: captions, or random parts of documents for rows that only have a text.

    max_length: tokens that a text is truncated to. captions: selects the caption of a row. padded: True if all texts
    are padded to `max_length` (for encoders that pool the last position); else to the longest text of a batch.

    `cut` counts the captions that were truncated.
    """

    name = "text"
    columns, timed_columns = ("text",), ("subtitles",)
    options = (TextArguments, CaptionArguments)
    samples = "texts"
    role, processors = "tokenizer", (PreTrainedTokenizerBase,)
    processor_example = 'AutoTokenizer.from_pretrained("bert-base-uncased")'
    encoder_input = "input_ids"
    fractions = (0.01, 0.1, 1.0)
    features_in_bf16 = True
    task_type, usage = "text-classification", USAGE
    outputs = ("input_ids", "attention_mask", "cut")

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        captions: Captions | None = None,
        padded: bool = False,
        brought_by: str | None = None,
        start: str | None = None,
        flexible: bool = False,
    ):
        """brought_by: folder or Hub id of the tokenizer; None for a trained one. start: folder or Hub id of the
        encoder. flexible: True if `max_length` is adapted to the positions of the encoder.

        Raises `ValueError` for a tokenizer without a padding token."""
        check_pads(tokenizer)
        self.processor = self.tokenizer = tokenizer
        self.max_length, self.captions, self.padded = max_length, captions or Captions(), padded
        self.brought_by, self.start, self.flexible = brought_by, start, flexible
        self.fills = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
        if "attention_mask" not in tokenizer.model_input_names:  # as for SigLIP, which attends to padding
            del self.fills["attention_mask"]
        self.encoder_fills = dict(self.fills)
        self.cut: Tensor | int = 0

    @classmethod
    def alone(cls, one_text_a_row: bool = False) -> type[Modality]:
        """Returns `Corpus`, or with `one_text_a_row` `Sentences`."""
        return Sentences if one_text_a_row else Corpus

    @classmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Text":
        """Builds the modality from options. Raises `ValueError` if --tokenizer is no tokenizer or not the encoder's."""
        tokenizer, brought_by = tokenizer_of(options, context)
        origin = {"brought_by": brought_by, "start": context.start, "flexible": context.flexible}
        texts = cls(tokenizer, length_for(options[TextArguments], context), **origin)
        texts.captions = drawn_captions(options)
        return texts

    @classmethod
    def from_saved(cls, folder: str, encoder: PreTrainedModel, source: str, *of_images: int | None) -> "Text":
        """Builds the modality for a saved encoder. Raises `ValueError` if it has no tokenizer."""
        tokenizer = load_tokenizer("The tokenizer of", folder)
        if tokenizer is None:  # transformers would create an empty one
            raise ValueError(f"{source} has no tokenizer. Save the encoder's tokenizer in its folder.")
        return cls(tokenizer, min(LONGEST, positions(encoder)[1] or LONGEST), brought_by=source, start=source)

    @staticmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Returns a batch of a few random tokens."""
        return [{"input_ids": random_tokens(encoder)}]

    @staticmethod
    def words(results: Mapping) -> str:
        """Returns a description of the encoder's inputs from the results of a run."""
        length, tokens = results["max_length"], results["tokenizer"]["tokens"]
        return f"texts of up to {length} tokens of a vocabulary of {tokens:,}"

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Returns sentences for a card about padding or packing, captions and tokenizer."""
        return [*text_preparation(results), tokenizer_words(results["tokenizer"])]

    @property
    def further_columns(self) -> dict[str, str]:
        """Columns of further captions, `{canonical name: name in the data}`."""
        return {name: name.removeprefix(OTHERS) for name in self.captions.columns[1:]}

    def largest(self) -> str:
        """Returns a description of `noise` with its options."""
        return f"Texts of {self.max_length} tokens (--max_length)"

    def check_columns(self, source: Source) -> None:
        """Raises `ValueError` like `check_captions`."""
        check_captions(source, self.captions.columns[1:], self.captions.languages)

    def end_of_training(self) -> str | None:
        """Returns a message with the number of truncated captions, or None, and resets the number."""
        cut, self.cut = int(self.cut), 0
        most = f"{self.max_length} tokens (--max_length)"
        return f"{cut:,} of the captions of this process were longer than {most} and were truncated." if cut else None

    def __call__(self, row: dict, random: np.random.Generator | None, at: float = 0.0) -> Example:
        """Returns input_ids and attention_mask, `(T,)`, and cut: 1 if a caption was truncated, else 0.

        Of texts with times, the text is the one of `texts_of_clip`. Raises `BadSample` for a row without a text."""
        narrated = texts_of_clip(row, 1, random)
        if narrated is not None:
            return self.tokenised(narrated[0])
        if not any(name in row for name in SHOWN):  # a document
            return {**self.tokenised(self.part_of(row["text"], random)), "cut": 0}
        return self.tokenised(self.captions(row, random))

    def part_of(self, value: Any, random: np.random.Generator | None) -> str:
        """Returns a random part of a document, as long as the encoder reads, so that other epochs use other parts; all
        of it without `random`. value: of a row. Raises `BadSample` for a value without a text."""
        text = one_text(value, random)
        return text if random is None else part_of(text, LETTERS * self.max_length, random)

    def draws(self, row: dict, random: np.random.Generator | None, at: float, count: int) -> list[Example]:
        """Returns several texts of a row. Next to a film or sound, these are different texts: see `texts_of_clip`, and
        `captions_of_clip` for texts without times. Where they are fewer than `count`, empty texts follow."""
        texts = texts_of_clip(row, count, random)
        if texts is None and clip_in(row) is None:
            return super().draws(row, random, at, count)
        if texts is None:
            texts = captions_of_clip(row["text"], count, random) or [self.captions(row, random)]
        return [self.tokenised(text) for text in (*texts, *[None] * (count - len(texts)))]

    def tokenised(self, text: str | None) -> Example:
        """Returns a text's input_ids and attention_mask, `(T,)`, and cut: 1 if it was truncated, else 0. None is the
        empty text, without tokens: all that it is padded to has an attention_mask of 0, see `ids_of`."""
        ids, cut = ids_of(self.tokenizer, text, self.max_length)
        columns = {"input_ids": torch.tensor(ids, dtype=torch.long)}
        columns["attention_mask"] = torch.ones_like(columns["input_ids"])
        missing = self.max_length - len(ids) if self.padded else 0
        padded = {name: F.pad(columns[name], (0, missing), value=fill) for name, fill in self.encoder_fills.items()}
        return {**padded, "cut": int(cut)}

    def batch(self, texts: Sequence[str]) -> Batch:
        """Returns texts as inputs of the encoder, `(n, longest)`."""
        batch = collate([self.tokenised(text) for text in texts], fills={**self.fills, **self.encoder_fills})
        return {name: batch[name] for name in self.encoder_fills}

    def documents(self, texts: Sequence[str]) -> Iterator[dict[str, np.ndarray | int]]:
        """Yields input_ids and word_starts, `(T,)`, of each text, and num_bytes, the UTF-8 bytes of its tokens."""
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        for i, text in enumerate(texts):
            end = max((end for _, end in encoded["offset_mapping"][i]), default=0)
            yield {
                "input_ids": np.array(encoded["input_ids"][i], np.int64),
                "word_starts": word_begins(encoded.word_ids(i)),
                "num_bytes": len(text[:end].encode()),
            }

    def evaluation(self) -> "Text":
        """Returns a copy that uses the main caption of each row."""
        other = copy.copy(self)
        other.captions, other.cut = Captions(), 0
        return other

    def two_views(self, decoded: Callable[[float], dict], random: np.random.Generator) -> tuple[Example, Example]:
        """Returns the two halves of a text, see `halves`. Raises `BadSample` for a text of one token."""
        return halves(self(decoded(MIDDLE), None, MIDDLE), self.tokenizer, self.padded)

    def finish(self, batch: Batch) -> Batch:
        """Returns the batch without `cut`, which is added to the counter."""
        batch = dict(batch)
        if (cut := batch.pop("cut", None)) is not None:
            self.cut = self.cut + cut.sum()  # no .item(), which would wait for the device
        return batch

    def shape(self) -> dict[str, int]:
        """Returns the sizes for the config of a text encoder."""
        return {"vocab_size": len(self.tokenizer), "max_length": self.max_length, **token_ids(self.tokenizer)}

    def fit(self, encoder: PreTrainedModel) -> None:
        """Adapts length and padding of texts to an encoder.

        Raises `ValueError` if the encoder has another vocabulary or too few positions, or gives different texts the
        same embedding."""
        most = check_fits(self, encoder, "the text encoder", self.flexible)
        longest = min(self.max_length, most or self.max_length)
        room(self.tokenizer, longest)
        self.padded = not pads_freely(encoder, self.tokenizer, self.encoder_fills, longest)
        self.max_length = most if self.padded and self.flexible and most else longest
        check_distinguishes(encoder, self.tokenizer, self.batch(["a", "b c"]))

    def noise(self, count: int = 2) -> Batch:
        """Returns texts of the largest length, `(count, T)`: each repeats one word of one letter."""
        return self.batch([f"{chr(ord('a') + i % 26)} " * self.max_length for i in range(count)])

    def facts(self) -> dict:
        """Returns length, padding and tokenizer for results.json."""
        return {
            "max_length": self.max_length,
            "padded": "to --max_length" if self.padded else "to the longest of a batch",
            "tokenizer": {"from": relative(self.brought_by), **tokenizer_facts(self.tokenizer)},
        }


class Sentences(Text):
    """Texts as the only modality, one text a row: of a long one, a random part in each epoch.

    A row may also have a text in the column `NEGATIVE`."""

    options = (TextArguments,)
    outputs = (*(of + name for of in ("", f"{NEGATIVE}_") for name in ("input_ids", "attention_mask")), "word_starts")

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, **options):
        """Raises `ValueError` for a tokenizer without a padding token."""
        super().__init__(tokenizer, max_length, **options)
        self.fills |= {"word_starts": True, **{f"{NEGATIVE}_{name}": fill for name, fill in self.fills.items()}}

    def __call__(self, row: dict, random: np.random.Generator | None, at: float = 0.0) -> Example:
        """Returns input_ids, attention_mask and word_starts of the text, `(T,)`, and ids and mask of a negative.

        Raises `BadSample` for a row without a text, or with a negative that is none."""
        example = self.tokenised(self.part_of(row["text"], random))
        if NEGATIVE in row:
            negative = self.tokenised(self.part_of(row[NEGATIVE], random))
            example |= {f"{NEGATIVE}_{name}": negative[name] for name in self.encoder_fills}
        return example

    def tokenised(self, text: str) -> Example:
        """Returns a text's input_ids, attention_mask and word_starts, `(T,)`, truncated to `max_length`."""
        ids, starts, _ = (torch.as_tensor(value) for value in next(self.documents([text])).values())
        columns = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "word_starts": starts}
        missing = self.max_length - len(ids) if self.padded else 0
        return {n: F.pad(v, (0, missing), value=self.fills[n]) for n, v in columns.items() if n in self.fills}


class Corpus(Text):
    """Texts as the only modality: documents are tokenised once, then packed or batched by their length."""

    options = (TextArguments,)
    samples = "sequences"
    outputs = ("input_ids", "attention_mask", "document_ids", "word_starts", "num_bytes")

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, **options):
        """Raises `ValueError` for a tokenizer without a padding token, and if `max_length` has no room for a token."""
        super().__init__(tokenizer, max_length, **options)
        room(tokenizer, max_length)
        self.fills = {"input_ids": tokenizer.pad_token_id, "document_ids": 0, "word_starts": True}
        self.packs, self.rows = False, []

    def sources(self, sources: list[Source], packs: bool, batch_size: int) -> list[Source]:
        """Tokenises sources and returns them as sources of token sequences for the stream.

        packs: True if the encoder can restrict attention to each document of a sequence. Else each row is a batch of
        documents of similar length, as large as `batch_size` sequences. Raises `ValueError` for a source without
        texts."""
        self.packs, self.samples = packs, "sequences" if packs else "batches"
        with PartialState().main_process_first():  # the other processes load its cached tokens
            tokens = [tokenised(source, self.tokenizer) for source in sources]
        if packs:
            self.rows = [PackedTexts(some, self.tokenizer, self.max_length) for some in tokens]
        else:
            self.rows = [BatchedTexts(some, self.tokenizer, self.max_length, batch_size) for some in tokens]
        return [source_of(*pair, self.tokenizer) for pair in zip(self.rows, sources, strict=True)]

    def column(self, row: Mapping) -> str | None:
        """Returns `input_ids`, since rows are already tokenised; None if the row has none."""
        return "input_ids" if "input_ids" in row else None

    def __call__(self, row: dict, random: np.random.Generator | None, at: float = 0.0) -> Example:
        """Returns a row as tensors: of `PackedTexts` padded to `(max_length,)`, of `BatchedTexts` as `(B, L)`."""
        if row["input_ids"].ndim == 2:
            return {name: torch.from_numpy(row[name]) for name in row if isinstance(row[name], np.ndarray)}
        example = {"num_bytes": torch.tensor(row["num_bytes"], dtype=torch.float32)}
        for name, fill in self.fills.items():
            values = torch.from_numpy(row[name])
            example[name] = torch.cat([values, values.new_full((self.max_length - len(values),), fill)])
        return example

    def finish(self, batch: Batch) -> Batch:
        """Returns the batch. A row of `BatchedTexts` is already a batch, so this removes the loader's batch axis."""
        return {name: value[0] for name, value in batch.items()} if batch["input_ids"].ndim == 3 else batch

    def fit(self, encoder: PreTrainedModel) -> None:
        """Raises `ValueError` for an encoder with another vocabulary or too few positions."""
        check_fits(self, encoder, "the encoder")

    def noise(self, count: int = 2) -> Batch:
        """Returns sequences of the largest length, `(count, L)`, each of two documents if documents are packed."""
        shape, half = (count, self.max_length), self.max_length // 2
        random = torch.Generator().manual_seed(0)
        special = set(self.tokenizer.all_special_ids)
        words = torch.tensor([i for i in range(len(self.tokenizer)) if i not in special])
        batch = {
            "input_ids": words[torch.randint(len(words), shape, generator=random)],
            "word_starts": torch.ones(shape, dtype=torch.bool),
        }
        if self.packs:
            return {**batch, "document_ids": (torch.arange(shape[1]) >= half).long().expand(shape) + 1}
        return {**batch, "attention_mask": torch.ones(shape, dtype=torch.long)}

    def facts(self) -> dict:
        """Returns length, tokenizer and results of packing for results.json."""
        count = sum(map(len, self.rows))
        return {
            "max_length": self.max_length,
            "tokenizer": {"from": relative(self.brought_by), **tokenizer_facts(self.tokenizer)},
            "packed": self.packs,
            "padding": float(sum(rows.padding * len(rows) for rows in self.rows) / count) if count else None,
            "tokens": int(sum(rows.pieces.lengths.sum() for rows in self.rows)),
        }
