"""A labelled set of any kinds of data: read once, then handed out as often as needed.

--eval_dataset, --eval_label -> train / validation / test -> batches of each encoder's inputs, and of the objective's
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.captions import label_number
from ..data.corpus import AT_ONCE, text_or_none
from ..data.decoding import UNREADABLE, BadSample
from ..modalities import MIDDLE, Batch, Example, Inputs, Modality
from ..stream.collate import collate
from .labelled_rows import LabelledRows

KEPT_BYTES = 2**30  # sets up to this size stay in memory between passes
BATCH_TOKENS = 16_384  # of texts, padding included
VIEW_SEED = 0  # what views of evaluation are drawn by, with the row's number
Examples = list[Example] | Batch  # of one kind: each, or stacked where all have one shape


class LabelledSet(LabelledRows):
    """Rows of any kinds of data with labels (see `LabelledRows`), decoded without augmentation.

    labels: `transfer.Labels`. pixels: `{split: uint8 (n, 3, H, W)}`, the images or the videos' middle frames; None
    where the set would not fit in memory, empty where it has no images. Texts alone are ordered by their length.
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
    ):
        """inputs: those of training, fitted to their encoders; what is drawn of them is left out, but for views.
        columns: canonical names to names in the data. captions: whether rows need a caption; default: where texts come
        with another kind.

        Raises `ValueError` as `LabelledRows` does, for less than two classes, and for a split without readable rows."""
        kinds = tuple(inputs.by_name)
        self.texts_alone = kinds == ("text",)
        captions = ("text" in kinds and len(kinds) > 1) if captions is None else captions
        super().__init__(dataset, inputs.needed, label, columns, limit, captions)
        self.drawing, self.inputs, self.kinds = inputs, inputs.evaluation(), kinds
        self.batch_size, self.workers = batch_size, workers
        self.pixels: dict[str, Tensor] | None = {}
        self._examples: dict[str, dict[str, Examples]] | None = {}
        self._bytes = 0  # of the examples that are kept
        bar = tqdm(total=len(self), desc="reading the labelled set", leave=False)
        for split in list(self._rows):
            self._read_texts(split, bar) if self.texts_alone else self._read(split, bar)
        bar.close()
        self.labels = self._numbered()

    # handing out

    def batches(self, split: str, kind: str | None = None) -> "Batches | TextBatches":
        """The encoder's inputs of one kind (default: the first), finished, in order: an iterable with a length."""
        if self.texts_alone:
            return self._text_batches(split, ("input_ids",))
        return Batches(self, split, kind or self.kinds[0])

    def pretext_batches(self, split: str) -> "Batches | TextBatches":
        """What the objective takes: all kinds, with `labels` where pairs belong together; of texts alone with
        `word_starts` `(B, L)` and `num_bytes` `(B,)`. Views are drawn, always the same."""
        if self.texts_alone and not self.drawing.views:
            return self._text_batches(split, ("input_ids", "word_starts", "num_bytes"))
        return Batches(self, split, None)

    def all_batches(self, split: str, kind: str | None = None) -> Iterator[Batch]:
        """The same as `batches`: of rows with a label, then of those without."""
        return itertools.chain.from_iterable(self.batches(part, kind) for part in self._parts(split))

    def all_pixels(self, split: str) -> Tensor:
        """Images as uint8 `(n, 3, H, W)`, in the order of `all_batches`, of a set that fits in memory."""
        return torch.cat([self.pixels[part] for part in self._parts(split)])

    def _text_batches(self, split: str, columns: tuple[str, ...]) -> "TextBatches":
        texts = self.inputs.by_name["text"]
        return TextBatches(self._examples[split]["text"], texts.tokenizer.pad_token_id, columns)

    # reading

    def _read(self, split: str, bar: tqdm) -> None:
        """One pass over a split, to find the rows that can't be read and to keep the others if they fit."""
        problems, kept = [], {kind: [] for kind in self.kinds}
        for batch_problems, examples in self.decoded(split, Decoder(self.inputs)):
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
        """Keeps what can be drawn of a split: of the first kind that has images."""
        for modality in self.inputs.modalities:
            examples = self._examples[split][modality.name]
            images = modality.images_of(examples) if isinstance(examples, dict) else None
            if images is not None:
                self.pixels[split] = images
                return

    def _read_texts(self, split: str, bar: tqdm) -> None:
        """Tokenises the texts of a split, many at once, and puts the shortest first."""
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
        """What a decoder makes of a split, a batch at a time."""
        loader = DataLoader(
            decoder,
            batch_sampler=self._numbered_rows(split),
            num_workers=self.workers,
            collate_fn=decoder.together,
            generator=torch.Generator(),
        )
        return map(decoder.unpacked, loader)

    def _numbered_rows(self, split: str) -> Iterator[list[tuple[int, dict]]]:
        rows = enumerate(self._undecoded(split))
        while batch := list(itertools.islice(rows, self.batch_size)):
            yield batch


class Batches:
    """What `LabelledSet.batches` and `pretext_batches` give: can be gone through again, knows its length."""

    def __init__(self, labelled: LabelledSet, split: str, kind: str | None):
        """kind: of an encoder's inputs; None for all, as the objective takes them."""
        self.labelled, self.split, self.kind = labelled, split, kind

    def __len__(self) -> int:
        return -(-len(self.labelled._rows[self.split]) // self.labelled.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        labelled = self.labelled
        if self.kind is None and labelled.drawing.views:
            yield from labelled.decoded(self.split, Views(labelled.drawing))
            return
        kinds = labelled.inputs.by_name if self.kind is None else [self.kind]
        for number, examples in enumerate(self._examples()):
            parts = {kind: self._finished(labelled.inputs.by_name[kind], examples[kind]) for kind in kinds}
            yield self._joined(parts, number * labelled.batch_size) if self.kind is None else parts[self.kind]

    def _examples(self) -> Iterator[dict[str, Examples]]:
        labelled, size = self.labelled, self.labelled.batch_size
        if labelled._examples is None:
            yield from (examples for _, examples in labelled.decoded(self.split, Decoder(labelled.inputs)))
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
    """Runs in the workers: undecoded rows to an example of each kind; what can't be read, by its kind's samples."""

    def __init__(self, inputs: Inputs):
        self.inputs = inputs

    def __getitems__(self, rows: list[tuple[int, dict]]) -> list[dict[str, Example] | str]:
        return [self._try(row) for _, row in rows]

    def _try(self, row: dict) -> dict[str, Example] | str:
        examples = {}
        for modality in self.inputs.modalities:
            try:
                if UNREADABLE in row:
                    raise BadSample(row[UNREADABLE])
                examples[modality.name] = modality(row, None, MIDDLE)
            except BadSample:
                return modality.samples
        return examples

    def together(self, decoded: list[dict[str, Example] | str]) -> tuple[list[str | None], dict[str, Examples]]:
        """In the workers: problems and the good examples of each kind, packed for the way to the training process."""
        good = [examples for examples in decoded if not isinstance(examples, str)]
        problems = [examples if isinstance(examples, str) else None for examples in decoded]
        return problems, {kind: packed([examples[kind] for examples in good]) for kind in self.inputs.by_name}

    def unpacked(self, sent: tuple[list[str | None], dict[str, Examples]]) -> tuple[list[str | None], dict]:
        """In the training process: problems, and each kind's examples one by one."""
        problems, kinds = sent
        return problems, {kind: separate(examples) for kind, examples in kinds.items()}


class Views(Dataset):
    """Runs in the workers: numbered rows to a batch of the objective's inputs, drawn by the row's number."""

    def __init__(self, inputs: Inputs):
        self.inputs = inputs

    def __getitems__(self, rows: list[tuple[int, dict]]) -> list[Example]:
        return [self._drawn(row, np.random.default_rng([VIEW_SEED, number])) for number, row in rows]

    def _drawn(self, row: dict, random: np.random.Generator) -> Example:
        try:
            return self.inputs(row, random)
        except BadSample:  # elsewhere in a sound or a film than where it was read
            return self.inputs(row, None)

    def together(self, examples: list[Example]) -> Batch:
        """In the workers: a batch."""
        return collate(examples, fills=self.inputs.fills)

    def unpacked(self, batch: Batch) -> Batch:
        """In the training process: model inputs."""
        return self.inputs.finish(batch)


class TextBatches:
    """Encoded texts in batches of at most `BATCH_TOKENS`; can be gone through again, knows its length."""

    def __init__(self, encoded: Sequence[Mapping], pad_token_id: int, columns: tuple[str, ...]):
        """columns: of an encoded text; each batch has an attention_mask, too."""
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


def same_shapes(examples: Sequence[Example]) -> bool:
    """Whether examples can be stacked."""
    return len({tuple((name, torch.as_tensor(v).shape) for name, v in one.items()) for one in examples}) == 1


def stacked(examples: list[Example]) -> Examples:
    """Examples of one kind stacked, where all have one shape; else as they are."""
    return collate(examples) if examples and same_shapes(examples) else examples


def packed(examples: list[Example]) -> Examples:
    """Examples stacked, or as arrays: a file descriptor for each of their tensors would be too many."""
    together = stacked(examples)
    if isinstance(together, dict):
        return together
    return [{name: np.asarray(value) for name, value in one.items()} for one in together]


def separate(examples: Examples) -> list[Example]:
    """Examples one by one, of `packed` ones."""
    if isinstance(examples, list):
        return [{name: torch.as_tensor(value) for name, value in one.items()} for one in examples]
    count = len(next(iter(examples.values())))
    return [{name: value[i] for name, value in examples.items()} for i in range(count)]


def part(examples: Examples, first: int, end: int) -> Examples:
    """Some of the examples of one kind."""
    return {k: v[first:end] for k, v in examples.items()} if isinstance(examples, dict) else examples[first:end]
