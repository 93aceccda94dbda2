"""Base of the audits of tasks about images, sounds or films: the questions of a labelled set, always the same ones.

labelled set -> some examples of each split -> batches -> `PretextModel.ask` -> questions
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..modeling import PretextModel
from ..modules.cues import Question
from .task import TaskAudit, questions, spaced

SEED = 0  # of the order of the examples


class ExampleTask(TaskAudit):
    """Asks an objective about at most `most` examples of each split, evenly spaced. Trained models, random models and
    readers get the same questions."""

    most: ClassVar[Mapping[str, int]]

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        super().__init__(model, labelled, device)
        self.sets = {split: mixed(spaced(labelled, split, most), split) for split, most in self.most.items()}

    # of images

    def _questions(self, split: str, labelled: LabelledSet | None = None, name: str = "") -> Iterator[Question]:
        """Yields the questions of a split, see `task.questions`. labelled: default: that of `sets`. name: of the
        question, of several."""
        some = self.sets[split] if labelled is None else labelled
        return questions(self.model, some.pretext_batches(split), split, self.device, name)

    def _pixels(self, question: Question) -> Tensor:
        """Returns the images of a question in [0, 1]; tiles that the task has standardised go beyond."""
        mean, std = self._normalisation
        return question.inputs["pixel_values"] * std + mean

    def _with_pixels(self, question: Question, pixels: Tensor) -> Question:
        """Returns a question about other images, see `_pixels`."""
        mean, std = self._normalisation
        return question._replace(inputs={**question.inputs, "pixel_values": (pixels - mean) / std})

    @property
    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of images in [0, 1], `(3, 1, 1)` each."""
        modality = self.labelled.inputs.by_name["image"]
        return tuple(each.view(3, 1, 1).to(self.device) / 255 for each in (modality.mean, modality.std))


def mixed(labelled: LabelledSet, split: str) -> LabelledSet:
    """Returns a set with the rows of a split in a random order, always the same one. Cues are exchanged within a batch,
    and rows of one class, or one film, may follow each other."""
    return labelled.reordered(split, np.random.default_rng(SEED).permutation(len(labelled.rows(split))).tolist())
