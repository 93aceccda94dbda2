"""Sounds of a clip at another time, as wrong ones: which are far enough from the first, and where they are put in.

starts (B, 2) in seconds -> near (B,); wrong sounds (B, D), shifted sounds (k, D) of some rows -> wrong sounds (B, D)

AVTS: Korbar, Tran and Torresani, NeurIPS 2018, https://huggingface.co/papers/1807.00230
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.units import in_seconds

MIN_SHIFT = 0.5  # seconds from the start of a sound to that of a wrong one
ROUNDED = 1e-3  # seconds that starts can be off, in float32 after some hours
DIFFERENT = 1e-3  # least squared distance of different sounds, centred and of length 1


class Shifted(NamedTuple):
    """Sounds of some clips at another time.

    sounds: embeddings or features, `(k, D)`. rows: their clips, `(k,)`. same: see `near`, `(k,)`.
    """

    sounds: Tensor
    rows: Tensor
    same: Tensor

    def put_into(self, others: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Returns wrong sounds (`(B, D)`) and their labels (`(B,)`, 0 or -100) with these in place of some, with the
        label 0, but for the ones that are `same`."""
        sounds = torch.where(self.same[:, None], others[self.rows], self.sounds)
        labels = wrong[self.rows] * self.same
        return others.index_copy(0, self.rows, sounds), wrong.index_copy(0, self.rows, labels)


def near(starts: Tensor, least: float) -> Tensor:
    """Returns True where the two sounds of a clip start less than `least` seconds apart: `(B, 2)` to bool `(B,)`.

    Near sounds overlap, so that they are not wrong: AVTS keeps them apart, too."""
    return (starts[:, 1] - starts[:, 0]).abs() < least - ROUNDED


def same_sounds(pairs: Tensor) -> Tensor:
    """Returns True where both sounds of a clip are the same but for their loudness: `(B, 2, ...)` to bool `(B,)`."""
    values = pairs.flatten(2).float()
    first, second = F.normalize(values - values.mean(2, keepdim=True), dim=2).unbind(1)
    return (first - second).square().sum(1) < DIFFERENT


def check_times(starts: Tensor, least: float) -> None:
    """Raises `ValueError` if the sounds of all clips start less than `least` seconds apart. starts: `(B, 2)`."""
    if near(starts, least).all():
        most = float((starts[:, 1] - starts[:, 0]).abs().max())
        raise ValueError(
            f"negatives='shifted' needs two sounds of a clip that start at least {in_seconds(least)} apart "
            f"(--min_shift), but in a batch they are at most {most:.3g} seconds apart: half of what a file is "
            "longer than --seconds, or 0 if they are equal. Give longer files, a shorter --seconds or --min_shift, or "
            "negatives='other'."
        )


def check_two_sounds(sounds: Tensor, starts: Tensor | None) -> None:
    """Raises `ValueError` for one sound of each clip instead of two, and without their starts. sounds: `(B, 2, ...)`.
    starts: `(B, 2)`."""
    if sounds.ndim < 3 or sounds.shape[1] != 2:
        raise ValueError(
            f"negatives='shifted' needs two sounds of each clip, (B, 2, ...), but got the shape {tuple(sounds.shape)}. "
            "Give the inputs views={'audio': 2}."
        )
    if starts is None or starts.shape != sounds.shape[:2]:
        raise ValueError(
            "negatives='shifted' needs the starts of both sounds of each clip in seconds, (B, 2), but got "
            f"{None if starts is None else tuple(starts.shape)}. Give them as sound_start, as the inputs do."
        )
