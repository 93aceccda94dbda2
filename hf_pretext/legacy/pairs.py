"""Pictures with captions, and either alone, row to tensors: what `Inputs` replaces."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from ..data.captions import LETTERS, Captions, label_number, part_of
from ..data.corpus import check_pads
from ..data.decoding import BadSample, to_text
from ..modalities.image import Image
from ..stream.collate import collate


class PairProcessing:
    """What happens to a picture and its caption between their row and the model; or to either alone, as the row has it.

    images: what happens to the picture; without an augmentation the caption is the row's own, never drawn.
    processor: of both, saved with each checkpoint. pair_label: see `PairArguments`. fixed: whether all texts are padded
    to `max_length` (for towers that pool the last position), not to the longest of a batch.

    `cut` counts the texts that were longer than `max_length`.
    """

    def __init__(
        self,
        images: Image,
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
