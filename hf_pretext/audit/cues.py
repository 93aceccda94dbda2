"""Cues: how much of a pretext task can be answered without understanding, and what the model answers by.

model, labelled set -> its answers; for each cue what a small reader answers from it alone (sufficiency), what the model
answers when it gets the cue of another example (reliance), and whose answer it then gives (conflict)

Readers see the same rows and splits as the model, at the same size, but no more than one draw of the task's changes.
What a reader does not find, a larger one may: sufficiency is a lower bound.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.measure import evaluated
from ..evaluation.transfer import SPLITS
from ..modalities.image import Image
from ..modeling import PretextModel
from ..modules.cues import Cue, Question
from .readers import UNSEEN, Reading, calibrated, log_marginal, marginal_scores, small_reader

SEEDS = (0, 1, 2)  # of the readers
SEED = 0  # of exchanges
CUE, ARTEFACT, CONTROL = ROLES = ("cue", "artefact", "control")
SHUFFLED = "cues of another example"  # a control of every objective


class Asked(NamedTuple):
    """Questions of the rows of one split. labels: `(n,)`. features: `{cue: (n, d)}`."""

    labels: np.ndarray
    features: dict[str, np.ndarray]


class Questioner:
    """Asks the pretext questions of a model on a labelled set, and shows its images to cues as pixels in [0, 1].

    Raises `ValueError` for an objective that asks no questions of images."""

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        modality = labelled.inputs.by_name.get("image")
        if "ask" not in model.capabilities or not isinstance(modality, Image):
            raise ValueError(f"{model.objective} asks no questions about images, so it has no cues.")
        self.model, self.labelled, self.device = model, labelled, torch.device(device)
        self.mean, self.std = (each.view(3, 1, 1).to(self.device) / 255 for each in (modality.mean, modality.std))

    def questions(self, split: str) -> Iterator[Question]:
        """Yields the questions of the batches of a split, always the same ones."""
        with evaluated(self.model, self.device), torch.no_grad():
            for batch in self.labelled.pretext_batches(split):
                yield self.model.ask(**{name: value.to(self.device) for name, value in batch.items()})

    def pixels(self, question: Question) -> Tensor:
        """Returns the images of a question in [0, 1], but for tiles that the task has standardised."""
        return question.inputs[question.images] * self.std + self.mean

    def read(self, cue: Cue, question: Question) -> np.ndarray:
        """Returns the features of a cue for each question, `(n, d)`."""
        others = {name: value for name, value in question.inputs.items() if name != question.images}
        features = cue.read(self.pixels(question), **others)
        return features.reshape(question.labels.numel(), -1).float().cpu().numpy()

    def exchanged(self, cue: Cue, question: Question, others: Tensor) -> Question:
        """Returns a question whose examples have the cue of other examples. others: their places, `(n,)`."""
        pixels = self.pixels(question)
        images = (cue.exchanged(pixels, pixels[others]) - self.mean) / self.std
        return question._replace(inputs={**question.inputs, question.images: images})

    def logits(self, question: Question) -> Tensor:
        """Returns the model's logits, `(n, classes)`."""
        return self.model.answer(**question.inputs).float().reshape(-1, question.classes)


def asked(questioner: Questioner, cues: Sequence[Cue]) -> tuple[dict[str, Asked], int]:
    """Asks the questions of all splits. Returns labels and features of the cues by split, and the number of answers."""
    by_split, classes = {}, 0
    for split in SPLITS:
        labels, features = [], {cue.name: [] for cue in cues}
        for question in questioner.questions(split):
            labels.append(question.labels.flatten().cpu().numpy())
            classes = question.classes
            for cue in cues:
                features[cue.name].append(questioner.read(cue, question))
        by_split[split] = Asked(np.concatenate(labels), {name: np.concatenate(v) for name, v in features.items()})
    return by_split, classes


def by_role(model: PretextModel) -> dict[str, tuple[Cue, ...]]:
    """Returns the cues that an objective declares, by role."""
    return dict(zip(ROLES, (model.cues, model.artefacts, model.controls), strict=True))


def sufficiency(questioner: Questioner) -> dict[str, dict]:
    """Reads the answers from each cue alone, and from all of another example (a control).

    The answers depend on the settings of the task, and not on the weights of the model. Returns `{cue: {"role", "bits",
    "accuracy"}}`, with one value per seed of the reader."""
    roles = {cue.name: role for role, cues in by_role(questioner.model).items() for cue in cues}
    cues = [cue for cues in by_role(questioner.model).values() for cue in cues]
    by_split, classes = asked(questioner, cues)
    labels = {split: each.labels for split, each in by_split.items()}
    features = {name: {split: each.features[name] for split, each in by_split.items()} for name in roles}
    first = next(iter(roles))
    features[SHUFFLED] = {split: rolled(values) for split, values in features[first].items()}
    return {
        name: {"role": roles.get(name, CONTROL), **over_seeds([small_reader(x, labels, classes, s) for s in SEEDS])}
        for name, x in features.items()
    }


def rolled(features: np.ndarray) -> np.ndarray:
    """Returns features `(n, d)` in a random order of rows."""
    return features[np.random.default_rng(SEED).permutation(len(features))]


def over_seeds(readings: Sequence[Reading]) -> dict[str, list[float]]:
    """Returns bits and accuracies of several readings."""
    return {"bits": [each.bits for each in readings], "accuracy": [each.accuracy for each in readings]}


def answers(questioner: Questioner) -> dict[str, float]:
    """Measures the model's answers on test, at a temperature that is chosen on validation.

    Returns `bits`, usable information of the right answer in bits; `accuracy`; `entropy`, of the answers;
    `overfitting`, bits that the answers on train have more than those on test."""
    scores, labels = {}, {}
    for split in SPLITS:
        logits, right, classes = [], [], 0
        for question in questioner.questions(split):
            logits.append(questioner.logits(question).cpu())
            right.append(question.labels.flatten().cpu())
            classes = question.classes
        scores[split], labels[split] = torch.cat(logits).double().numpy(), torch.cat(right).numpy()
    base = marginal_scores(log_marginal(labels["train"], classes), labels)
    reading = calibrated([scores], labels, base)
    on_train = calibrated([{"validation": scores["validation"], "test": scores["train"]}], *as_test(labels, base))
    return {
        "bits": reading.bits,
        "accuracy": reading.accuracy,
        "entropy": reading.entropy,
        "overfitting": on_train.bits - reading.bits,
    }


def as_test(labels: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]) -> tuple[dict, dict]:
    """Returns labels and base with train in the place of test."""
    prior = base["validation"][:1]
    count = len(labels["train"])
    on_train = np.broadcast_to(prior, (count, prior.shape[1]))
    return {**labels, "test": labels["train"]}, {**base, "test": on_train}


def reliance(questioner: Questioner, cues: Sequence[Cue]) -> dict[str, dict[str, float]]:
    """Gives the model test inputs with the cue of another example.

    Returns for each cue that can be exchanged: `without`, its accuracy when the cue is that of any other example, which
    is no help; `conflict`, the share of examples whose other example has another right answer, for which the model
    gives the answer of the other example."""
    exchangeable = [cue for cue in cues if cue.exchanged is not None]
    right, other, count = ({cue.name: 0 for cue in exchangeable} for _ in range(3))
    for number, question in enumerate(questioner.questions("test")):
        generator = torch.Generator().manual_seed(SEED + number)
        any_other, of_other_answer = partners(question.labels.cpu(), generator)
        for cue in exchangeable:
            logits = questioner.logits(questioner.exchanged(cue, question, any_other.to(questioner.device)))
            right[cue.name] += int((logits.argmax(1) == question.labels.flatten()).sum())
            logits = questioner.logits(questioner.exchanged(cue, question, of_other_answer.to(questioner.device)))
            other[cue.name] += int((logits.argmax(1) == question.labels[of_other_answer].flatten()).sum())
            count[cue.name] += question.labels.numel()
    return {name: {"without": right[name] / count[name], "conflict": other[name] / count[name]} for name in right}


def partners(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws another example for each: any one, and one whose first label differs (any one if all are equal).

    labels: `(n,)` or `(n, k)`. Returns their places, `(n,)` each."""
    first = labels if labels.ndim == 1 else labels[:, 0]
    draws = torch.rand(len(first), len(first), generator=generator).fill_diagonal_(-1)
    differing = draws.masked_fill(first[:, None] == first, -1)
    return draws.argmax(1), torch.where(differing.amax(1) >= 0, differing.argmax(1), draws.argmax(1))
