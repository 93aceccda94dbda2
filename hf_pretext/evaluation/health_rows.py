"""Rows on which a model is measured without labels: decoded once, and kept in memory.

HeldOut rows, Inputs -> inputs of the objective; for each kind of data encoder inputs, and two views of each row
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.corpus import text_or_none
from ..data.decoding import UNREADABLE, BadSample
from ..data.hold_out import MOST, HeldOut
from ..modalities import MIDDLE, Batch, Example, Inputs, Modality
from ..modalities.text import halves
from ..stream.collate import collate
from ..stream.workers import leave_objects_of_parent, started
from .labelled_set import KEPT_BYTES, LabelledSet, TextBatches

SEED = 0  # views are drawn from (SEED, row number)
MOST_TIMED = 256  # rows of sounds and films, whose decoding is slow
BATCH, SENT = 256, 16  # rows of a batch, and rows that a worker sends together


class Decoded(NamedTuple):
    """What is kept of a row. inputs: of the objective. plain: encoder inputs by kind. views: two by kind; a kind whose
    views can't be drawn, or are equal, is missing."""

    inputs: Example
    plain: dict[str, Example]
    views: dict[str, tuple[Example, Example]]


class HealthRows:
    """Rows to measure a model on without labels. The same batches in each iteration.

    At most `MOST` rows, `MOST_TIMED` of sounds and films, and no more than `KEPT_BYTES` of memory. Rows that can't be
    read are left out. Views are two draws of the augmentation of training (images), two halves (texts), or the start
    and the end (sounds and films). trained_on: True if training sees the rows, too."""

    def __init__(self, held: Sequence[HeldOut], inputs: Inputs, workers: int = 0, batch_size: int = BATCH):
        """inputs: inputs of training, fitted to their encoders. Raises `ValueError` if no row can be read."""
        self.drawing, self.inputs, self.batch_size = inputs, inputs.evaluation(), batch_size
        self.viewing = {modality.name: modality.for_views() for modality in inputs.modalities}
        self.trained_on = any(each.trained_on for each in held)
        self.names = [each.source.name for each in held]
        self.texts_alone = tuple(inputs.by_name) == ("text",)
        timed = any(modality.timed for modality in inputs.modalities)
        most = MOST_TIMED if timed else MOST
        self._documents = self._tokenised(undecoded(held, most)) if self.texts_alone else []
        as_rows = not self.texts_alone or inputs.views
        self._rows = list(self._decoded(undecoded(held, most), workers)) if as_rows else []
        if not self._documents and not self._rows:
            raise ValueError(f"{' + '.join(self.names)}: no row can be read to measure the model without labels.")

    def __len__(self) -> int:
        """Number of rows that can be read."""
        return len(self._documents or self._rows)

    def pretext_batches(self) -> Iterable[Batch]:
        """Returns batches of inputs of the objective."""
        if not self._rows:
            return self._texts(self._documents, ("input_ids", "word_starts", "num_bytes"))
        maker = self.drawing if self.drawing.views else self.inputs
        return Stacked([row.inputs for row in self._rows], maker, self.batch_size)

    def batches(self, kind: str) -> Iterable[Batch]:
        """Returns batches of encoder inputs of one kind."""
        if self.texts_alone:
            return self._texts(self._documents, ("input_ids",))
        return Stacked([row.plain[kind] for row in self._rows], self.inputs.by_name[kind], self.batch_size)

    def views(self, kind: str) -> tuple[Iterable[Batch], Iterable[Batch]]:
        """Returns batches of encoder inputs of one kind: of the first and of the second view of each row. Rows whose
        views are equal are left out: a sound may be shorter than a clip."""
        if self.texts_alone:
            pairs = list(self._halves())
            first, second = ([pair[i] for pair in pairs] for i in (0, 1))
            return self._texts(first, ("input_ids",)), self._texts(second, ("input_ids",))
        pairs = [row.views[kind] for row in self._rows if kind in row.views]
        maker = self.viewing[kind]
        first, second = (Stacked([pair[i] for pair in pairs], maker, self.batch_size) for i in (0, 1))
        return first, second

    def images(self, rows: np.ndarray) -> Tensor:
        """Returns the images of some rows, by their numbers: uint8 `(*rows.shape, 3, H, W)`."""
        images = self.inputs.by_name["image"]
        examples = [self._rows[number].plain["image"] for number in rows.ravel()]
        return images.images_of(collate(examples, fills=images.fills)).unflatten(0, rows.shape)

    def _texts(self, documents: Sequence, names: tuple[str, ...]) -> Iterable[Batch]:
        return TextBatches(documents, self.inputs.by_name["text"].tokenizer.pad_token_id, names) if documents else []

    def _tokenised(self, rows: Iterable[dict]) -> list[dict]:
        """Tokenises texts, sorted by length, shortest first, for `TextBatches`."""
        texts = [text for row in rows if (text := text_or_none(row, "text")) is not None]
        encoded = list(self.inputs.by_name["text"].documents(texts)) if texts else []
        return sorted(encoded, key=lambda one: len(one["input_ids"]))

    def _halves(self) -> Iterator[tuple[Example, Example]]:
        tokenizer = self.inputs.by_name["text"].tokenizer
        for document in self._documents:
            try:
                yield halves(document, tokenizer)
            except BadSample:  # a text of one word
                continue

    def _decoded(self, rows: Iterator[dict], workers: int) -> Iterator[Decoded]:
        loader = DataLoader(
            Drawing(self.drawing, self.inputs, self.viewing),
            batch_sampler=numbered(rows, SENT),
            num_workers=workers,
            collate_fn=as_arrays,
            worker_init_fn=leave_objects_of_parent,
            generator=torch.Generator(),
        )
        size = 0
        for row in (row for batch in started(loader) for row in batch if row is not None):
            size += sum(value.nbytes for value in leaves(row))
            if size > KEPT_BYTES:
                return
            yield as_tensors(row)


class Drawing(Dataset):
    """Decodes numbered rows to `Decoded`, in the workers; None for a row that can't be read."""

    def __init__(self, drawing: Inputs, inputs: Inputs, viewing: Mapping[str, Modality]):
        self.drawing, self.inputs, self.viewing = drawing, inputs, viewing

    def __getitems__(self, rows: list[tuple[int, dict]]) -> list[Decoded | None]:
        return [self._try(row, number) for number, row in rows]

    def _try(self, row: dict, number: int) -> Decoded | None:
        random = np.random.default_rng([SEED, number])
        try:
            if UNREADABLE in row:
                return None
            decoded = self.inputs.decoded(row, MIDDLE)
            plain = {kind: each(decoded, None, MIDDLE) for kind, each in self.inputs.by_name.items()}
            inputs = self.drawing(row, random) if self.drawing.views else self.inputs(row, None)
        except BadSample:
            return None
        drawn = {kind: self._views(row, each, random) for kind, each in self.viewing.items()}
        return Decoded(inputs, plain, {kind: views for kind, views in drawn.items() if views is not None})

    def _views(self, row: dict, modality: Modality, random: np.random.Generator) -> tuple[Example, Example] | None:
        try:
            one, other = modality.two_views(lambda at: self.inputs.decoded(row, at), random)
        except BadSample:
            return None
        return None if all(np.array_equal(one[name], other[name]) for name in one) else (one, other)


class Stacked:
    """Batches of examples as model inputs. Can be iterated repeatedly."""

    def __init__(self, examples: Sequence[Example], maker: Inputs | Modality, batch_size: int):
        """maker: has the `fills` of the examples, and finishes batches."""
        self.examples, self.maker, self.batch_size = examples, maker, batch_size

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.examples), self.batch_size):
            some = self.examples[first : first + self.batch_size]
            yield self.maker.finish(collate(some, fills=self.maker.fills))


def validation_rows(labelled: LabelledSet, trained_on: bool) -> list[HeldOut]:
    """Returns the rows of the validation split of a labelled set, without their labels. trained_on: see `HeldOut`."""
    rows = labelled.rows("validation")
    return [HeldOut(rows[0].source, sorted(row.place for row in rows), trained_on)]


def undecoded(held: Sequence[HeldOut], most: int) -> Iterator[dict]:
    """Yields at most `most` undecoded rows, evenly spaced, of each source in proportion to its rows."""
    total = sum(len(each.places) for each in held)
    for each in held:
        count = len(each.places) if total <= most else most * len(each.places) // total
        places = [each.places[i * len(each.places) // count] for i in range(count)]
        yield from each.source.take(places)


def numbered(rows: Iterator[dict], size: int) -> Iterator[list[tuple[int, dict]]]:
    """Yields the rows with their numbers, `size` at a time."""
    each = enumerate(rows)
    while some := list(itertools.islice(each, size)):
        yield some


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Applies a function to all arrays and tensors of nested dicts and tuples."""
    if isinstance(value, dict):
        return {name: mapped(part, change) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [mapped(part, change) for part in value]
        return type(value)(*parts) if isinstance(value, Decoded) else tuple(parts)
    return change(value)


def as_arrays(rows: list[Decoded | None]) -> list[Decoded | None]:
    """Converts tensors to arrays, in the workers: each tensor would need a file descriptor on its way."""
    return [row if row is None else mapped(row, np.asarray) for row in rows]


def as_tensors(row: Decoded) -> Decoded:
    """Converts arrays to tensors."""
    return mapped(row, torch.as_tensor)


def leaves(value: Any) -> Iterator[Any]:
    """Yields all arrays of nested dicts and tuples."""
    if isinstance(value, dict | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value
