"""What a run does in its own way for each kind of data, one file each. The name of the file is the modality's.

options -> encoder's config, processing, source; labelled set, baselines, measures, panel of the report
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from ..evaluation.labelled import Labelled
from ..evaluation.transfer import Method
from ..modeling import PretextModel
from ..registry import find
from ..stream.mixture import Mixture
from ..utils.paths import relative

if TYPE_CHECKING:
    from ..run.experiment import Run


def legacy_class(modality: str) -> type:
    """The class of a modality. Raises `ValueError` for an unknown one."""
    module = find("legacy", modality)
    members = [value for value in vars(module).values() if isinstance(value, type)]
    return next(c for c in members if c.__module__ == module.__name__ and hasattr(c, "methods"))


class Modality(ABC):
    """One kind of data in one run, made from the run alone, before anything is trained or written: what is wrong with
    its options, the data or the encoder is a `ValueError` there.

    samples: what a sample is called, where speed is told. methods: how transfer is measured, by name. `config`: the
    encoder's; `processing`: row -> tensors.
    """

    samples: str
    methods: ClassVar[Mapping[str, Method]]
    config: PreTrainedConfig
    processing: Any
    run: "Run"

    @abstractmethod
    def open(self) -> Mixture:
        """What is trained on. Raises `ValueError` for data that does not fit the options."""

    @abstractmethod
    def noise(self) -> list[dict[str, Tensor]]:
        """Batches of the largest size that the model will see, of random content: one of each kind that there is."""

    @abstractmethod
    def does_not_fit(self, reason: str) -> str:
        """What to say of an encoder that can't take `noise()`."""

    @abstractmethod
    def labelled(self) -> Labelled:
        """The labelled set of --eval_dataset."""

    @abstractmethod
    def baselines(self, labelled: Labelled) -> dict[str, dict]:
        """Transfer of what needs no encoder, by name."""

    def start(self, model: PretextModel) -> None:
        """Puts weights from elsewhere into a fresh model, where options ask for that."""
        return

    def measures(self, model: PretextModel, labelled: Labelled) -> dict[str, float]:
        """What the whole model, heads included, is worth on the labelled set's test split, by name."""
        return {}

    def by_chance(self, labelled: Labelled) -> dict[str, float]:
        """The same measures of a model that knows nothing."""
        return {}

    @abstractmethod
    def panel(self, labelled: Labelled, results: dict):
        """What the report shows beside its curves: a function that draws into a figure, and the figure's height in
        inches; or None."""

    @abstractmethod
    def facts(self) -> dict:
        """What results.json says of the data's own options."""

    def checkpoints(self) -> list[str]:
        """The folders and Hub ids of what training starts from."""
        return [self.run.options.encoder] if self.run.options.encoder else []

    def begun_from(self) -> str | None:
        """What training starts from, where that is not fresh, as others may read it."""
        return relative(self.run.options.encoder)

    def precision(self, args) -> torch.dtype | None:
        """What features are extracted in, where not float32."""
        return None

    def adjusted(self, values: dict) -> dict:
        """Values of options, with those changed that mean something else for this run's data."""
        return values

    def finish(self, folder: str) -> None:
        """Adds files of the modality's own to a finished checkpoint."""
        return
