"""Labelled set of any kinds of data: read and decoded once, then iterated as often as needed.

--eval_dataset, --eval_label -> train / validation / test -> batches of encoder inputs, or of inputs of the objective
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.std import tqdm

from ..data.captions import label_number
from ..data.corpus import AT_ONCE, text_or_none
from ..data.decoding import UNREADABLE, BadSample
from ..data.lines import Reading
from ..modalities import MIDDLE, Batch, Example, Inputs, Modality
from ..stream.collate import collate
from ..stream.workers import leave_objects_of_parent, started
from ..utils.progress import progress
from .examples import Examples, chosen, packed, part, separate, stacked
from .labelled_rows import LabelledRows

KEPT_BYTES = 2**30  # decoded sets up to this size stay in memory between passes
BATCH_TOKENS = 16_384  # most tokens of a batch of texts, padding included
VIEW_SEED = 0  # views are drawn from (VIEW_SEED, row number)


class LabelledSet(LabelledRows):
    """Labelled rows of any kinds of data (see `LabelledRows`), decoded without augmentation.

    labels: `transfer.Labels`. pixels: `{split: uint8 (n, 3, H, W)}`, the images, or the middle frames of videos; None
    if the set exceeds `KEPT_BYTES`, empty if it has no images. A set of texts only is sorted by length.
    """

    def __init__(
        self,
        dataset,
        inputs: Inputs,
        label: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        batch_size: int = 256,
        workers: int = 0,
        limit: int | None = None,
        captions: bool | None = None,
        reading: Reading | None = None,
        kind_labels: Mapping[str, str] | None = None,
    ):
        """inputs: inputs of training, fitted to their encoders. Random augmentation is switched off, except for views.
        label, columns, limit, kind_labels: see `LabelledRows`. batch_size: rows of a batch. workers: processes that
        decode. captions: leaves out rows without a caption; default: True if texts are combined with another kind.
        reading: how files are read.

        Raises `ValueError` like `LabelledRows`, for fewer than two classes, and for a split without readable rows."""
        kinds = tuple(inputs.by_name)
        self.texts_alone = kinds == ("text",)
        captions = ("text" in kinds and len(kinds) > 1) if captions is None else captions
        super().__init__(dataset, inputs.needed, label, columns, limit, captions, reading, kind_labels)
        self.drawing, self.inputs, self.kinds = inputs, inputs.evaluation(), kinds
        self.batch_size, self.workers = batch_size, workers
        self.pixels: dict[str, Tensor] | None = {}
        self._examples: dict[str, dict[str, Examples]] | None = {}
        self._bytes = 0  # size of the examples in memory
        self.position, self._at = MIDDLE, {}
        bar = progress(total=len(self), description="reading the labelled set")
        for split in list(self._rows):
            self._read_texts(split, bar) if self.texts_alone else self._read(split, bar)
        bar.close()
        self.labels, self._kind_labels = self._numbered(), self._numbered_kinds()

    def of_kind(self, kind: str) -> "LabelledSet":
        """Returns the set with the labels by which the encoder of a kind of data is measured. It shares the decoded
        rows with this one."""
        if kind not in self._kind_labels:
            return self
        of_kind = copy.copy(self)
        of_kind.labels, of_kind.label = self._kind_labels[kind], self.kind_labels[kind]
        return of_kind

    def in_gray(self) -> "LabelledSet":
        """Returns the set with images in grey. It shares the decoded rows with this one."""
        gray, inputs = copy.copy(self), self.inputs
        modalities = [modality.in_gray() for modality in inputs.modalities]
        gray.inputs, gray._at = Inputs(*modalities, views=inputs.views, pair_label=inputs.pair_label), {}
        return gray

    def at(self, position: float) -> "LabelledSet":
        """Returns the set with sounds and videos at another position in time, 0 (start) to 1 (end), without train. It
        is decoded once, like this one. A row that can't be read at the position is read in the middle."""
        if position not in self._at:
            other = copy.copy(self)
            other._rows = {split: rows for split, rows in self._rows.items() if split != "train"}
            other.position, other._examples, other.pixels, other._bytes = position, {}, {}, 0
            bar = progress(total=len(other), description=f"reading the labelled set at {position:g}")
            for split in other._rows:
                other._read(split, bar)
            bar.close()
            self._at[position] = other
        return self._at[position]

    def reordered(self, split: str, order: Sequence[int]) -> "LabelledSet":
        """Returns the set with the rows `order` of one split, and no other split. Labels and pixels stay unchanged."""
        other = copy.copy(self)
        other._rows, other._at = {split: [self._rows[split][i] for i in order]}, {}
        if self._examples is not None:
            other._examples = {split: {k: chosen(each, order) for k, each in self._examples[split].items()}}
        return other

    # batches

    def batches(self, split: str, kind: str | None = None) -> "Batches | TextBatches":
        """Returns batches of encoder inputs of one kind (default: the first), in order: an iterable with a length."""
        if self.texts_alone:
            return self._text_batches(split, ("input_ids",))
        return Batches(self, split, kind or self.kinds[0])

    def pretext_batches(self, split: str) -> "Batches | TextBatches":
        """Returns batches of inputs of the objective, of all kinds. With a pair label, they have `labels` `(B,)`. For a
        set of texts only, they have `word_starts` `(B, L)` and `num_bytes` `(B,)`. Views are random, with a fixed seed
        for each row."""
        if self.texts_alone and not self.drawing.views:
            return self._text_batches(split, ("input_ids", "word_starts", "num_bytes"))
        return Batches(self, split, None)

    def joined_batches(self, split: str) -> "Batches":
        """Returns batches of inputs of the objective, of all kinds, without views."""
        return Batches(self, split, None, views=False)

    def examples(self, split: str, kind: str) -> Iterator[Batch]:
        """Iterates batches of one kind as the workers decode them, before `finish` of its modality, in order."""
        fills = self.inputs.by_name[kind].fills
        for examples in Batches(self, split, kind)._examples():
            some = examples[kind]
            yield some if isinstance(some, dict) else collate(some, fills=fills)

    def all_batches(self, split: str, kind: str | None = None) -> Iterator[Batch]:
        """Iterates `batches` of the labelled rows of a split, then of its unlabelled rows."""
        return itertools.chain.from_iterable(self.batches(part, kind) for part in self._parts(split))

    def all_pixels(self, split: str) -> Tensor:
        """Returns the images of a split, uint8 `(n, 3, H, W)`, in the order of `all_batches`. The set must fit in
        memory."""
        return torch.cat([self.pixels[part] for part in self._parts(split)])

    def _text_batches(self, split: str, columns: tuple[str, ...]) -> "TextBatches":
        texts = self.inputs.by_name["text"]
        return TextBatches(self._examples[split]["text"], texts.tokenizer.pad_token_id, columns)

    # reading

    def _read(self, split: str, bar: tqdm) -> None:
        """Reads a split once: finds unreadable rows, and keeps the decoded examples if they fit in memory."""
        problems, kept = [], {kind: [] for kind in self.kinds}
        for batch_problems, examples in self.decoded(split, Decoder(self.inputs, self.position)):
            problems += batch_problems
            bar.update(len(batch_problems))
            if self._examples is None:
                continue
            for kind in self.kinds:
                kept[kind] += examples[kind]
                self._bytes += sum(v.nbytes for one in examples[kind] for v in one.values())
            if self._bytes > KEPT_BYTES:
                self._examples = self.pixels = None
                kept.clear()
        self._keep(split, problems, self.inputs.modalities[0].samples)
        if self._examples is not None and split in self._rows:
            self._examples[split] = {kind: stacked(examples) for kind, examples in kept.items()}
            self._show(split)

    def _show(self, split: str) -> None:
        """Sets `pixels` of a split: images of the first kind of data that has images."""
        for modality in self.inputs.modalities:
            examples = self._examples[split][modality.name]
            images = modality.images_of(examples) if isinstance(examples, dict) else None
            if images is not None:
                self.pixels[split] = images
                return

    def _read_texts(self, split: str, bar: tqdm) -> None:
        """Tokenizes the texts of a split in large batches, and sorts them by length, shortest first."""
        rows, texts, encoded = self._undecoded(split), [], []
        while some := list(itertools.islice(rows, AT_ONCE)):
            read = [text_or_none(row, "text") for row in some]
            texts += read
            encoded += self.inputs.by_name["text"].documents([text or "" for text in read])
            bar.update(len(some))
        self._keep(split, ["texts" if text is None else None for text in texts], "texts")
        readable = [pair for pair in zip(texts, encoded, strict=True) if pair[0] is not None]
        order = sorted(range(len(readable)), key=lambda i: len(readable[i][1]["input_ids"]))
        self._rows[split] = [self._rows[split][i]._replace(text=readable[i][0]) for i in order]
        self._examples[split] = {"text": [readable[i][1] for i in order]}

    def decoded(self, split: str, decoder: Dataset) -> Iterator:
        """Iterates the batches of a split, decoded by `decoder` in the workers."""
        loader = DataLoader(
            decoder,
            batch_sampler=self._numbered_rows(split),
            num_workers=self.workers,
            collate_fn=decoder.together,
            worker_init_fn=leave_objects_of_parent,
            generator=torch.Generator(),
        )
        return map(decoder.unpacked, started(loader))

    def _numbered_rows(self, split: str) -> Iterator[list[tuple[int, dict]]]:
        rows = enumerate(self._undecoded(split))
        while batch := list(itertools.islice(rows, self.batch_size)):
            yield batch


class Batches:
    """Batches of a split. Can be iterated repeatedly, and has a length."""

    def __init__(self, labelled: LabelledSet, split: str, kind: str | None, views: bool = True):
        """kind: yields encoder inputs of this kind of data; None: inputs of the objective, of all kinds. views: draws
        the views of the objective."""
        self.labelled, self.split, self.kind = labelled, split, kind
        self.views = views and kind is None and bool(labelled.drawing.views)

    def __len__(self) -> int:
        return -(-len(self.labelled._rows[self.split]) // self.labelled.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        labelled = self.labelled
        if self.views:
            yield from labelled.decoded(self.split, Views(labelled.drawing))
            return
        kinds = labelled.inputs.by_name if self.kind is None else [self.kind]
        for number, examples in enumerate(self._examples()):
            parts = {kind: self._finished(labelled.inputs.by_name[kind], examples[kind]) for kind in kinds}
            yield self._joined(parts, number * labelled.batch_size) if self.kind is None else parts[self.kind]

    def _examples(self) -> Iterator[dict[str, Examples]]:
        labelled, size = self.labelled, self.labelled.batch_size
        if labelled._examples is None:
            decoder = Decoder(labelled.inputs, labelled.position)
            yield from (examples for _, examples in labelled.decoded(self.split, decoder))
            return
        for first in range(0, len(labelled._rows[self.split]), size):
            yield {kind: part(some, first, first + size) for kind, some in labelled._examples[self.split].items()}

    def _finished(self, modality: Modality, examples: Examples) -> Batch:
        return modality.finish(examples if isinstance(examples, dict) else collate(examples, fills=modality.fills))

    def _joined(self, parts: dict[str, Batch], first: int) -> Batch:
        inputs = self.labelled.inputs
        batch = {name: value for kind, part in parts.items() for name, value in inputs.renamed(kind, part).items()}
        if inputs.pair_label is not None:
            texts = self.labelled.texts(self.split)[first : first + self.labelled.batch_size]
            batch["labels"] = torch.tensor([label_number(text) for text in texts])
        return batch


class Decoder(Dataset):
    """Decodes rows, in the workers. A row becomes `{kind: example}`. An unreadable row becomes the name of the
    samples of the unreadable kind, for example "images"."""

    def __init__(self, inputs: Inputs, position: float = MIDDLE):
        """position: in time, 0 (start) to 1 (end). A row that can't be read there is read in the middle."""
        self.inputs, self.positions = inputs, list(dict.fromkeys((position, MIDDLE)))

    def __getitems__(self, rows: list[tuple[int, dict]]) -> list[dict[str, Example] | str]:
        return [self._first_readable(row) for _, row in rows]

    def _first_readable(self, row: dict) -> dict[str, Example] | str:
        for position in self.positions:
            examples = self._try(row, position)
            if not isinstance(examples, str):
                break
        return examples

    def _try(self, row: dict, position: float) -> dict[str, Example] | str:
        examples = {}
        for modality in self.inputs.modalities:
            try:
                if UNREADABLE in row:
                    raise BadSample(row[UNREADABLE])
                row = self.inputs.decoded(row, position)
                examples[modality.name] = modality(row, None, position)
            except BadSample:
                return modality.samples
        return examples

    def together(self, decoded: list[dict[str, Example] | str]) -> tuple[list[str | None], dict[str, Examples]]:
        """Collates decoded rows, in the workers. Returns the problem of each row or None, and the good examples of each
        kind, packed for the transfer to the training process."""
        good = [examples for examples in decoded if not isinstance(examples, str)]
        problems = [examples if isinstance(examples, str) else None for examples in decoded]
        return problems, {kind: packed([examples[kind] for examples in good]) for kind in self.inputs.by_name}

    def unpacked(self, sent: tuple[list[str | None], dict[str, Examples]]) -> tuple[list[str | None], dict]:
        """Unpacks a batch of `together`, in the training process. Returns problems, and the list of examples of each
        kind."""
        problems, kinds = sent
        return problems, {kind: separate(examples) for kind, examples in kinds.items()}


class Views(Dataset):
    """Decodes numbered rows to inputs of the objective, in the workers. The row number seeds the random views."""

    def __init__(self, inputs: Inputs):
        self.inputs = inputs

    def __getitems__(self, rows: list[tuple[int, dict]]) -> list[Example]:
        return [self._drawn(row, np.random.default_rng([VIEW_SEED, number])) for number, row in rows]

    def _drawn(self, row: dict, random: np.random.Generator) -> Example:
        try:
            return self.inputs(row, random)
        except BadSample:  # a random part of a sound or video may be damaged, unlike its middle
            return self.inputs(row, None)

    def together(self, examples: list[Example]) -> Batch:
        """Collates examples, in the workers."""
        return collate(examples, fills=self.inputs.fills)

    def unpacked(self, batch: Batch) -> Batch:
        """Turns a batch into model inputs, in the training process."""
        return self.inputs.finish(batch)


class TextBatches:
    """Batches of tokenized texts, of at most `BATCH_TOKENS` tokens. Can be iterated repeatedly, and has a length."""

    def __init__(self, encoded: Sequence[Mapping], pad_token_id: int, columns: tuple[str, ...]):
        """encoded: tokenized texts, shortest first. columns: of a tokenized text; batches also have an
        `attention_mask`."""
        self.encoded, self.columns = encoded, columns
        self.fills = {"input_ids": pad_token_id, "word_starts": True, "attention_mask": 0}
        self.cuts, longest = [0], 0
        for i, one in enumerate(encoded):
            longest = max(longest, len(one["input_ids"]))
            if longest * (i + 1 - self.cuts[-1]) > BATCH_TOKENS:
                self.cuts.append(i)
                longest = len(one["input_ids"])
        self.cuts.append(len(encoded))

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def __iter__(self) -> Iterator[Batch]:
        for first, end in itertools.pairwise(self.cuts):
            yield collate([self._tensors(one) for one in self.encoded[first:end]], fills=self.fills)

    def _tensors(self, one: Mapping) -> Example:
        columns = {name: torch.as_tensor(one[name]) for name in self.columns}
        return {**columns, "attention_mask": torch.ones(len(one["input_ids"]), dtype=torch.long)}
