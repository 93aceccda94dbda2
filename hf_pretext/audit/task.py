"""What a model answers its pretext task by: the part of the audit that each sort of task measures in its way.

model, labelled set -> answers of the model; for each cue what a small reader answers from it alone (sufficiency), what
the model answers when the cue is that of another example (reliance), and whose answer it then gives (conflict)

A file of this package that defines `TASK_AUDIT`, a subclass of `TaskAudit`, audits one sort of task.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import ClassVar

import torch

from .. import registry
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.measure import evaluated
from ..evaluation.transfer import SPLITS
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.cues import Question
from ..utils.places import evenly

CUE, ALL, ARTEFACT, CONTROL = ROLES = ("cue", "all cues", "artefact", "control")
BITS, ACCURACY, ENTROPY, OVERFITTING = "bits", "accuracy", "entropy", "overfitting"
WITHOUT, CONFLICT = "without", "conflict"
EXPLAINED, EXPLAINED_WITHOUT = "explained", "explained_without"  # of answers that are values, in place of accuracy
QUESTION = "question"  # of a cue, for models of several questions


class TaskAudit(ABC):
    """Audits the pretext task of a model on a labelled set, whose labels it does not use.

    roles: of the cues that the objective declares. `sufficiency` depends on the weights of the model only if they make
    the right answers: clusters (XDC), or what a generator writes (replaced tokens)."""

    unit: ClassVar[str]  # what one answer is about: "image", "clip", "token", "cell", "value", "pair"

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        self.model, self.labelled, self.device = model, labelled, torch.device(device)
        self.shared: dict = {}  # what the audits of several models compute once
        given = zip((CUE, ARTEFACT, CONTROL), (model.cues, model.artefacts, model.controls), strict=True)
        self.roles = {cue: role for role, cues in given for cue in cues}

    @staticmethod
    @abstractmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        """Returns whether it audits the task of this model or class."""

    @abstractmethod
    def sufficiency(self) -> dict[str, dict]:
        """Reads the answers from each cue alone. Readers see the same rows and splits as the model.

        Returns `{cue: {"role", "bits", "accuracy"}}`: a role of `ROLES`, and one value for each seed of the reader.
        Where it is known, also "error": the standard error of bits over test rows; of several questions, `QUESTION`. If
        answers are values, "explained", a share of their variance, replaces "accuracy".
        What a small reader does not get, a larger one may: bits are a lower bound."""

    @abstractmethod
    def answers(self) -> dict[str, float]:
        """Measures the model's answers on test, at a temperature that is chosen on validation.

        Returns `bits`, of the right answer per answer; `accuracy`; `entropy`, the most bits; `overfitting`, the bits
        that the answers on train have more. Values have `explained` in place of `accuracy`, and no `entropy`: their
        bits have no limit."""

    @abstractmethod
    def reliance(self) -> dict[str, dict[str, float]]:
        """Gives the model test inputs with the cue of another example.

        Returns for each cue that can be exchanged: `without`, the accuracy with the cue of any other example, which is
        no help; `conflict`, the share of examples for which the model gives the answer of the other example, where
        that has another one. Values have `explained_without` alone."""


def in_evaluation(measure: Callable) -> Callable:
    """Decorates a method of a `TaskAudit`: the model is on the device, in `eval()`, and gets no gradients."""

    @wraps(measure)
    def of_evaluated(self):
        with evaluated(self.model, self.device), torch.no_grad():
            return measure(self)

    return of_evaluated


def spaced(labelled: LabelledSet, split: str, most: int) -> LabelledSet:
    """Returns a set with at most `most` labelled rows of one split, evenly spaced, and no other split."""
    return labelled.reordered(split, evenly(len(labelled.rows(split)), most))


def asks(model: type[PretextModel] | PretextModel, kind: str, cue: type) -> bool:
    """Returns whether a model asks about one kind of data, and its cues are of the class `cue`."""
    asked = "ask" in model.capabilities and model.inputs == (kind,)
    return asked and bool(model.cues) and all(isinstance(each, cue) for each in model.cues)


def check_kinds(model: PretextModel, labelled: LabelledSet) -> None:
    """Raises `ValueError` for a labelled set without one of the kinds of data from which answers are made."""
    if missing := [kind for kind in model.inputs if kind not in labelled.inputs.by_name]:
        raise ValueError(
            f"its answers are made from {missing[0]}, for which the checkpoint has no processor. Audit them within the "
            "run (--audit)"
        )


def by_name(question: str) -> dict[str, str]:
    """Returns the argument of `ask` and `answer` for a question; none for the one without a name."""
    return {"question": question} if question else {}


def questions(
    model: PretextModel, batches: Iterable[Batch], split: str, device: torch.device, name: str = ""
) -> Iterator[Question]:
    """Yields the questions of the batches of a split, always the same ones. name: of the question, of several.

    Each batch has draws of its own. With the same ones, the place of an example in its batch, which may go with its
    class, would reveal the answer."""
    try:
        for number, batch in enumerate(batches):
            model.eval_seed = 1 + SPLITS.index(split) + len(SPLITS) * number
            yield model.ask(**by_name(name), **{column: value.to(device) for column, value in batch.items()})
    finally:
        model.__dict__.pop("eval_seed", None)  # no batch may have come


def task_audit(model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu") -> TaskAudit | None:
    """Returns the audit of the pretext task of a model, with the model on a device; None if no sort of task fits."""
    for file in registry.names("audit"):
        audit = getattr(registry.find("audit", file), "TASK_AUDIT", None)
        if audit is not None and audit.fits(model):
            return audit(model, labelled, device)
    return None
