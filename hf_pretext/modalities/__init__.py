"""Kinds of data, one file each, and what composes them: the name of a file is the kind's.

row {"image": bytes, "text": str} -> one example (in a worker) -> collate -> finish (on the device) -> model inputs
"""

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, VisionTextDualEncoderProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from ..data.captions import label_number
from ..data.decoding import BadSample
from ..registry import modality_class
from ..stream.collate import collate
from ._modality import MIDDLE, Batch, Context, Example, Modality

__all__ = ["MIDDLE", "Batch", "Context", "Example", "Inputs", "Modality", "PairArguments", "Processors"]
PAIR = {"image", "text"}


@strict
@dataclass
class PairArguments:
    """What is set where two kinds of data come together.

    images_alone: Further datasets, given as --dataset is, of which only the images are used.
    texts_alone: Further datasets of texts; of a long one a part is drawn. Each step's batch is of one dataset, as often
        as --mixture_weights say for the pairs, the images and the texts, in this order.
    pair_label: Column that makes pairs each other's positives where it is equal (--positives label); default, and in
        evaluation: the caption.
    """

    _argument_group_name: ClassVar[str] = "pairs"

    images_alone: list[str] | None = None
    texts_alone: list[str] | None = None
    pair_label: str | None = None


def modality_classes(kinds: Sequence[str], views: Iterable[str] = ()) -> dict[str, type[Modality]]:
    """The classes that read these kinds, by name. views: kinds that are drawn several times.

    Raises `ValueError` for an unknown kind."""
    classes = {kind: modality_class(kind) for kind in kinds}
    return {kind: c.alone() if len(kinds) == 1 and kind not in set(views) else c for kind, c in classes.items()}


def inputs_options(kinds: Sequence[str], views: Iterable[str] = ()) -> tuple[type, ...]:
    """All dataclasses of options of these kinds: their own and, of several, `PairArguments` and one `EncoderArguments`
    with `<kind>_encoder` for each kind."""
    of_kinds = [options for c in modality_classes(kinds, views).values() for options in c.options]
    several = (PairArguments, encoder_arguments(kinds)) if len(kinds) > 1 else ()
    return tuple(dict.fromkeys([*of_kinds, *several]))


def encoder_arguments(kinds: Sequence[str]) -> type:
    """A dataclass with a field `<kind>_encoder` for each kind: what its encoder starts from."""
    fields = [(f"{kind}_encoder", str | None, field(default=None)) for kind in kinds]
    made = make_dataclass("EncoderArguments", fields, namespace={"_argument_group_name": "encoders"})
    helps = (f"    {kind}_encoder: Start the {kind} encoder from this one (a Hub id or folder)." for kind in kinds)
    made.__doc__ = "\n".join(["Which encoders each kind starts from.", "", *helps])
    return made


class Processors:
    """Processors of several kinds that transformers has no class for, each saved in the sub-folder of its kind."""

    def __init__(self, by_kind: Mapping[str, Any]):
        self.by_kind = dict(by_kind)

    def save_pretrained(self, save_directory, **options) -> None:
        """Writes each kind's processor to `save_directory/<kind>`."""
        for kind, processor in self.by_kind.items():
            processor.save_pretrained(str(Path(save_directory) / kind), **options)


class Inputs:
    """What an objective takes: kinds of data, composed.

    views: how many times a kind is drawn, stacked along a new axis: `{"image": 2}` gives pixel_values
    `(2, 3, S, S)`. pair_label: column by whose value rows belong together; rows of several kinds give it as `labels`.

    Columns of two kinds that have one name keep it in the kind without time; the other's is prefixed by its kind
    ("audio_attention_mask").
    """

    def __init__(self, *modalities: Modality, views: Mapping[str, int] | None = None, pair_label: str | None = None):
        """Raises `ValueError` for no kinds, the same kind twice, and views of a kind that is not among them."""
        self.modalities, self.views, self.pair_label = modalities, dict(views or {}), pair_label
        self.by_name = {modality.name: modality for modality in modalities}
        if not modalities or len(self.by_name) < len(modalities):
            raise ValueError(f"Inputs are of different kinds, but are {[m.name for m in modalities]}. Give each once.")
        if unknown := sorted(set(self.views) - set(self.by_name)):
            raise ValueError(f"views name {', '.join(unknown)}, but the inputs are {', '.join(self.by_name)}.")
        self._combined: Any = None

    def __call__(self, row: dict, random: np.random.Generator | None) -> Example:
        """Returns one example of all kinds that a row has. Raises `BadSample` for a row that can't be used.

        One position in time is drawn for all kinds, so that sound and film are of one instant."""
        kinds = [modality for modality in self.modalities if modality.column(row) is not None]
        if not kinds:
            raise BadSample(f"no {' or '.join(self.by_name)} in this row")
        timed = random is not None and any(modality.timed for modality in kinds)
        at, example = float(random.random()) if timed else MIDDLE, {}
        for modality in kinds:
            example |= self.renamed(modality.name, self._drawn(modality, row, random, at))
        if self.pair_label is not None and len(kinds) > 1:
            example["labels"] = self.label_of(row)
        return example

    def _drawn(self, modality: Modality, row: dict, random: np.random.Generator | None, at: float) -> Example:
        if modality.name not in self.views:
            return modality(row, random, at)
        return collate([modality(row, random, at) for _ in range(self.views[modality.name])], fills=modality.fills)

    def label_of(self, row: Mapping) -> int:
        """A whole number that is the same for rows that belong together. Raises `BadSample` for a row without."""
        label = row.get(self.pair_label)
        if label is None:
            raise BadSample(f"nothing in the column {self.pair_label!r} (--pair_label)")
        return label_number(label)

    def finish(self, batch: Batch) -> Batch:
        """Returns model inputs, on the batch's device. Views stay an axis: `(B, K, ...)`."""
        finished = dict(batch)
        for modality in self.modalities:
            columns = self.of_kind(batch, modality.name)
            if not columns:
                continue
            for name in self.renamed(modality.name, columns):
                del finished[name]
            finished |= self.renamed(modality.name, self._finished(modality, columns))
        return finished

    def _finished(self, modality: Modality, columns: Batch) -> Batch:
        if modality.name not in self.views:
            return modality.finish(columns)
        size = next(iter(columns.values())).shape[:2]
        flat = modality.finish({name: value.flatten(0, 1) for name, value in columns.items()})
        return {name: value.unflatten(0, size) for name, value in flat.items()}

    # names of columns

    def renamed(self, kind: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of one kind under the names that they have in a batch of all kinds."""
        return {self._name(kind, name): value for name, value in columns.items()}

    def of_kind(self, batch: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """One kind's columns of a batch of all kinds, under the names that its encoder takes them by."""
        names = {name: self._name(kind, name) for name in self.by_name[kind].outputs}
        return {name: batch[shown] for name, shown in names.items() if shown in batch}

    def _name(self, kind: str, name: str) -> str:
        order = sorted(self.modalities, key=lambda modality: modality.timed)
        first = next((modality.name for modality in order if name in modality.outputs), kind)
        return name if first == kind else f"{kind}_{name}"

    # of all kinds

    @property
    def fills(self) -> dict[str, float]:
        """Columns padded along time, and with what."""
        return {name: value for m in self.modalities for name, value in self.renamed(m.name, m.fills).items()}

    @property
    def needed(self) -> tuple[str | tuple[str, ...], ...]:
        """What to open of a dataset: for each kind its canonical column, or several of which one must be there."""
        names = (modality.columns for modality in self.modalities)
        return tuple(columns[0] if len(columns) == 1 else columns for columns in names)

    @property
    def samples(self) -> str:
        """What samples are called."""
        return "pairs" if set(self.by_name) == PAIR else " and ".join(m.samples for m in self.modalities)

    @property
    def processors(self) -> dict[str, Any]:
        """The processor of each kind."""
        return {modality.name: modality.processor for modality in self.modalities}

    @property
    def processor(self) -> Any:
        """What is saved with each checkpoint: the kind's own; of several, what `combine` gave or `Processors`."""
        if len(self.modalities) == 1:
            return self.modalities[0].processor
        return Processors(self.processors) if self._combined is None else self._combined

    def combine(self, config: PreTrainedConfig) -> Any:
        """Makes `processor` one of transformers' classes for all kinds, where there is one for a model's config or
        the kinds are image and text; returns `processor`."""
        by_role = {modality.role: modality.processor for modality in self.modalities}
        native = PROCESSOR_MAPPING.get(type(config), VisionTextDualEncoderProcessor)
        if set(by_role) <= set(inspect.signature(native.__init__).parameters) and len(by_role) > 1:
            self._combined = native(**by_role)
        return self.processor

    def evaluation(self) -> "Inputs":
        """Returns the same without augmentation and drawn captions; pairs belong together by their captions."""
        other = copy.copy(self)
        other.modalities = tuple(modality.evaluation() for modality in self.modalities)
        other.by_name = {modality.name: modality for modality in other.modalities}
        other.pair_label = "text" if self.pair_label is not None and "text" in self.by_name else None
        return other

    def noise(self, kinds: Sequence[str] | None = None) -> list[Batch]:
        """Returns batches of model inputs of random content: one of all kinds, then one of each of `kinds` alone."""
        parts = {}
        for modality in self.modalities:
            drawn = [modality.noise() for _ in range(self.views.get(modality.name, 1))]
            views = {name: torch.stack([one[name] for one in drawn], 1) for name in drawn[0]}
            parts[modality.name] = self.renamed(modality.name, views if modality.name in self.views else drawn[0])
        everything = {name: value for part in parts.values() for name, value in part.items()}
        if self.pair_label is not None and len(parts) > 1:
            everything["labels"] = torch.arange(len(next(iter(everything.values()))))
        return [everything, *(parts[kind] for kind in kinds or ())]

    def shape(self) -> dict[str, int | float]:
        """Returns sizes by name for a recipe's encoder function; of two kinds that differ in one of a name, the
        second's is prefixed by its kind."""
        sizes: dict[str, int | float] = {}
        for modality in self.modalities:
            for name, value in modality.shape().items():
                sizes[name if sizes.get(name, value) == value else f"{modality.name}_{name}"] = value
        return sizes

    def facts(self) -> dict:
        """Returns what results.json says of the kinds' options."""
        return {name: value for modality in self.modalities for name, value in modality.facts().items()}
