"""Audit of tasks that ask about the cells of a grid over images: colorization.

model with `ask` and `answer`, labelled set -> see `TaskAudit`

Bits are over the frequency of the answers in the cells of train, which has 0 bits. Readers count in up to `COUNTED`
cells of train; all else is of up to `CELLS` cells of each split. Cells are drawn from all images of a split that is not
too large, always the same ones.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS
from ..modeling import PretextModel
from ..modules.cell_cues import CellCue
from ..modules.cues import Question
from ..modules.masking import IGNORED, positions_of
from .class_cues import SEED, partners, share
from .counted import answers_over, sufficient
from .counts import Contexts, frequencies
from .example_task import ExampleTask
from .task import CONFLICT, WITHOUT, asks, in_evaluation, spaced

MOST = {"train": 1000, "validation": 1000, "test": 1000}  # images, evenly spaced
CELLS = 2**15
COUNTED_IMAGES, COUNTED = 4000, 2**20  # of train, and cells of them
EXCHANGED = 4  # cells of an image whose cues are exchanged at a time
FREQUENCY = "frequency of answers"  # of train: the base, which has 0 bits


class CellCues(ExampleTask):
    """Audits the answers of a model that predicts a class of each cell of images. Cells of an image are alike, so that
    its metrics are as reliable as their number of images, not of cells."""

    unit, most = "cell", MOST

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        super().__init__(model, labelled, device)
        self.counted = spaced(labelled, "train", COUNTED_IMAGES)

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return asks(model, "image", CellCue)

    @in_evaluation
    def sufficiency(self) -> dict[str, dict]:
        """See `TaskAudit` and `counted.sufficient`."""
        read = {"train": self._read(self._counted()), **{s: self._read(self._some(s)) for s in SPLITS[1:]}}
        cues = [
            (cue.name, role, {split: (contexts[cue.name], right) for split, (contexts, right) in read.items()})
            for cue, role in self.roles.items()
        ]
        return sufficient(FREQUENCY, cues, np.exp(self.base), independent=len(self.sets["test"].rows("test")))

    @in_evaluation
    def answers(self) -> dict[str, float]:
        return answers_over(self.base, self.model.answer, self._some)

    @in_evaluation
    def reliance(self) -> dict[str, dict[str, float]]:
        """See `TaskAudit`. Images have the cue of another image, in `EXCHANGED` cells if it is one of cells. The
        answers in these cells are compared with those of the same cells of the other image."""
        cues = [cue for cue in self.roles if cue.exchanged is not None]
        without, conflict = ({cue.name: [] for cue in cues} for _ in range(2))
        for number, question in enumerate(self._questions("test")):
            count = len(question.labels)
            if count < 2:  # no other image to exchange with
                continue
            generator = torch.Generator().manual_seed(SEED + number)
            others, _ = partners(torch.arange(count), generator)
            cells = drawn(question.labels, generator)
            where = positions_of(cells)
            right, of_others = (labels[where].cpu() for labels in (question.labels, question.labels[others]))
            for cue in cues:
                predicted = self._predicted(cue, question, others, cells)
                without[cue.name].append(predicted == right)
                conflict[cue.name].append((predicted == of_others)[right != of_others])
        return {name: {WITHOUT: share(without[name]), CONFLICT: share(conflict[name])} for name in without}

    def _predicted(self, cue: CellCue, question: Question, others: Tensor, cells: Tensor) -> Tensor:
        """Returns what the model predicts for cells (`(N, g, g)`, bool) with the cue of other images, `(M,)`."""
        pixels = self._pixels(question)
        changed = self._with_pixels(question, cue.exchanged(pixels, pixels[others.to(self.device)], cells))
        return self.model.answer(asked=cells, **changed.inputs).argmax(1).cpu()

    def _counted(self) -> Iterator[Question]:
        """Yields questions about the cells of train that are counted."""
        return some_of(self._questions("train", self.counted), len(self.counted.rows("train")), COUNTED)

    def _some(self, split: str) -> Iterator[Question]:
        """Yields questions about the cells of a split on which answers are measured."""
        return some_of(self._questions(split), len(self.sets[split].rows(split)), CELLS)

    def _read(self, questions: Iterator[Question]) -> tuple[dict[str, Contexts], np.ndarray]:
        """Returns the contexts of each cue in the cells that are asked, and the right answers, `(n,)` each."""
        contexts, right = {cue.name: [] for cue in self.roles}, []
        for question in questions:
            where = positions_of(question.labels != IGNORED)
            pixels, side = self._pixels(question), question.labels.shape[1]
            right.append(question.labels[where].cpu().numpy())
            for cue in self.roles:
                contexts[cue.name].append([values[where].cpu().numpy() for values in cue.read(pixels, side)])
        joined = {name: [np.concatenate(one) for one in zip(*parts, strict=True)] for name, parts in contexts.items()}
        return joined, np.concatenate(right)

    @cached_property
    def base(self) -> np.ndarray:
        """Log-probabilities of the answers by their frequency in train, `(classes,)`."""
        counts = 0
        for question in self._counted():
            right = question.labels[positions_of(question.labels != IGNORED)]
            counts = counts + right.bincount(minlength=question.classes).cpu().numpy()
        return np.log(frequencies(counts))


def some_of(questions: Iterator[Question], images: int, most: int) -> Iterator[Question]:
    """Yields questions about a random part of the cells, about `most` of those of all images."""
    for number, question in enumerate(questions):
        draws = torch.rand(question.labels.shape, generator=torch.Generator().manual_seed(SEED + number))
        left_out = draws * images * question.labels[0].numel() > most
        yield question._replace(labels=question.labels.masked_fill(left_out.to(question.labels.device), IGNORED))


def drawn(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draws `EXCHANGED` cells of each image, or all if there are fewer. labels: `(N, g, g)`. Returns `(N, g, g)`,
    bool."""
    draws = torch.rand(labels.flatten(1).shape, generator=generator)
    chosen = draws.topk(min(EXCHANGED, draws.shape[1])).indices
    return torch.zeros(draws.shape, dtype=torch.bool).scatter_(1, chosen, True).view(labels.shape).to(labels.device)


TASK_AUDIT = CellCues
