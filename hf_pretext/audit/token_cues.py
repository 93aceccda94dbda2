"""Audit of tasks that ask about tokens of texts: masked language modelling, next token, replaced token detection.

model with `ask` and `answer`, labelled set -> see `TaskAudit`

Readers of tokens count in the train texts, unchanged, and see of test what the model sees: neighbours that are masked
too are hidden from both. Readers of classes of tokens (replaced or not) count in train texts as the model sees them.
Bits are those over the frequency of the answers in train, so that this frequency itself has 0. All that is measured is
of texts spread evenly over a split, up to `TOKENS` tokens.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.cues import Question
from ..modules.masking import IGNORED, positions_of, without_special
from ..modules.packing import present_tokens
from ..modules.token_cues import TokenCue, exchanged, tokens_at
from .class_cues import SEED, partners, share
from .counted import answers_over, sufficient
from .readers import log_marginal
from .task import CONFLICT, WITHOUT, TaskAudit, asks, in_evaluation, questions, spaced

TOKENS = 2**15  # most tokens of the texts of a split on which answers are measured, masked or not
COUNTED = 2**23  # most tokens of train that are counted
ASKED = 2**19  # the same, of classes of tokens, which a model may have to make
SPACING, WIDEST = 64, 4  # one of this many tokens has an exchanged cue; so many at the end of each such part never have
FREQUENCY = "frequency of tokens"  # of train: the base, which has 0 bits
CLASS_FREQUENCY = "frequency of answers"  # the same, of classes of tokens
BUCKETS = 4  # of positions, for each doubling

Columns = dict[int | None, np.ndarray]  # place -> tokens at this place relative to some tokens, (n,); None: buckets


class TokenCues(TaskAudit):
    """Audits the answers of a model that predicts tokens of texts, or classes of them (`token_classes`)."""

    unit = "token"

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        super().__init__(model, labelled, device)
        self.vocabulary = model.config.vocab_size
        self.classes = model.token_classes or self.vocabulary

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return asks(model, "text", TokenCue)

    @in_evaluation
    def sufficiency(self) -> dict[str, dict]:
        """See `TaskAudit` and `counted.sufficient`."""
        columns = {"train": self._of_train(), **{split: self._asked(split) for split in SPLITS[1:]}}
        cues = [
            (cue.name, role, {split: (chosen(some, cue), right) for split, (some, right) in columns.items()})
            for cue, role in self.roles.items()
        ]
        return sufficient(CLASS_FREQUENCY if self.model.token_classes else FREQUENCY, cues, np.exp(self.base))

    @in_evaluation
    def answers(self) -> dict[str, float]:
        return answers_over(self.base, self.model, self._questions)

    @in_evaluation
    def reliance(self) -> dict[str, dict[str, float]]:
        """See `TaskAudit`. The cue is that of another asked token, and is exchanged for one of `SPACING` tokens."""
        cues = [cue for cue in self.roles if cue.places]
        without, conflict = ({cue.name: [] for cue in cues} for _ in range(2))
        for number, question in enumerate(self._questions("test")):
            generator = torch.Generator().manual_seed(SEED + number)
            asked = sparse(question.labels.cpu() != IGNORED, generator).to(self.device)
            where = positions_of(asked)
            labels = question.labels[where].cpu()
            if len(labels) < 2:  # no other token to exchange with
                continue
            others, _ = partners(labels, generator)
            differing = labels[others] != labels
            for cue in cues:
                predicted = self._predicted(cue, question, asked, others)
                without[cue.name].append(predicted == labels)
                conflict[cue.name].append((predicted == labels[others])[differing])
        return {name: {WITHOUT: share(without[name]), CONFLICT: share(conflict[name])} for name in without}

    # texts

    def _batches(self, split: str, most: int) -> Iterator[Batch]:
        """Yields batches of texts that are spread evenly over a split and have about `most` tokens together."""
        lengths = [len(one["input_ids"]) for one in self.labelled.pretext_batches(split).encoded]
        rows = max(most * len(lengths) // sum(lengths), 1)
        yield from spaced(self.labelled, split, rows).pretext_batches(split)

    def _questions(self, split: str, most: int = TOKENS) -> Iterator[Question]:
        """Yields the questions of some batches of a split, of about `most` tokens together."""
        return questions(self.model, self._batches(split, most), split, self.device)

    @cached_property
    def base(self) -> np.ndarray:
        """Log-probabilities of the answers by their frequency in train, `(classes,)`."""
        return log_marginal(self._of_train(places=())[1], self.classes)

    def _of_train(self, places: tuple[int, ...] | None = None) -> tuple[Columns, np.ndarray]:
        """Returns the columns of the tokens of train that may be asked, and the right answers, `(n,)`."""
        special = getattr(self.model.task, "special_token_ids", None)
        if self.model.token_classes:
            return self._asked("train", ASKED, places)
        if special is None:  # next tokens: all but the first ones of the texts are asked, in unchanged texts
            return self._asked("train", COUNTED, places)
        parts = []
        for batch in self._batches("train", COUNTED):
            ids, mask = (batch[name].to(self.device) for name in ("input_ids", "attention_mask"))
            present = present_tokens(ids, mask)
            where = positions_of(without_special(ids, present, special))
            parts.append((self._columns(ids, present, where, places), ids[where].cpu().numpy()))
        return joined(parts)

    def _asked(
        self, split: str, most: int = TOKENS, places: tuple[int, ...] | None = None
    ) -> tuple[Columns, np.ndarray]:
        """Returns the columns of the asked tokens of a split, as the model sees the texts, and the right answers."""
        parts = []
        for question in self._questions(split, most):
            ids, where = question.inputs["input_ids"], positions_of(question.labels != IGNORED)
            present = present_tokens(ids, question.inputs["attention_mask"])
            parts.append((self._columns(ids, present, where, places), question.labels[where].cpu().numpy()))
        return joined(parts)

    def _columns(
        self, ids: Tensor, present: Tensor, where: tuple[Tensor, Tensor], places: tuple[int, ...] | None = None
    ) -> Columns:
        """Returns what stands at some places relative to tokens, by default those of all cues. The id beyond the ends
        of a text is the size of the vocabulary."""
        edge = self.vocabulary
        ids = ids.masked_fill(~present, edge)
        wanted = {place for cue in self.roles for place in cue.places} if places is None else places
        columns = {place: tokens_at(ids, place, edge)[where].cpu().numpy() for place in wanted}
        position = (present.cumsum(1) - 1)[where].cpu().numpy()
        return {**columns, None: buckets(position)}

    def _predicted(self, cue: TokenCue, question: Question, asked: Tensor, others: Tensor) -> Tensor:
        """Returns what the model predicts for asked tokens, `(M,)`, with the cues of others, `(M,)`."""
        ids, where = question.inputs["input_ids"], positions_of(asked)
        present = present_tokens(ids, question.inputs["attention_mask"])
        changed = exchanged(ids, present, where, others.to(ids.device), cue.places)
        return self.model.answer(asked=asked, **{**question.inputs, "input_ids": changed}).argmax(1).cpu()


def chosen(columns: Columns, cue: TokenCue) -> list[np.ndarray]:
    """Returns the one or two contexts of a cue."""
    return [columns[place] for place in cue.places or (None,)]


def joined(parts: list[tuple[Columns, np.ndarray]]) -> tuple[Columns, np.ndarray]:
    """Joins the columns and the tokens of batches."""
    columns = {name: np.concatenate([some[name] for some, _ in parts]) for name in parts[0][0]}
    return columns, np.concatenate([tokens for _, tokens in parts])


def buckets(positions: np.ndarray) -> np.ndarray:
    """Returns numbers of buckets of positions, `(n,)`: one for each of the first `2 * BUCKETS`, then `BUCKETS` for each
    doubling."""
    exact = 2 * BUCKETS
    wide = exact + np.floor(BUCKETS * np.log2(np.maximum(positions, exact) / exact)).astype(np.int64)
    return np.where(positions < exact, positions, wide)


def sparse(asked: Tensor, generator: torch.Generator) -> Tensor:
    """Draws one asked token from each `SPACING` columns of a row, far from those of the next ones: `(B, L)`, bool."""
    rows, length = asked.shape
    parts = -(-length // SPACING)
    wide = torch.nn.functional.pad(asked, (0, parts * SPACING - length)).view(rows, parts, SPACING)
    draws = torch.rand(wide.shape, generator=generator).masked_fill(~wide, -1)
    draws[..., SPACING - WIDEST :] = -1
    best = draws.max(2, keepdim=True)
    drawn = torch.zeros_like(wide).scatter_(2, best.indices, best.values >= 0)
    return drawn.view(rows, -1)[:, :length]


TASK_AUDIT = TokenCues
