"""What a model with its heads is worth, beyond its frozen encoder: one file of this package for each such measure.

model + labelled set -> Subject -> each measure that the model has the capabilities for -> {metric: value}

A file that ends with `MEASURE = Measure(...)` is a measure: it says what it needs, what guessing gets, its words and
its headlines. No list is edited.
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
Metrics = dict[str, float]


class Subject:
    """A model in `eval()` on its device, with the labelled set that it is measured on. Embeddings are computed once.

    options: dataclasses of the measures' settings, by their class.
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

    def embed(self, kind: str, batches: Iterable[dict[str, Tensor]]) -> Tensor:
        """Embeddings of length 1 of all examples, `(n, D)`, in float32 on the CPU."""
        parts = [self.model.embed(kind, **self.moved(batch)).float().cpu() for batch in batches]
        return torch.cat(parts)

    def moved(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch on the model's device."""
        return {name: value.to(self.device) for name, value in batch.items()}

    def _embeddings(self, kind: str, split: str) -> Tensor:
        """Of one kind of data of a split, `(n, D)`: rows with a label first, then those without."""
        return self.embed(kind, self.labelled.all_batches(split, kind))

    def _caption_embeddings(self, split: str) -> tuple[list[str], Tensor]:
        """The distinct captions of a split, and their embeddings `(m, D)`."""
        captions = distinct(self.labelled.captions(split))
        return captions, self.embed("text", self.text_batches(captions))

    def text_batches(self, texts: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Texts as the text encoder's inputs, some at a time."""
        text = self.labelled.inputs.by_name["text"]
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            yield text.batch(texts[first : first + TEXTS_AT_ONCE])


@dataclass(frozen=True)
class Measure:
    """One measure of whole models.

    needs: capabilities of the model (see `PretextModel.capabilities`). kinds: kinds of data that it compares.
    compute: Subject -> metrics by name. chance: (labelled set, model class) -> what guessing gets, by the same names; a
    metric without a chance level is not reported. words: a metric's name in words, None for a name of another
    measure. headlines: the metrics that stand in short tables. protocol: results -> how it is measured, in sentences
    for a card. options: dataclasses of its settings, for the command line. least_kinds: how many kinds of data a model
    must take. order: of its rows in tables.
    """

    needs: tuple[str, ...]
    kinds: tuple[str, ...]
    compute: Callable[[Subject], Metrics]
    chance: Callable[[LabelledSet, type[PretextModel]], Metrics]
    words: Callable[[str], str | None]
    protocol: Callable[[dict], str]
    headlines: tuple[str, ...] = ()
    options: tuple[type, ...] = ()
    least_kinds: int = 1
    order: int = 0

    def fits(self, model: type[PretextModel] | PretextModel) -> bool:
        """Whether a model takes these kinds of data and has these capabilities."""
        takes = set(self.kinds) <= set(model.inputs) and len(model.inputs) >= self.least_kinds
        return takes and set(self.needs) <= set(model.capabilities)


def modules_with(name: str) -> list[ModuleType]:
    """The files of this package that define `name`."""
    modules = [registry.find("evaluation", file) for file in registry.names("evaluation")]
    return [module for module in modules if name in vars(module)]


@cache
def measures() -> list[Measure]:
    """All measures, in the order of their rows."""
    each = (vars(module)["MEASURE"] for module in modules_with("MEASURE"))
    return sorted(each, key=lambda measure: measure.order)


def fitting(model: type[PretextModel] | PretextModel) -> list[Measure]:
    """The measures that a model, or a model class, has the capabilities for."""
    return [measure for measure in measures() if measure.fits(model)]


def measure_model(
    model: PretextModel,
    labelled: LabelledSet,
    device: torch.device | str = "cpu",
    options: Mapping[type, Any] | None = None,
) -> Metrics:
    """All metrics of a model that its capabilities allow, on the test split of a labelled set."""
    with evaluated(model, device), torch.no_grad():
        subject = Subject(model, labelled, device, options)
        return {name: value for measure in fitting(model) for name, value in measure.compute(subject).items()}


def chance_levels(model_class: type[PretextModel], labelled: LabelledSet) -> Metrics:
    """What guessing gets in `measure_model`, under the same names."""
    levels = [measure.chance(labelled, model_class) for measure in fitting(model_class)]
    return {name: value for level in levels for name, value in level.items()}


@contextmanager
def evaluated(model: torch.nn.Module, device: torch.device | str) -> Iterator[None]:
    """Puts a model on a device and into `eval()`; its mode is restored."""
    training = model.training
    model.to(device).eval()
    try:
        yield
    finally:
        model.train(training)


def distinct(captions: Iterable[str]) -> list[str]:
    """Captions, one of those that read the same (see `normalised`)."""
    return list({normalised(caption): caption for caption in captions}.values())
