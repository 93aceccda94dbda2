"""Audit of tasks that ask for one of several classes about images: rotation, jigsaw puzzles, relative position.

model with `ask` and `answer`, labelled set -> see `TaskAudit`

Bits are over equally likely answers, as the tasks draw them. Readers see one draw of the task's changes of each image,
and the model has seen many.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS
from ..modeling import PretextModel
from ..modules.cues import Cue, Question
from .information import logit_information
from .readers import Splits, better, linear_reader, small_reader, uniform_scores
from .task import (
    ACCURACY,
    BITS,
    CONFLICT,
    CONTROL,
    ENTROPY,
    OVERFITTING,
    WITHOUT,
    TaskAudit,
    in_evaluation,
    questions,
    spaced,
)

SEEDS = (0, 1, 2)  # of the readers
MOST = {"train": 4000, "validation": 1000, "test": 1000}  # images, evenly spaced
SEED = 0  # of exchanges
SHUFFLED = "cue of another example"  # a control of every objective


class ClassCues(TaskAudit):
    """Audits the answers of a model that classifies images which the task has changed."""

    unit = "image"

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        super().__init__(model, labelled, device)
        self.sets = {split: spaced(labelled, split, most) for split, most in MOST.items()}
        modality = labelled.inputs.by_name["image"]
        self.mean, self.std = (each.view(3, 1, 1).to(self.device) / 255 for each in (modality.mean, modality.std))

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return "ask" in model.capabilities and model.inputs == ("image",)

    @in_evaluation
    def sufficiency(self) -> dict[str, dict]:
        """See `TaskAudit`. The first cue of another example is a control, too."""
        labels, features, classes = self._read()
        roles = {cue.name: role for cue, role in self.roles.items()} | {SHUFFLED: CONTROL}
        features[SHUFFLED] = {split: shuffled(values) for split, values in next(iter(features.values())).items()}
        results, base = {}, uniform_scores(classes, labels)
        for name, role in roles.items():
            linear = linear_reader(features[name], labels, classes, base)
            readings = [
                better(linear, small_reader(features[name], labels, classes, seed, base), labels) for seed in SEEDS
            ]
            results[name] = {
                "role": role,
                BITS: [reading.bits for reading in readings],
                ACCURACY: [reading.accuracy for reading in readings],
                "error": float(readings[0].per_row.std() / len(readings[0].per_row) ** 0.5),
            }
        return results

    @in_evaluation
    def answers(self) -> dict[str, float]:
        logits, labels, classes = {}, {}, 0
        for split in SPLITS:
            given, right = [], []
            for question in self._questions(split):
                given.append(self._logits(question).cpu().numpy())
                right.append(question.labels.cpu().numpy())
                classes = question.classes
            logits[split], labels[split] = np.concatenate(given), np.concatenate(right)
        read = logit_information(logits, labels, classes, uniform_scores(classes, labels))
        logits["test"], labels["test"] = logits["train"], labels["train"]
        on_train = logit_information(logits, labels, classes, uniform_scores(classes, labels))
        return {
            BITS: read.bits,
            ACCURACY: read.accuracy,
            ENTROPY: read.entropy,
            OVERFITTING: on_train.bits - read.bits,
        }

    @in_evaluation
    def reliance(self) -> dict[str, dict[str, float]]:
        cues = [cue for cue in self.roles if cue.exchanged is not None]
        without, conflict = ({cue.name: [] for cue in cues} for _ in range(2))
        for number, question in enumerate(self._questions("test")):
            labels = question.labels.cpu()
            anyone, differing = partners(labels, torch.Generator().manual_seed(SEED + number))
            for cue in cues:
                right = self._predicted(cue, question, anyone.clamp(min=0)) == labels
                without[cue.name].append(right[anyone >= 0])
                follows = self._predicted(cue, question, differing.clamp(min=0)) == labels[differing]
                conflict[cue.name].append(follows[differing >= 0])
        return {name: {WITHOUT: share(without[name]), CONFLICT: share(conflict[name])} for name in without}

    def _questions(self, split: str) -> Iterator[Question]:
        return questions(self.model, self.sets[split].pretext_batches(split), split, self.device)

    def _logits(self, question: Question) -> Tensor:
        return self.model.answer(**question.inputs).float()

    def _pixels(self, question: Question) -> Tensor:
        """Returns the images of a question in [0, 1]; tiles that the task has standardised go beyond."""
        return question.inputs["pixel_values"] * self.std + self.mean

    def _predicted(self, cue: Cue, question: Question, others: Tensor) -> Tensor:
        """Returns what the model predicts, `(n,)`, if examples have the cue of others. others: their places, `(n,)`."""
        pixels = self._pixels(question)
        images = (cue.exchanged(pixels, pixels[others.to(self.device)]) - self.mean) / self.std
        changed = question._replace(inputs={**question.inputs, "pixel_values": images})
        return self._logits(changed).argmax(1).cpu()

    def _read(self) -> tuple[dict[str, np.ndarray], dict[str, Splits], int]:
        """Returns the right answers by split, the features of each cue by split, and the number of classes."""
        labels, features, classes = {}, {cue.name: {} for cue in self.roles}, 0
        for split in SPLITS:
            right, read = [], {cue.name: [] for cue in self.roles}
            for question in self._questions(split):
                right.append(question.labels.cpu().numpy())
                pixels, classes = self._pixels(question), question.classes
                for cue in self.roles:
                    read[cue.name].append(cue.read(pixels).float().cpu().numpy())
            labels[split] = np.concatenate(right)
            for name, parts in read.items():
                features[name][split] = np.concatenate(parts)
        return labels, features, classes


def share(parts: list[Tensor]) -> float:
    """Returns the share of True in bool tensors; NaN if they are empty."""
    return float(torch.cat(parts).float().mean())


def shuffled(features: np.ndarray) -> np.ndarray:
    """Returns features `(n, d)` in a random order of rows, of another seed for each number of rows."""
    return features[np.random.default_rng([SEED, len(features)]).permutation(len(features))]


def partners(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws another example for each: any one, and one with another label; -1 where there is none.

    labels: `(n,)`. Returns their places, `(n,)` each."""
    if len(labels) < 2:
        return torch.full_like(labels, -1), torch.full_like(labels, -1)
    draws = torch.rand(len(labels), len(labels), generator=generator).fill_diagonal_(-1)
    differing = draws.masked_fill(labels[:, None] == labels, -1)
    return draws.argmax(1), torch.where(differing.amax(1) >= 0, differing.argmax(1), -1)


TASK_AUDIT = ClassCues
