"""Audit of tasks that ask about tokens of texts: masked language modelling, next token, replaced token detection.

model with `ask` and `answer`, labelled set -> see `TaskAudit`

Readers of tokens count in the train texts, unchanged, and see of test what the model sees: neighbours that are masked
too are hidden from both. Readers of classes of tokens (replaced or not) count in train texts as the model sees them.
Bits are those over the frequency of the answers in train, so that this frequency itself has 0. All that is measured is
of texts spread evenly over a split, up to `TOKENS` tokens.
"""

from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.cues import Question
from ..modules.masking import IGNORED, positions_of
from ..modules.packing import present_tokens
from ..modules.token_cues import TokenCue, exchanged, tokens_at
from .by_question import ByQuestion
from .class_cues import SEED, partners, share
from .counted import answers_over, sufficient
from .counts import frequencies
from .task import CONFLICT, WITHOUT, asks, by_name, questions, spaced

TOKENS = 2**15  # most tokens of the texts of a split on which answers are measured, masked or not
COUNTED = 2**23  # most tokens of train that are counted
ASKED = 2**19  # the same, of classes of tokens, which a model may have to make
SPACING, WIDEST = 64, 4  # one of this many tokens has an exchanged cue; so many at the end of each such part never have
FREQUENCY = "frequency of tokens"  # of train: the base, which has 0 bits
CLASS_FREQUENCY = "frequency of answers"  # the same, of classes of tokens
BUCKETS = 4  # of positions, for each doubling

Columns = dict[int | None, np.ndarray]  # place -> tokens at this place relative to some tokens, (n,); None: buckets


class TokenCues(ByQuestion):
    """Audits the answers of a model that predicts tokens of texts, or classes of them (`token_classes`)."""

    unit = "token"
    same_for_all = True  # whether other weights, of the same settings, ask the same

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        super().__init__(model, labelled, device)
        self.vocabulary = model.config.vocab_size
        self.classes = model.token_classes or self.vocabulary
        self.same_for_all = self.same_for_all and model.token_classes is None
        self._base = cache(self._log_frequencies)

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return asks(model, "text", TokenCue)

    def _sufficiency(self, question: str) -> dict[str, dict]:
        """See `TaskAudit` and `counted.sufficient`."""
        columns = {"train": self._of_train(question), **{split: self._asked(split, question) for split in SPLITS[1:]}}
        cues = [
            (cue.name, role, {split: (chosen(some, cue), right) for split, (some, right) in columns.items()})
            for cue, role in self.roles.items()
        ]
        frequency = CLASS_FREQUENCY if self.model.token_classes else FREQUENCY
        return sufficient(frequency, cues, np.exp(self._base(question)))

    def _answers(self, question: str) -> dict[str, float]:
        answer = partial(self.model.answer, **by_name(question))
        return answers_over(self._base(question), answer, partial(self._questions, name=question))

    def _reliance(self, question: str) -> dict[str, dict[str, float]]:
        """See `TaskAudit`. The cue is that of another asked token, and is exchanged for one of `SPACING` tokens."""
        cues = [cue for cue in self.roles if cue.places]
        without, conflict = ({cue.name: [] for cue in cues} for _ in range(2))
        for number, given in enumerate(self._questions("test", name=question)):
            generator = torch.Generator().manual_seed(SEED + number)
            asked = sparse(given.labels.cpu() != IGNORED, generator).to(self.device)
            labels = given.labels[positions_of(asked)].cpu()
            if len(labels) < 2:  # no other token to exchange with
                continue
            others, _ = partners(labels, generator)
            differing = labels[others] != labels
            for cue in cues:
                predicted = self._predicted(cue, question, given, asked, others)
                without[cue.name].append(predicted == labels)
                conflict[cue.name].append((predicted == labels[others])[differing])
        return {name: {WITHOUT: share(without[name]), CONFLICT: share(conflict[name])} for name in without}

    # texts

    def _batches(self, split: str, most: int) -> Iterator[Batch]:
        """Yields batches of texts that are spread evenly over a split and have about `most` tokens together."""
        lengths = [len(one["input_ids"]) for one in self.labelled.pretext_batches(split).encoded]
        rows = max(most * len(lengths) // sum(lengths), 1)
        yield from spaced(self.labelled, split, rows).pretext_batches(split)

    def _questions(self, split: str, most: int = TOKENS, name: str = "") -> Iterator[Question]:
        """Yields the questions of some batches of a split, of about `most` tokens together. name: of the question, of
        several."""
        return questions(self.model, self._batches(split, most), split, self.device, name)

    def _log_frequencies(self, question: str) -> np.ndarray:
        """Returns log-probabilities of the answers by their frequency in train, `(classes,)`."""
        key = ("frequencies", question)
        if key in self.shared:
            return self.shared[key]
        _, answers = self._of_train(question, places=())
        result = np.log(frequencies(np.bincount(answers, minlength=self.classes)))
        if self.same_for_all:
            self.shared[key] = result
        return result

    def _of_train(self, question: str, places: tuple[int, ...] | None = None) -> tuple[Columns, np.ndarray]:
        """Returns the columns of the tokens of train that may be asked, and the right answers, `(n,)`."""
        most = ASKED if self.model.token_classes else COUNTED
        return joined(
            [
                self._columns(*(given.unmasked or (given.inputs["input_ids"], given.labels)), given, places)
                for given in self._questions("train", most, question)
            ]
        )

    def _asked(self, split: str, question: str) -> tuple[Columns, np.ndarray]:
        """Returns the columns of the asked tokens of a split, as the model sees the texts, and the right answers."""
        return joined(
            [
                self._columns(given.inputs["input_ids"], given.labels, given)
                for given in self._questions(split, name=question)
            ]
        )

    def _columns(
        self, ids: Tensor, labels: Tensor, given: Question, places: tuple[int, ...] | None = None
    ) -> tuple[Columns, np.ndarray]:
        """Returns what stands at some places relative to the tokens that have labels, by default those of all cues, and
        the labels. ids, labels: `(B, L)`. The id beyond the ends of a text is the size of the vocabulary."""
        edge, where = self.vocabulary, positions_of(labels != IGNORED)
        present = present_tokens(ids, given.inputs["attention_mask"])
        ids = ids.masked_fill(~present, edge)
        wanted = {place for cue in self.roles for place in cue.places} if places is None else places
        columns = {place: tokens_at(ids, place, edge)[where].cpu().numpy() for place in wanted}
        position = (present.cumsum(1) - 1)[where].cpu().numpy()
        return {**columns, None: buckets(position)}, labels[where].cpu().numpy()

    def _predicted(self, cue: TokenCue, question: str, given: Question, asked: Tensor, others: Tensor) -> Tensor:
        """Returns what the model predicts for asked tokens, `(M,)`, with the cues of others, `(M,)`."""
        ids, where = given.inputs["input_ids"], positions_of(asked)
        present = present_tokens(ids, given.inputs["attention_mask"])
        changed = exchanged(ids, present, where, others.to(ids.device), cue.places)
        inputs = {**given.inputs, "input_ids": changed}
        return self.model.answer(**by_name(question), asked=asked, **inputs).argmax(1).cpu()


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
