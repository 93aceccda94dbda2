"""Measures of a full model with its heads, in addition to its frozen encoder. Each measure is one file of this package.

model + labelled set -> Subject -> each measure that the capabilities of the model allow -> {metric: value}

A file that defines `MEASURE = Measure(...)` is a measure: its requirements, chance levels, and wording. Files are found
automatically.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .. import registry
from ..data.captions import normalised
from ..modeling import PretextModel
from .labelled_set import LabelledSet

TEXTS_AT_ONCE = 256
HELDOUT = "heldout_"  # begin of the names of metrics on a held-out set, see `held_out_by`
Metrics = dict[str, float]


class Subject:
    """A model and the labelled set for its evaluation. Caches embeddings. The model is on `device`, in `eval()`.

    options: settings of the measures, by class: `{ZeroShotArguments: ZeroShotArguments(...)}`.
    """

    def __init__(
        self,
        model: PretextModel,
        labelled: LabelledSet,
        device: torch.device | str = "cpu",
        options: Mapping[type, Any] | None = None,
    ):
        self.model, self.labelled, self.device, self.options = model, labelled, torch.device(device), options or {}
        self.embeddings = cache(self._embeddings)
        self.caption_embeddings = cache(self._caption_embeddings)
        self._condensed = cache(self._condense)

    def embed(self, kind: str, batches: Iterable[dict[str, Tensor]]) -> Tensor:
        """Embeds all examples of one kind of data. Returns `(n, D)`, of length 1, float32, on the CPU."""
        parts = [self.model.embed(kind, **self.moved(batch)).float().cpu() for batch in batches]
        return torch.cat(parts)

    def moved(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Moves a batch to the device of the model."""
        return {name: value.to(self.device) for name, value in batch.items()}

    def _embeddings(self, kind: str, split: str) -> Tensor:
        """Returns embeddings of one kind of data of a split, `(n, D)`: labelled rows first, then unlabelled rows."""
        return self.embed(kind, self.labelled.all_batches(split, kind))

    def _caption_embeddings(self, split: str) -> tuple[list[str], Tensor]:
        """Returns the distinct captions of a split and their embeddings, `(m, D)`."""
        captions = distinct(self.labelled.captions(split))
        return captions, self.embed("text", self.text_batches(captions))

    def batches(self, kind: str, split: str) -> Iterable[dict[str, Tensor]]:
        """Iterates inputs of one kind for `match` and `predict_tokens`, of the labelled rows of a split, on the CPU. A
        model that can `condense` a kind other than text encodes each row only once."""
        condenses = "condense" in self.model.capabilities
        return self._condensed(kind, split) if condenses else self.labelled.batches(split, kind)

    def _condense(self, kind: str, split: str) -> list[dict[str, Tensor]]:
        return [
            {name: value.cpu() for name, value in self.model.condense(kind, **self.moved(batch)).items()}
            for batch in self.labelled.batches(split, kind)
        ]

    def text_batches(self, texts: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Yields batches of inputs of the text encoder."""
        text = self.labelled.inputs.by_name["text"]
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            yield text.batch(texts[first : first + TEXTS_AT_ONCE])


@dataclass(frozen=True)
class Measure:
    """One measure of full models.

    needs: required capabilities of the model (see `PretextModel.capabilities`). kinds: required kinds of data. Of a
    tuple in `needs` or `kinds`, one is enough. compute: Subject -> metrics by name. chance: (labelled set, model) ->
    chance levels by the same names; metrics without a chance level are not reported. words: name of a metric -> its
    wording in tables; None for a metric of another measure. protocol: results of a run -> sentences about the protocol,
    for its model card. headlines: metrics in short tables. options: dataclasses of settings, for the command line.
    chance_takes_options: True if `chance` gets the options, by class, as its third argument. check: (labelled set,
    options by class) -> raises `ValueError` for options that do not fit the set; called before training. least_kinds:
    required number of kinds of data. most_kinds: largest number, None for any. order: position in tables.
    """

    needs: tuple[str | tuple[str, ...], ...]
    kinds: tuple[str | tuple[str, ...], ...]
    compute: Callable[[Subject], Metrics]
    chance: Callable[..., Metrics]
    words: Callable[[str], str | None]
    protocol: Callable[[dict], str]
    headlines: tuple[str, ...] = ()
    options: tuple[type, ...] = ()
    chance_takes_options: bool = False
    check: Callable[[LabelledSet, Mapping[type, Any]], None] | None = None
    least_kinds: int = 1
    most_kinds: int | None = None
    order: int = 0

    def fits(self, model: type[PretextModel] | PretextModel) -> bool:
        """True if a model has the required kinds of data and capabilities."""
        count = len(model.inputs)
        fits = self.least_kinds <= count <= (self.most_kinds or count)
        return fits and has_all(model.inputs, self.kinds) and has_all(model.capabilities, self.needs)


def has_all(names: Sequence[str], wanted: Sequence[str | tuple[str, ...]]) -> bool:
    """Returns True if `names` has each of the wanted names. Of a tuple, one is enough."""
    return all({*names} & ({each} if isinstance(each, str) else {*each}) for each in wanted)


def modules_with(name: str) -> list[ModuleType]:
    """Returns the modules of this package that define `name`."""
    modules = [registry.find("evaluation", file) for file in registry.names("evaluation")]
    return [module for module in modules if name in vars(module)]


@cache
def measures() -> list[Measure]:
    """Returns all measures, by their position in tables."""
    each = (vars(module)["MEASURE"] for module in modules_with("MEASURE"))
    return sorted(each, key=lambda measure: measure.order)


def fitting(model: type[PretextModel] | PretextModel) -> list[Measure]:
    """Returns the measures that fit a model or a model class (see `Measure.fits`)."""
    return [measure for measure in measures() if measure.fits(model)]


def measure_model(
    model: PretextModel,
    labelled: LabelledSet,
    device: torch.device | str = "cpu",
    options: Mapping[type, Any] | None = None,
) -> Metrics:
    """Computes the metrics of all measures that fit a model, on the test split of a labelled set: `{metric: value}`."""
    with evaluated(model, device), torch.no_grad():
        subject = Subject(model, labelled, device, options)
        return {name: value for measure in fitting(model) for name, value in measure.compute(subject).items()}


def chance_levels(
    model: type[PretextModel] | PretextModel, labelled: LabelledSet, options: Mapping[type, Any] | None = None
) -> Metrics:
    """Returns the chance levels of the metrics of `measure_model`, by the same names. options: see `Subject`."""
    levels = [
        measure.chance(labelled, model, *([options or {}] if measure.chance_takes_options else []))
        for measure in fitting(model)
    ]
    return {name: value for level in levels for name, value in level.items()}


@contextmanager
def evaluated(model: torch.nn.Module, device: torch.device | str) -> Iterator[None]:
    """Moves a model to a device and sets `eval()`; restores the training mode at the end."""
    training = model.training
    model.to(device).eval()
    try:
        yield
    finally:
        model.train(training)


def distinct(captions: Iterable[str]) -> list[str]:
    """Returns the captions without duplicates. Captions with equal `normalised` text are duplicates."""
    return list({normalised(caption): caption for caption in captions}.values())


def places_among(candidates: Sequence[str], captions: Iterable[str]) -> list[int]:
    """Returns the place of each caption among candidates, which are `distinct` and contain all captions."""
    places = {normalised(candidate): place for place, candidate in enumerate(candidates)}
    return [places[normalised(caption)] for caption in captions]
