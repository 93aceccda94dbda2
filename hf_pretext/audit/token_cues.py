"""Audit of tasks that ask about tokens of texts: masked language modelling, next token, replaced token detection.

model with `ask` and `answer`, labelled set -> see `TaskAudit`

Readers of tokens count in the train texts, unchanged, and see of test what the model sees: neighbours that are masked
too are hidden from both. Readers of classes of tokens (replaced or not) count in train texts as the model sees them.
Bits are those over the frequency of the answers in train, so that this frequency itself has 0. All that is measured is
of texts spread evenly over a split, up to `TOKENS` tokens.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..evaluation.captioning import evenly
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.cues import Question
from ..modules.losses import rows_of_a_tile, widened
from ..modules.masking import IGNORED, positions_of, without_special
from ..modules.packing import present_tokens
from ..modules.token_cues import TokenCue, exchanged, tokens_at
from .class_cues import SEED, SHUFFLED, partners, share
from .counts import CountReader
from .readers import floored, log_marginal, one_thread
from .task import (
    ACCURACY,
    BITS,
    CONFLICT,
    CONTROL,
    CUE,
    ENTROPY,
    OVERFITTING,
    WITHOUT,
    TaskAudit,
    in_evaluation,
    questions,
)

TOKENS = 2**15  # most tokens of the texts of a split on which answers are measured, masked or not
COUNTED = 2**23  # most tokens of train that are counted
ASKED = 2**19  # the same, of classes of tokens, which a model may have to make
SPACING, WIDEST = 64, 4  # one of this many tokens has an exchanged cue; so many at the end of each such part never have
FREQUENCY = "frequency of tokens"  # of train: the base, which has 0 bits
CLASS_FREQUENCY = "frequency of answers"  # the same, of classes of tokens
BUCKETS = 4  # of positions, for each doubling
SHARPNESS = (0.0, *np.geomspace(0.25, 2, 13).tolist())  # 1 / temperature; 0 is the base

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
        return "ask" in model.capabilities and model.inputs == ("text",)

    @in_evaluation
    def sufficiency(self) -> dict[str, dict]:
        """See `TaskAudit`. Counts need no seed: there is one value of each. The frequency of the answers is the
        base; the first cue of another token is a control."""
        train, answers = self._asked("train", ASKED) if self.model.token_classes else self._counted()
        asked = {split: self._asked(split) for split in SPLITS[1:]}
        prior = np.exp(self.base)
        accuracy = float((asked["test"][1] == prior.argmax()).mean())
        frequency = CLASS_FREQUENCY if self.model.token_classes else FREQUENCY
        results = {frequency: {"role": CUE, BITS: [0.0], ACCURACY: [accuracy]}}
        for number, (cue, role) in enumerate(self.roles.items()):
            reader = CountReader(chosen(train, cue), answers, prior)
            given = {split: (chosen(columns, cue), right) for split, (columns, right) in asked.items()}
            results[cue.name] = {"role": role, **measured(reader, given)}
            if not number:
                given = {split: (reordered(contexts), right) for split, (contexts, right) in given.items()}
                results[SHUFFLED] = {"role": CONTROL, **measured(reader, given)}
        return results

    @in_evaluation
    def answers(self) -> dict[str, float]:
        """See `TaskAudit`. Accuracy does not depend on the temperature."""
        best = int(self._answered("validation", SHARPNESS)[BITS].argmax())
        train, test = (self._answered(split, SHARPNESS[best : best + 1]) for split in ("train", "test"))
        return {
            BITS: float(test[BITS][0]),
            ACCURACY: test[ACCURACY],
            ENTROPY: test[ENTROPY],
            OVERFITTING: float(train[BITS][0] - test[BITS][0]),
        }

    @in_evaluation
    def reliance(self) -> dict[str, dict[str, float]]:
        """See `TaskAudit`. The cue is that of another asked token, and is exchanged for one of `SPACING` tokens."""
        cues = [cue for cue in self.roles if cue.places]
        without, conflict = ({cue.name: [] for cue in cues} for _ in range(2))
        for number, question in enumerate(self._questions("test")):
            generator = torch.Generator().manual_seed(SEED + number)
            asked = spaced(question.labels.cpu() != IGNORED, generator).to(self.device)
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
        rows = evenly(len(lengths), max(most * len(lengths) // sum(lengths), 1))
        yield from self.labelled.reordered(split, rows).pretext_batches(split)

    def _questions(self, split: str, most: int = TOKENS) -> Iterator[Question]:
        """Yields the questions of some batches of a split, of about `most` tokens together."""
        return questions(self.model, self._batches(split, most), split, self.device)

    @cached_property
    def base(self) -> np.ndarray:
        """Log-probabilities of the answers by their frequency in train, `(classes,)`."""
        answers = self._asked("train")[1] if self.model.token_classes else self._counted(places=())[1]
        return log_marginal(answers, self.classes)

    def _counted(self, places: tuple[int, ...] | None = None) -> tuple[Columns, np.ndarray]:
        """Returns the columns of the tokens of train that may be asked, and these tokens, `(n,)`."""
        special = getattr(self.model.task, "special_token_ids", None)  # next tokens have none
        parts = []
        for batch in self._batches("train", COUNTED):
            ids, mask = (batch[name].to(self.device) for name in ("input_ids", "attention_mask"))
            present = present_tokens(ids, mask)
            where = positions_of(without_special(ids, present, special))
            parts.append((self._columns(ids, present, where, places), ids[where].cpu().numpy()))
        return joined(parts)

    def _asked(self, split: str, most: int = TOKENS) -> tuple[Columns, np.ndarray]:
        """Returns the columns of the asked tokens of a split, as the model sees the texts, and the right answers."""
        parts = []
        for question in self._questions(split, most):
            ids, where = question.inputs["input_ids"], positions_of(question.labels != IGNORED)
            present = present_tokens(ids, question.inputs["attention_mask"])
            parts.append((self._columns(ids, present, where), question.labels[where].cpu().numpy()))
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

    # answers of the model

    def _answered(self, split: str, sharpness: tuple[float, ...]) -> dict:
        """Returns the bits of the right tokens over the base, at each sharpness, `(len(sharpness),)`; accuracy; and
        entropy. Logits are in memory for one batch."""
        sums, right, entropy, count = np.zeros(len(sharpness)), 0, 0.0, 0
        base = torch.from_numpy(self.base).float().to(self.device)
        for question in self._questions(split):
            asked = question.labels != IGNORED
            labels = question.labels[positions_of(asked)]
            logits = self.model.answer(asked=asked, **question.inputs)
            rows = rows_of_a_tile(logits, self.classes)
            for tile, some in zip(logits.split(rows), labels.split(rows), strict=True):
                of_base = self.base[some.cpu().numpy()]
                scores = log_probabilities(widened(tile), some, base, sharpness).double().cpu().numpy()
                sums += (floored(scores, of_base[:, None]) - of_base[:, None]).sum(0)
                entropy -= of_base.sum()
                right += int((tile.argmax(1) == some).sum())
            count += len(labels)
        return {
            BITS: sums / count / math.log(2),
            ACCURACY: right / count,
            ENTROPY: float(entropy) / count / math.log(2),
        }

    def _predicted(self, cue: TokenCue, question: Question, asked: Tensor, others: Tensor) -> Tensor:
        """Returns what the model predicts for asked tokens, `(M,)`, with the cues of others, `(M,)`."""
        ids, where = question.inputs["input_ids"], positions_of(asked)
        present = present_tokens(ids, question.inputs["attention_mask"])
        changed = exchanged(ids, present, where, others.to(ids.device), cue.places)
        return self.model.answer(asked=asked, **{**question.inputs, "input_ids": changed}).argmax(1).cpu()


def measured(reader: CountReader, given: dict[str, tuple[list[np.ndarray], np.ndarray]]) -> dict[str, list[float]]:
    """Fits a reader on validation. Returns its bits and accuracy on test. given: contexts and tokens by split."""
    with one_thread():
        reader.fit(*given["validation"])
        bits, right = reader.bits(*given["test"])
    return {BITS: [float(bits.mean())], ACCURACY: [float(right.mean())]}


def chosen(columns: Columns, cue: TokenCue) -> list[np.ndarray]:
    """Returns the one or two contexts of a cue."""
    return [columns[place] for place in cue.places or (None,)]


def reordered(contexts: list[np.ndarray]) -> list[np.ndarray]:
    """Returns contexts `(n,)` in a random order, the same for all."""
    order = np.random.default_rng(SEED).permutation(len(contexts[0]))
    return [one[order] for one in contexts]


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


def spaced(asked: Tensor, generator: torch.Generator) -> Tensor:
    """Draws one asked token from each `SPACING` columns of a row, far from those of the next ones: `(B, L)`, bool."""
    rows, length = asked.shape
    parts = -(-length // SPACING)
    wide = torch.nn.functional.pad(asked, (0, parts * SPACING - length)).view(rows, parts, SPACING)
    draws = torch.rand(wide.shape, generator=generator).masked_fill(~wide, -1)
    draws[..., SPACING - WIDEST :] = -1
    best = draws.max(2, keepdim=True)
    drawn = torch.zeros_like(wide).scatter_(2, best.indices, best.values >= 0)
    return drawn.view(rows, -1)[:, :length]


def log_probabilities(logits: Tensor, labels: Tensor, base: Tensor, sharpness: tuple[float, ...]) -> Tensor:
    """Returns log-probabilities of labels `(M,)` at each sharpness, `(M, len(sharpness))`. Sharpness scales what the
    logits `(M, vocabulary)` say beyond the base, as in `readers.calibrated`."""
    results = []
    for scale in sharpness:
        scores = base + scale * (logits - base)
        results.append(scores.gather(1, labels[:, None])[:, 0] - scores.logsumexp(1))
    return torch.stack(results, dim=1)


TASK_AUDIT = TokenCues
