"""Audit of tasks that ask about the tokens of texts with films: the words and the visual words of VideoBERT.

model with `ask` and `answer`, labelled set -> see `TaskAudit`

Each kind of token is a question of its own, as their frequencies differ. The words of films are those of one model:
readers read those of the first trained one. A random model has no visual words, and no answers.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch

from ..evaluation.labelled_set import LabelledSet
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.token_cues import TokenCue
from .clip_classes import ClipCues
from .task import check_kinds, spaced
from .token_cues import TokenCues

FILMS = "video"


class FilmTokens(TokenCues):
    """Audits the answers of a model about the tokens of texts and films. The visual words of a split are computed once,
    and kept."""

    most: ClassVar[Mapping[str, int]] = ClipCues.most
    same_for_all = False  # each model has visual words of its own

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        """Raises `ValueError` as `check_kinds` does."""
        check_kinds(model, labelled)
        super().__init__(model, labelled, device)
        self.condensed: dict[str, list[Batch]] = {}

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        tokens = all(isinstance(cue, TokenCue) for cue in model.cues)
        asked = {"ask", "condense"} <= {*model.capabilities} and {*model.inputs} == {"text", FILMS}
        return asked and tokens and bool(model.questions)

    def _batches(self, split: str, most: int) -> Iterator[Batch]:
        """Yields batches of films, as visual words, and their texts; `most` has no effect."""
        if split not in self.condensed:
            some = spaced(self.labelled, split, self.most[split])
            self.condensed[split] = [self._condense(batch) for batch in some.joined_batches(split)]
        yield from self.condensed[split]

    def _condense(self, batch: Batch) -> Batch:
        batch = {name: values.to(self.device) for name, values in batch.items()}
        words = self.model.condense(FILMS, **batch)
        return {name: values.cpu() for name, values in {**batch, **words}.items() if values.ndim < 5}


TASK_AUDIT = FilmTokens
