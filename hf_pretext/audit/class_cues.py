"""Audit of tasks that ask for one of several classes.

model with `ask` and `answer`, labelled set -> see `TaskAudit`

Of images (rotation, jigsaw puzzles, relative position), bits are over equally likely answers, as the tasks draw them;
readers see one draw of the task's changes of each image, and the model has seen many. Of sounds and films: see
`clip_classes`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation.transfer import SPLITS
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.cues import Cue, Question
from .by_question import ByQuestion
from .example_task import ExampleTask
from .information import logit_information
from .readers import Splits, better, linear_reader, small_reader, uniform_scores
from .task import ACCURACY, BITS, CONFLICT, CONTROL, ENTROPY, OVERFITTING, WITHOUT, asks, by_name

SEEDS = (0, 1, 2)  # of the readers
MOST = {"train": 4000, "validation": 1000, "test": 1000}  # images, evenly spaced
SEED = 0  # of exchanges
SHUFFLED = "cue of another example"  # a control of every objective


class Asked(NamedTuple):
    """A question about a batch. values: what cues read of its inputs, images in [0, 1] or see `values_of`. examples:
    from which the inputs were made, of sounds and films."""

    question: Question
    values: Tensor
    examples: Batch | None = None


class ClassCues(ByQuestion, ExampleTask):
    """Audits the answers of a model that classifies images which the task has changed."""

    unit, most = "image", MOST

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return asks(model, "image", Cue)

    # one question

    def _sufficiency(self, question: str) -> dict[str, dict]:
        labels, features, classes = self._read(question)
        roles = {cue.name: role for cue, role in self.roles.items() if cue.name in features} | {SHUFFLED: CONTROL}
        features[SHUFFLED] = {split: shuffled(values) for split, values in next(iter(features.values())).items()}
        results, base = {}, self._base(classes, labels)
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

    def _answers(self, question: str) -> dict[str, float]:
        logits, labels, classes = {}, {}, 0
        for split in SPLITS:
            given, right = [], []
            for asked, *_ in self._asked(split, question):
                given.append(self._logits(question, asked).cpu().numpy())
                right.append(asked.labels.cpu().numpy())
                classes = asked.classes
            logits[split], labels[split] = np.concatenate(given), np.concatenate(right)
        read = logit_information(logits, labels, classes, self._base(classes, labels))
        seen = {"logits": {**logits, "test": logits["train"]}, "labels": {**labels, "test": labels["train"]}}
        on_train = logit_information(**seen, classes=classes, base=self._base(classes, seen["labels"]))
        return {
            BITS: read.bits,
            ACCURACY: read.accuracy,
            ENTROPY: read.entropy,
            OVERFITTING: on_train.bits - read.bits,
        }

    def _reliance(self, question: str) -> dict[str, dict[str, float]]:
        without, conflict = {}, {}
        for number, asked in enumerate(self._asked("test", question)):
            labels = asked.question.labels.cpu()
            anyone, differing = partners(labels, torch.Generator().manual_seed(SEED + number))
            for cue in self._cues(asked.question):
                if cue.exchanged is None:
                    continue
                right = self._predicted(cue, question, asked, anyone.clamp(min=0)) == labels
                without.setdefault(cue.name, []).append(right[anyone >= 0])
                follows = self._predicted(cue, question, asked, differing.clamp(min=0)) == labels[differing]
                conflict.setdefault(cue.name, []).append(follows[differing >= 0])
        return {name: {WITHOUT: share(without[name]), CONFLICT: share(conflict[name])} for name in without}

    def _read(self, question: str) -> tuple[dict[str, np.ndarray], dict[str, Splits], int]:
        """Returns the right answers by split, the features of each cue by split, and the number of classes."""
        labels, features, classes = {}, {}, 0
        for split in SPLITS:
            right, read = [], {}
            for asked in self._asked(split, question):
                right.append(asked.question.labels.cpu().numpy())
                classes = asked.question.classes
                for cue in self._cues(asked.question):
                    read.setdefault(cue.name, []).append(cue.read(asked.values).float().cpu().numpy())
            labels[split] = np.concatenate(right)
            for name, parts in read.items():
                features.setdefault(name, {})[split] = np.concatenate(parts)
        return labels, features, classes

    def _predicted(self, cue: Cue, question: str, asked: Asked, others: Tensor) -> Tensor:
        """Returns what the model predicts, `(n,)`, if examples have the cue of others. others: their places, `(n,)`."""
        values = cue.exchanged(asked.values, asked.values[others.to(asked.values.device)])
        return self._logits(question, self._changed(asked, values)).argmax(1).cpu()

    def _logits(self, question: str, asked: Question) -> Tensor:
        return self.model.answer(**by_name(question), **asked.inputs).float()

    # of images; otherwise for sounds and films

    def _asked(self, split: str, question: str) -> Iterator[Asked]:
        """Yields the questions about the batches of a split, always the same ones."""
        for asked in self._questions(split, name=question):
            yield Asked(asked, self._pixels(asked))

    def _changed(self, asked: Asked, values: Tensor) -> Question:
        """Returns a question whose inputs have other values."""
        return self._with_pixels(asked.question, values)

    def _cues(self, question: Question) -> list[Cue]:
        """Returns the cues that may be in the inputs of a question."""
        return list(self.roles)

    def _base(self, classes: int, labels: Splits) -> Splits | None:
        """Returns the log-probabilities over which bits are counted, see `linear_reader`."""
        return uniform_scores(classes, labels)


def share(parts: list[Tensor]) -> float:
    """Returns the share of True in bool tensors; NaN if they are empty."""
    return float(torch.cat(parts).float().mean()) if parts else math.nan


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
