"""What can be set of the stream: how data is read, shuffled and guarded."""

from dataclasses import dataclass
from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ..data.decoding import MAX_PIXELS
from ..utils.settings import accepts_ints

PARTS, WINDOW = 16, 256


@accepts_ints
@strict
@dataclass
class StreamSettings:
    """How data is read, shuffled and guarded.

    parts: Places of the data that are read from in turn, the finer to shuffle; a multiple of the processes.
    window: Rows that each of them shuffles among themselves; less where rows are large (see --buffer_bytes).
    buffer_bytes: Bytes of undecoded rows that a process holds at most.
    max_image_pixels: Pictures with more count as bad samples, and are never decoded.
    max_bad_fraction: Stop when more than this share of the last 1,000 samples could not be used.
    record_samples: Write the samples of each step to samples-rank*.jsonl in the output folder.
    allow_changed_source: Resume although the data has changed: the rest of the run sees it in an order of its own.
    """

    _argument_group_name: ClassVar[str] = "stream"

    parts: int = PARTS
    window: int = WINDOW
    buffer_bytes: int = 2**30
    max_image_pixels: int = MAX_PIXELS
    max_bad_fraction: float = 0.05
    record_samples: bool = False
    allow_changed_source: bool = False

    def validate_ranges(self):
        for name in ("parts", "window", "buffer_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must lie between 0 and 1, but is {self.max_bad_fraction}.")
