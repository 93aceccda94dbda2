"""Baseline of video encoders: the raw pixels of the middle frame as features.

pixel_values_videos (B, F, 3, H, W) -> frame F // 2 -> averaged, see `pixels` -> (B, pixels)
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

from .baselines import Baseline
from .labelled_set import LabelledSet
from .pixels import DOWNSAMPLED, image_transfer
from .transfer import Method


def frame_transfer(labelled: LabelledSet, methods: Mapping[str, Method]) -> dict:
    """Measures kNN and linear probes on the middle frames of videos. Returns the metrics by method."""

    def frames(split: str) -> Iterator[Tensor]:
        for examples in labelled.examples(split, "video"):
            yield labelled.inputs.by_name["video"].images_of(examples) / 127.5 - 1

    return image_transfer(frames, labelled.labels, methods)


BASELINE = Baseline(
    kind="video",
    name="frame pixels",
    words="the raw pixels of a frame do",
    protocol=f"Frame pixels: the raw pixels of the middle frame of each clip, {DOWNSAMPLED}",
    transfer=frame_transfer,
)
