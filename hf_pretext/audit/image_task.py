"""Base of the audits of tasks about images: the questions of a labelled set, always the same ones.

labelled set -> some images of each split -> batches -> `PretextModel.ask` -> questions
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..modeling import PretextModel
from ..modules.cues import Question
from .task import TaskAudit, questions, spaced


class ImageTask(TaskAudit):
    """Asks an objective of images about at most `most` images of each split, evenly spaced. Trained models, random
    models and readers get the same questions."""

    most: ClassVar[Mapping[str, int]]

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        super().__init__(model, labelled, device)
        self.sets = {split: spaced(labelled, split, most) for split, most in self.most.items()}
        modality = labelled.inputs.by_name["image"]
        self.mean, self.std = (each.view(3, 1, 1).to(self.device) / 255 for each in (modality.mean, modality.std))

    def _questions(self, split: str, labelled: LabelledSet | None = None) -> Iterator[Question]:
        """Yields the questions of a split, see `task.questions`. labelled: default: that of `sets`."""
        some = self.sets[split] if labelled is None else labelled
        return questions(self.model, some.pretext_batches(split), split, self.device)

    def _pixels(self, question: Question) -> Tensor:
        """Returns the images of a question in [0, 1]; tiles that the task has standardised go beyond."""
        return question.inputs["pixel_values"] * self.std + self.mean

    def _with_pixels(self, question: Question, pixels: Tensor) -> Question:
        """Returns a question about other images, see `_pixels`."""
        images = (pixels - self.mean) / self.std
        return question._replace(inputs={**question.inputs, "pixel_values": images})
