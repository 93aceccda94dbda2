"""Labelled texts, as encoders want them: tokenised once, handed out in batches of like length.

--eval_dataset, --eval_label -> train / validation / test -> batches {"input_ids", "attention_mask"}, labels
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..data.corpus import AT_ONCE, text_or_none, word_begins
from .labelled import SPLITS, Labelled
from .transfer import Method, best_layer

BATCH_TOKENS = 16_384  # padding included
TFIDF_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # its features are small, so that C is large


class LabelledTexts(Labelled):
    """Texts with labels (see `Labelled`), the shortest first, cut to `max_length` tokens.

    texts: `{split: [whole texts]}`.
    """

    def __init__(
        self,
        dataset,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        label: str | None = None,
        text_column: str | None = None,
        limit: int | None = None,
    ):
        """Raises `ValueError` as `Labelled` does, and for less than two classes."""
        super().__init__(dataset, "text", label, text_column, limit)
        self.tokenizer, self.max_length = tokenizer, max_length
        self.texts: dict[str, list[str]] = {}
        self._encoded: dict[str, list[dict[str, np.ndarray | int]]] = {}
        bar = tqdm(total=len(self), desc="tokenising the labelled texts", leave=False)
        for split in SPLITS:
            self._read(split, bar)
        bar.close()
        self.labels = self._numbered()

    def batches(self, split: str) -> "TextBatches":
        """The texts of a split as an encoder's inputs, in order: `{"input_ids", "attention_mask"}`, both `(B, L)`."""
        return TextBatches(self._encoded[split], self.tokenizer.pad_token_id, ("input_ids",))

    def pretext_batches(self, split: str) -> "TextBatches":
        """The same as a text objective wants it: with `word_starts` `(B, L)` and `num_bytes` `(B,)`."""
        return TextBatches(self._encoded[split], self.tokenizer.pad_token_id, ("input_ids", "word_starts", "num_bytes"))

    def _read(self, split: str, bar: tqdm) -> None:
        rows, found = self._undecoded(split), []
        while some := list(itertools.islice(rows, AT_ONCE)):
            texts = [text_or_none(row, "text") for row in some]
            found += zip(texts, self._tokenised([text or "" for text in texts]), strict=True)
            bar.update(len(some))
        self._keep(split, [text is not None for text, _ in found], "texts")
        found = [one for one in found if one[0] is not None]
        order = sorted(range(len(found)), key=lambda i: len(found[i][1]["input_ids"]))
        self._rows[split] = [self._rows[split][i] for i in order]
        self.texts[split] = [found[i][0] for i in order]
        self._encoded[split] = [found[i][1] for i in order]

    def _tokenised(self, texts: list[str]) -> Iterator[dict[str, np.ndarray | int]]:
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        for i, text in enumerate(texts):
            end = max((end for _, end in encoded["offset_mapping"][i]), default=0)
            yield {
                "input_ids": np.array(encoded["input_ids"][i], np.int64),
                "word_starts": word_begins(encoded.word_ids(i)),
                "num_bytes": len(text[:end].encode()),
            }


class TextBatches:
    """Encoded texts in batches of at most `BATCH_TOKENS`; can be gone through again, knows its length."""

    FILLS = {"input_ids": None, "word_starts": True}  # noqa: RUF012

    def __init__(self, encoded: list[dict], pad_token_id: int, columns: tuple[str, ...]):
        self.encoded, self.columns, self.fills = encoded, columns, {**self.FILLS, "input_ids": pad_token_id}
        self.cuts = [0]
        longest = 0
        for i, one in enumerate(encoded):
            longest = max(longest, len(one["input_ids"]))
            if longest * (i + 1 - self.cuts[-1]) > BATCH_TOKENS:
                self.cuts.append(i)
                longest = len(one["input_ids"])
        self.cuts.append(len(encoded))

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for first, end in itertools.pairwise(self.cuts):
            yield self._batch(self.encoded[first:end])

    def _batch(self, texts: list[dict]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(text["input_ids"]) for text in texts])
        batch = {"attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long()}
        for name in self.columns:
            values = [torch.as_tensor(text[name]) for text in texts]
            batch[name] = (
                torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=self.fills[name])
                if name in self.fills
                else torch.stack(values)
            )
        return batch


def tfidf_transfer(labelled: LabelledTexts, methods: dict[str, Method]) -> dict:
    """What linear probes find in the words alone: TF-IDF of words and pairs of words of the whole texts, with the
    strength of the probe chosen on validation as for an encoder. methods: linear probes, by name."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    vectorizer.fit(labelled.texts["train"])
    features = {split: vectorizer.transform(texts) for split, texts in labelled.texts.items()}
    options = {"standardised": False, "strengths": TFIDF_STRENGTHS}
    return {
        name: best_layer({"TF-IDF": method(features, labelled.labels, **options)}) for name, method in methods.items()
    }
