"""The base class of the modalities in `image.py`, `text.py`, `audio.py` and `video.py`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.limits import LIMITS, Limits
from ..data.sources import Source
from ._clips import Part

EXTRAS = ("audio", "video")  # extras of the package with the name of a modality
IMPORTED = {"pillow": "PIL"}  # packages with another name where they are imported
MIDDLE = 0.5  # position in time that evaluation uses, from 0 (start) to 1 (end)
Batch = dict[str, Tensor]
Example = dict[str, Tensor | int]


@dataclass(frozen=True)
class Context:
    """Facts that a modality needs in addition to its options.

    start: folder or Hub id of the encoder that training starts from. option: name of the option that sets `start`.
    config: config of that encoder or of the full model. texts: returns the texts to train a tokenizer on; it is only
    called for training one. flexible: True if --max_length is a recipe's default for another encoder than `start`. Then
    the length is adapted to the positions of `start`. limits: of one sample, see `StreamSettings`. processor: the
    transformers processor to use, in place of the one of `start`. encoder: the model that reads the inputs, if it is
    built already.
    """

    start: str | None = None
    option: str = "--encoder"
    config: PreTrainedConfig | None = None
    texts: Callable[[], Source] | None = None
    flexible: bool = False
    limits: Limits = LIMITS
    processor: Any = None
    encoder: PreTrainedModel | None = None

    @property
    def image_size(self) -> int | None:
        """Side of the square images that the config names, in pixels; None without one."""
        size = getattr(getattr(self.config, "vision_config", self.config), "image_size", None)
        return size if isinstance(size, int) else None


class Modality(ABC):
    """Base of a modality. Converts a row to tensors in a worker, and finishes batches on the device.

    name: name of the modality and of its file. columns: canonical columns to read from; the first in which a row has a
    value is used. timed_columns: further ones, which are read where another modality is timed. further_columns: columns
    to read next to these, `{canonical name: name in the data}`. options: dataclasses of its options. samples: name of
    the samples in messages, in the plural. role: argument name of its processor in transformers' processors of several
    modalities; further_roles: names of other processors that it can use. processors: classes of its processor;
    processor_example: a line of code that makes one. timed: True if the position in time `at` is used; then `part` is
    what it needs of a film or sound, and its column may have a decoded `Clip`. encoder_input: argument name of the
    encoder for this modality. outputs: all columns that an example may have. processor: the transformers processor that
    is saved with each checkpoint. fills: padding value of each column that is padded along time.

    Attributes for evaluation and cards. fractions: shares of the labels that linear probes are trained on; None for one
    linear probe on all labels and kNN. features_in_bf16: True if features may be extracted in bf16. task_type: name of
    the classification task on the Hub. packages: packages that reading the data and loading an encoder need besides
    torch and transformers.
    usage: Jinja template of the code that loads an encoder. Its variables are `folder`, `subfolder` (the argument, or
    empty), `hidden_of` (code that reads the hidden states) and `pooled` (code that pools them).
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    timed_columns: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[type, ...]]
    samples: str
    role: ClassVar[str]
    further_roles: ClassVar[tuple[str, ...]] = ()
    processors: ClassVar[tuple[type, ...]]
    processor_example: ClassVar[str]
    further_columns: Mapping[str, str] = {}
    timed: ClassVar[bool] = False
    encoder_input: str
    outputs: tuple[str, ...]
    processor: Any
    fills: Mapping[str, float] = {}
    fractions: ClassVar[tuple[float, ...] | None] = None
    features_in_bf16: ClassVar[bool] = False
    task_type: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    usage: ClassVar[str]
    part: Part | None = None

    @classmethod
    def check_packages(cls) -> None:
        """Raises `ValueError` with the install command if one of `packages` is missing."""
        missing = [package for package in cls.packages if not is_installed(package)]
        if missing:
            extra = f"'hf_pretext[{cls.name}]'" if cls.name in EXTRAS else " ".join(missing)
            raise ValueError(
                f"{cls.samples.capitalize()} need {' and '.join(missing)}, not installed here. Install them: pip "
                f"install {extra}"
            )

    @classmethod
    def alone(cls, one_text_a_row: bool = False) -> type["Modality"]:
        """Returns the class to use when this is the only modality of an objective. `Text` returns `Corpus` (packed
        documents), or `Sentences` with `one_text_a_row`; all others return themselves."""
        return cls

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Modality":
        """Builds the modality from option dataclasses. Raises `ValueError` for options that do not work.

        options: instances of the option dataclasses, by their class."""

    @classmethod
    @abstractmethod
    def from_saved(
        cls, folder: str, encoder: PreTrainedModel, source: str, size: int | None = None, white: int | None = None
    ) -> "Modality":
        """Builds the modality for a saved encoder. size: overrides the size of the processor, in pixels.

        white: see `data.decoding.to_rgb`. source: name of the encoder in error messages. Raises `ValueError` if the
        folder has no processor."""

    @classmethod
    def processor_in(cls, processing_class: Any) -> Any:
        """Returns the processor of this modality in a transformers processor of several modalities, or the processor
        itself; None for one of another modality."""
        if isinstance(processing_class, cls.processors):
            return processing_class
        parts = (getattr(processing_class, role, None) for role in (cls.role, *cls.further_roles))
        return next((part for part in parts if part is not None), None)

    @classmethod
    def default_processor(cls, encoder: PreTrainedModel | None) -> Any:
        """Returns the processor for inputs of an encoder without one; None if it is not certain. encoder: None for a
        model that has none of this modality."""
        return None

    @staticmethod
    @abstractmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Returns batches of noise. An encoder supports the modality if it returns hidden states for one of them."""

    @staticmethod
    @abstractmethod
    def words(results: Mapping) -> str:
        """Returns a description of the encoder's inputs from the results of a run: "images of 64x64 pixels"."""

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Returns sentences for a card that describe the preprocessing, from the results of a run."""
        return []

    @abstractmethod
    def largest(self) -> str:
        """Returns a description of `noise` with its options: "Images of 64x64 pixels (--image_size)"."""

    def check_columns(self, source: Source) -> None:
        """Raises `ValueError` for a source with columns of the wrong type."""
        return

    def end_of_training(self) -> str | None:
        """Returns a message for the end of training, or None, and resets its counters."""
        return None

    def column(self, row: Mapping) -> str | None:
        """Returns the column of a row that this modality is read from: the first one with a value, else the first one;
        None if the row has none."""
        present = [name for name in (*self.columns, *self.timed_columns) if name in row]
        return next((name for name in present if row[name] is not None), next(iter(present), None))

    @abstractmethod
    def __call__(self, row: dict, random: np.random.Generator | None, at: float) -> Example:
        """Returns one example. Raises `BadSample` for a row that can't be used.

        random: None for evaluation, which uses no random numbers. at: position in time, 0 (start) to 1 (end)."""

    def draws(self, row: dict, random: np.random.Generator | None, at: float, count: int) -> list[Example]:
        """Returns several examples of one position in time. Raises `BadSample` like a call."""
        return [self(row, random, at) for _ in range(count)]

    def evaluation(self) -> "Modality":
        """Returns the modality without augmentation and without random captions."""
        return self

    def for_views(self) -> "Modality":
        """Returns the modality that draws and finishes `two_views`."""
        return self.evaluation()

    def two_views(self, decoded: Callable[[float], dict], random: np.random.Generator) -> tuple[Example, Example]:
        """Returns two views of a row with the same content, from which a good encoder recognises the row: two random
        draws; of a timed modality, the start and the end of the clips.

        decoded: returns the row with decoded clips of a position in time. Raises `BadSample` like a call."""
        if self.timed:
            return self(decoded(0.0), None, 0.0), self(decoded(1.0), None, 1.0)
        row = decoded(MIDDLE)
        return self(row, random, MIDDLE), self(row, random, MIDDLE)

    def in_gray(self) -> "Modality":
        """Returns the modality without augmentation and with images in grey; others return themselves."""
        return self

    def finish(self, batch: Batch) -> Batch:
        """Converts a batch of this modality's columns to model inputs, on the batch's device."""
        return batch

    def of_views(self, columns: Batch) -> Batch:
        """Returns what a batch of views has in addition to `finish`, `(B, K)`. columns: before it, `(B, K, ...)`."""
        return {}

    @abstractmethod
    def shape(self) -> dict[str, int | float]:
        """Returns sizes by the argument names of a recipe's encoder function."""

    def fit(self, encoder: PreTrainedModel) -> None:
        """Adapts the preprocessing to an encoder. Raises `ValueError` if the two do not fit."""
        return

    @abstractmethod
    def noise(self, count: int = 2) -> Batch:
        """Returns random model inputs of the largest size, `(count, ...)`."""

    def noise_of_views(self, views: int) -> Batch:
        """Returns `noise` for each of several views, and what `of_views` adds: `(count, views, ...)`."""
        drawn = [self.noise() for _ in range(views)]
        return {name: torch.stack([one[name] for one in drawn], 1) for name in drawn[0]}

    @abstractmethod
    def facts(self) -> dict:
        """Returns the entries of results.json about the options of this modality."""

    def images_of(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Returns uint8 images of a batch or an example for a report; None if the modality has none."""
        return None

    def waves_of(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Returns the waveforms `(B, T)` of a batch of examples, before `finish`; None if the modality has none."""
        return None


def is_installed(package: str) -> bool:
    """Returns True if a package can be imported."""
    try:
        import_module(IMPORTED.get(package, package))
    except ImportError:
        return False
    return True
