"""Frozen image classifiers as teachers: their posteriors on the frames of clips.

frames (B, F, 3, S, S), normalised as in training -> size and normalisation of the teacher -> posteriors (B, classes),
averaged over the frames

A teacher is no part of a model: it is loaded when it is needed, once for all models of a process.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForImageClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from ..encoders import encoder_config
from ..utils.paths import relative
from .codebook_sources import pretrained
from .named import digest_of, note_place, place_of
from .normalisation import per_channel

AT_ONCE = 64  # frames that a teacher classifies at a time
OPTION = "--teachers"


@dataclass(frozen=True)
class Teacher:
    """A frozen image classifier.

    path: folder or Hub id, or its name in a checkpoint. classes: number of its classes. size: height and width of its
    images, in pixels. mean, std: normalisation of its images, for pixels in [0, 1], one number per channel. digest: of
    its weights."""

    path: str
    classes: int
    size: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    digest: str

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Returns the posteriors of clips, `(B, classes)`, float32: the mean of the softmax over the frames of a clip.

        pixels: frames `(B, F, 3, H, W)` in [0, 1]. Classifies in float32, whatever the precision of training is. Raises
        `ValueError` for a teacher that can't be loaded, or has other weights than in training."""
        teacher, digest = loaded(self.place)
        if digest != self.digest:
            raise ValueError(
                f"{OPTION} {self.place} has other weights than the teacher of this model. Give the teacher that it was "
                "trained with, or start a new run."
            )
        with torch.autocast(pixels.device.type, enabled=False):
            frames = self.prepared(pixels.flatten(0, 1).float()).split(AT_ONCE)
            teacher = teacher.to(pixels.device)
            chances = torch.cat([teacher(pixel_values=some).logits.float().softmax(-1) for some in frames])
        return chances.unflatten(0, pixels.shape[:2]).mean(1)

    def prepared(self, frames: Tensor) -> Tensor:
        """Returns frames `(n, 3, H, W)` in [0, 1] as the teacher takes them: resized, then normalised."""
        if tuple(frames.shape[2:]) != tuple(self.size):
            frames = F.interpolate(frames, tuple(self.size), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (per_channel(values, frames.device) for values in (self.mean, self.std))
        return (frames - mean) / std

    def to_cpu(self) -> None:
        """Moves the classifier to the CPU, until it is called again: its memory on the device is free for training."""
        loaded(self.place)[0].to("cpu")

    @property
    def place(self) -> str:
        """Folder or Hub id that the classifier is loaded from."""
        return place_of(self.path)


@lru_cache(maxsize=8)
def loaded(path: str) -> tuple[PreTrainedModel, str]:
    """Returns a frozen image classifier in float32, and a digest of its weights. path: folder or Hub id.

    Raises `ValueError` if it can't be loaded or lacks weights."""
    teacher = pretrained(AutoModelForImageClassification, path, OPTION).eval().requires_grad_(False)
    note_place(path)
    return teacher, digest_of(teacher)


def check_teachers(paths: Sequence[str] | None) -> None:
    """Raises `ValueError` for no teachers, the same teacher twice, and models that classify no images or have only one
    class. Reads only their configs."""
    if not paths:
        raise ValueError(
            f"The objective needs a teacher: give image classifiers with {OPTION}, folders or Hub ids, for example "
            f"{OPTION} microsoft/resnet-18."
        )
    places = [os.path.realpath(path) if os.path.isdir(path) else path for path in paths]
    shown = [relative(path, to_current=False) for path in paths]
    for path, place, name in zip(paths, places, shown, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{OPTION} has {path} twice, which would only double its loss. Give each teacher once.")
        if shown.count(name) > 1:
            raise ValueError(
                f"{OPTION} has two folders that a checkpoint would both call {name}. Give them different names, or "
                "paths relative to the current folder."
            )
        config = encoder_config(path, OPTION)
        if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            raise ValueError(
                f"{OPTION} {path} is a {config.model_type} model, which AutoModelForImageClassification does not load. "
                "Give an image classifier."
            )
        if config.num_labels < 2:
            raise ValueError(
                f"{OPTION} {path} has {config.num_labels} class. Give an image classifier with at least 2 classes."
            )
