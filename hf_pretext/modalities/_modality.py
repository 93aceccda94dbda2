"""What each kind of data says and does: the base of the classes in `image.py`, `text.py`, `audio.py` and `video.py`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.decoding import MAX_PIXELS
from ..data.sources import Source

MIDDLE = 0.5  # the position in time that evaluation sees
Batch = dict[str, Tensor]
Example = dict[str, Tensor | int]


@dataclass(frozen=True)
class Context:
    """What a kind of data is made from besides its options.

    start: folder or Hub id of the encoder that training starts from; option: the one that names it. config: that
    encoder's, or the full model's. texts: what a tokenizer is trained on, asked for only then. flexible: whether
    --max_length is a recipe's for its own encoder, so that it gives way to fewer positions of `start`.
    max_image_pixels: see `StreamSettings`.
    """

    start: str | None = None
    option: str = "--encoder"
    config: PreTrainedConfig | None = None
    texts: Callable[[], Source] | None = None
    flexible: bool = False
    max_image_pixels: int = MAX_PIXELS

    @property
    def image_size(self) -> int | None:
        """The side of images that the config says, in pixels."""
        size = getattr(getattr(self.config, "vision_config", self.config), "image_size", None)
        return size if isinstance(size, int) else None


class Modality(ABC):
    """One kind of data: a row to tensors in a worker, and the last steps on the device.

    name: of its file. columns: canonical columns it may be read from, the first that a row has. options: dataclasses of
    its settings. samples: what its samples are called. role: the name that transformers' processors of several kinds
    take its processor by. timed: whether `at` matters. encoder_input: what an encoder takes it as. outputs: all columns
    that an example may have. processor: transformers' own, saved with each checkpoint. fills: columns padded along
    time, and with what.

    For evaluation and cards: fractions: shares of the labels that linear probes know, None for all of them and kNN.
    features_in_bf16: whether features may be extracted so. task_type: the Hub's name of classifying it. packages: what
    loading an encoder takes besides torch and transformers. usage: lines that load an encoder, a Jinja template of
    `folder`, `subfolder` (the argument, where there is one), `hidden_of` (how hidden states are read) and `pooled`.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    options: ClassVar[tuple[type, ...]]
    samples: str
    role: ClassVar[str]
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

    @classmethod
    def alone(cls) -> type["Modality"]:
        """The class that reads this kind where an objective takes no other."""
        return cls

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Modality":
        """This kind as options say, by their dataclasses. Raises `ValueError` for options that can't be met."""

    @classmethod
    @abstractmethod
    def from_saved(cls, folder: str, encoder: PreTrainedModel, source: str, size: int | None = None) -> "Modality":
        """This kind as a saved encoder takes it. size: in place of its processor's own, in pixels.

        Raises `ValueError`, in which the encoder is called `source`, where the folder has no processor."""

    @staticmethod
    @abstractmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Batches of noise: an encoder takes this kind where it gives hidden states for one of them."""

    @staticmethod
    @abstractmethod
    def words(results: Mapping) -> str:
        """What an encoder takes, of the results of a run: "images of 64x64 pixels"."""

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """How the data was prepared, of the results of a run, in sentences for a card."""
        return []

    @abstractmethod
    def largest(self) -> str:
        """What `noise` is, in words that name the options: "Images of 64x64 pixels (--image_size)"."""

    def check_columns(self, source: Source) -> None:
        """Raises `ValueError` for a source whose columns do not hold what they are to be read as."""
        return

    def end_of_training(self) -> str | None:
        """Returns what is worth saying once a run has trained, and forgets it."""
        return None

    def column(self, row: Mapping) -> str | None:
        """The column of a row that this kind is read from; None where the row has none."""
        return next((name for name in self.columns if name in row), None)

    @abstractmethod
    def __call__(self, row: dict, random: np.random.Generator | None, at: float) -> Example:
        """Returns one example. Raises `BadSample` for a row that can't be used.

        random: None for evaluation, where nothing is drawn. at: the position in time, 0 (start) to 1 (end)."""

    def evaluation(self) -> "Modality":
        """Returns the same without augmentation and without drawn captions."""
        return self

    def finish(self, batch: Batch) -> Batch:
        """Returns a batch of this kind's columns as model inputs, on the batch's device."""
        return batch

    @abstractmethod
    def shape(self) -> dict[str, int | float]:
        """Returns sizes by the names that a recipe's encoder function takes them by."""

    def fit(self, encoder: PreTrainedModel) -> None:
        """Adapts to an encoder. Raises `ValueError` where that can't be done."""
        return

    @abstractmethod
    def noise(self, count: int = 2) -> Batch:
        """Returns finished model inputs of the largest size, `(count, ...)`, of random content."""

    @abstractmethod
    def facts(self) -> dict:
        """Returns what results.json says of this kind's options."""

    def images_of(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Returns what a report draws of a batch or an example: uint8 images; None where there is nothing to draw."""
        return None
