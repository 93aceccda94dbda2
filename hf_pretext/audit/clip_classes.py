"""Audit of tasks that ask for one of several classes about sounds or films: what image classifiers see in the frames of
a sound (SoundNet), the cluster of the other kind of data (XDC).

model with `ask` and `answer`, labelled set -> see `TaskAudit`

The classes are not equally frequent: bits are over their frequencies in train. They depend on other data than the model
sees, and for XDC on its weights: each trained model is asked for its own clusters, readers for those of the first one.
A random model has no clusters, and no answers.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..modeling import PretextModel
from ..modules.cues import Cue, Question
from .class_cues import Asked, ClassCues
from .decoded import check_waves, values_of, with_values
from .readers import Splits
from .task import by_name, check_kinds

KINDS = ("audio", "video")


class ClipCues(ClassCues):
    """Audits the answers of a model that classifies sounds or films. Cues are read from the kind of data that the model
    sees."""

    unit = "clip"
    most: ClassVar[Mapping[str, int]] = {"train": 1000, "validation": 300, "test": 500}  # teachers see all frames

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        """Raises `ValueError` as `check_kinds` does, and for sounds whose waves are not known since a feature extractor
        runs in the workers."""
        check_kinds(model, labelled)
        check_waves(labelled.inputs.modalities)
        super().__init__(model, labelled, device)

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return "ask" in model.capabilities and {*model.inputs} <= {*KINDS} and bool(model.questions)

    def _asked(self, split: str, question: str) -> Iterator[Asked]:
        inputs, kinds = self.labelled.inputs, self.model.inputs
        fixed = getattr(self.model, "answers_are_fixed", False)
        decoded_batches = zip(*(self.sets[split].examples(split, kind) for kind in kinds), strict=True)
        for number, decoded in enumerate(decoded_batches):
            examples, batch = dict(zip(kinds, decoded, strict=True)), {}
            for kind, some in examples.items():
                batch |= inputs.renamed(kind, inputs.by_name[kind].finish(some))
            batch = {name: value.to(self.device) for name, value in batch.items()}
            key = (question, split, number)
            labels = {"labels": self.shared[key].to(self.device)} if key in self.shared else {}
            asked = self.model.ask(**by_name(question), **labels, **batch)
            if fixed:  # a teacher need not see the frames again for each model
                self.shared[key] = asked.labels.cpu()
            yield Asked(asked, values_of(inputs.by_name[asked.kind], examples[asked.kind]), examples[asked.kind])

    def _changed(self, asked: Asked, values: Tensor) -> Question:
        question, modality = asked.question, self.labelled.inputs.by_name[asked.question.kind]
        changed = modality.finish(with_values(modality, asked.examples, values))
        return question._replace(inputs={name: changed[name].to(self.device) for name in question.inputs})

    def _cues(self, question: Question) -> list[Cue]:
        return [cue for cue in self.roles if cue.kind == question.kind]

    def _base(self, classes: int, labels: Splits) -> None:
        """Returns None: bits are over the frequencies in train."""


TASK_AUDIT = ClipCues
