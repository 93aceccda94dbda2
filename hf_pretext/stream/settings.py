"""Settings of the stream: reading, shuffling, and the handling of bad samples and of a collapse."""

from dataclasses import dataclass, replace
from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ..data.limits import LIMITS, MAX_PIXELS, Limits
from ..utils.settings import accepts_ints

PARTS, WINDOW = 16, 256
HIGHEST_MAX_PIXELS = 2 * MAX_PIXELS  # Pillow raises an error above this


@accepts_ints
@strict
@dataclass
class StreamSettings:
    """How data is read and shuffled, and how bad samples and a collapse are handled.

    parts: Number of parts of the data. Samples are taken from the parts in turn; more parts shuffle better. Give a
        multiple of the number of processes. If not set: 16, or one for each of more than 16 processes; a resumed run
        keeps it.
    window: Number of rows of a part that are shuffled together (size of the shuffle buffer). Reduced if rows are large
        (see --buffer_bytes), by the same amount for any number of processes up to 16.
    buffer_bytes: Maximum size in bytes of the undecoded rows in the memory of a process.
    max_sample_bytes: Images, sounds and videos of more bytes, in a row or in a file, count as bad samples.
    max_image_pixels: Images, and frames of videos, of more pixels count as bad samples, and are not decoded.
    max_bad_fraction: Training stops if a larger share of the last 1,000 samples is bad. Data is refused if a larger
        share of its files, or of the lines of its texts and tables, can't be read.
    record_samples: Write the keys (shard and row) of the samples of each step to samples-rank*.jsonl in the output
        folder.
    stop_on_collapse: Stop a run that collapsed. If not set, a warning says so.
    allow_changed_source: Resume although the data has changed. The rest of the run uses a new order of samples.
    """

    _argument_group_name: ClassVar[str] = "stream"

    parts: int | None = None
    window: int = WINDOW
    buffer_bytes: int = 2**30
    max_sample_bytes: int = LIMITS.bytes
    max_image_pixels: int = LIMITS.pixels
    max_bad_fraction: float = 0.05
    record_samples: bool = False
    stop_on_collapse: bool = False
    allow_changed_source: bool = False

    @property
    def limits(self) -> Limits:
        """The limits of one sample of any kind."""
        return Limits(self.max_sample_bytes, self.max_image_pixels)

    def validate_ranges(self):
        for name in ("parts", "window", "buffer_bytes", "max_sample_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        if not 0 < self.max_image_pixels <= HIGHEST_MAX_PIXELS:
            raise ValueError(
                f"max_image_pixels must be above 0 and at most {HIGHEST_MAX_PIXELS:,}, but is "
                f"{self.max_image_pixels:,}."
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must lie between 0 and 1, but is {self.max_bad_fraction}.")

    def on(self, ranks: int) -> "StreamSettings":
        """Returns the settings with the number of parts that a new run has on so many ranks.

        Up to `PARTS` ranks the default is the same, and so is the order of the samples. With more ranks, several of
        them would read the same rows."""
        return replace(self, parts=self.parts or max(PARTS, ranks))
