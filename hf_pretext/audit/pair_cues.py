"""Audit of pairs: by what does a model predict which caption belongs to an image, or which sound to a film?

model with `embed`, labelled set -> cosines of all pairs of a split (N, N) -> see `TaskAudit`

One answer is which of the N candidates of a split belongs to a query, in both directions. A model that also has `match`
is audited by its cosines. The two kinds of data are read by a small network each (see `pair_reader`): the kind with the
cue by the cue alone, a text by its words, and any other kind by all of its cues together.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from ..data.captions import normalised
from ..data.limits import BadSample
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.matching import drawn_apart
from ..evaluation.measure import Subject, places_among
from ..evaluation.retrieval import ordered
from ..evaluation.transfer import SPLITS
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.cues import FILE, Cue
from .class_cues import SEED, SEEDS, SHUFFLED, shuffled
from .decoded import check_waves, values_of, with_values
from .information import pair_information
from .pair_reader import pair_reader
from .readers import Splits
from .task import (
    ACCURACY,
    ALL,
    BITS,
    CONFLICT,
    CONTROL,
    CUE,
    ENTROPY,
    OVERFITTING,
    WITHOUT,
    TaskAudit,
    in_evaluation,
    spaced,
)

TOGETHER = "all cues together"
log = logging.get_logger(__name__)


class PairCues(TaskAudit):
    """Audits the answers of a model that embeds two kinds of data in one space.

    accuracy: R@1, the mean of both directions; pairs with the same caption are all right. At most `most` pairs of
    validation and of test, evenly spaced, are the candidates. `conflict` compares the two answers alone: it is 0.5 for
    a random model, and below for one that the cue does not mislead."""

    unit = "pair"
    most: ClassVar[int] = 1000  # pairs of validation and of test: all are candidates of each other
    most_read: ClassVar[int] = 4000  # pairs of train, which readers get

    def __init__(self, model: PretextModel, labelled: LabelledSet, device: torch.device | str = "cpu"):
        """Raises `ValueError` for test pairs that all have the same caption, and for sounds whose waves are not known
        since a feature extractor runs in the workers."""
        super().__init__(model, labelled, device)
        self.kinds = ordered(model)
        check_waves([labelled.inputs.by_name[kind] for kind in self.kinds])
        most = {"train": self.most_read, "validation": self.most, "test": self.most}
        self.sets = {split: spaced(labelled, split, count) for split, count in most.items()}
        self.seen = spaced(labelled, "train", len(self.sets["test"]))
        self.groups = {split: groups_of(some, split, self.kinds) for split, some in self.sets.items()}
        if len(set(self.groups["test"])) < 2:
            raise ValueError("All test pairs have the same caption: there is nothing to answer. Give other captions.")
        self.roles = {cue: role for cue, role in self.roles.items() if cue.kind in (*self.kinds, FILE)}

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return "embed" in model.capabilities and len(model.inputs) == 2 and bool(model.cues)

    # answers

    @in_evaluation
    def answers(self) -> dict[str, float]:
        """See `TaskAudit`. `overfitting` compares with as many pairs of train, if it has so many."""
        read = pair_information(self._validation, self._scores(self.sets["test"], "test"), self.groups)
        groups = {"validation": self.groups["validation"], "test": groups_of(self.seen, "train", self.kinds)}
        on_train = pair_information(self._validation, self._scores(self.seen, "train"), groups)
        return {
            BITS: read.bits,
            ACCURACY: read.accuracy,
            ENTROPY: read.entropy,
            OVERFITTING: on_train.bits - read.bits,
        }

    @in_evaluation
    def reliance(self) -> dict[str, dict[str, float]]:
        """See `TaskAudit`. One kind of data of all test pairs has the cue of other pairs."""
        groups, subject, results = self.groups["test"], self._subject(self.sets["test"]), {}
        (anyone, differing), rows = other_pairs(groups), np.arange(len(groups))
        for cue in self.roles:
            if cue.exchanged is None:
                continue
            of_anyone, of_differing = (self._exchanged_scores(subject, cue, others) for others in (anyone, differing))
            results[cue.name] = {
                WITHOUT: pair_information(self._validation, of_anyone, self.groups).accuracy,
                CONFLICT: float((of_differing[rows, differing] > of_differing[rows, rows]).mean()),
            }
        return results

    @cached_property
    def _validation(self) -> np.ndarray:
        return self._scores(self.sets["validation"], "validation")

    def _subject(self, labelled: LabelledSet) -> Subject:
        return Subject(self.model, labelled, self.device)

    def _scores(self, labelled: LabelledSet, split: str) -> np.ndarray:
        """Returns the scores of all pairs of a split, `(N, N)`: the cosines."""
        subject = self._subject(labelled)
        first, second = (self._embeddings(subject, kind, split) for kind in self.kinds)
        return (first @ second.T).numpy()

    def _embeddings(self, subject: Subject, kind: str, split: str) -> Tensor:
        """Returns the embeddings of one kind of data of a split, `(N, D)`; of texts, those of the captions."""
        if kind != "text":
            return subject.embeddings(kind, split)
        captions, embeddings = subject.caption_embeddings(split)
        return embeddings[places_among(captions, subject.labelled.captions(split))]

    def _exchanged_scores(self, subject: Subject, cue: Cue, others: np.ndarray) -> np.ndarray:
        """Returns the scores of test examples that have the cue of others with all unchanged candidates, `(N, N)`.
        others: their places."""
        (unchanged,) = {*self.kinds} - {cue.kind}
        embeddings = subject.embed(cue.kind, self._exchanged(subject.labelled, cue, others))
        return (embeddings @ self._embeddings(subject, unchanged, "test").T).numpy()

    def _exchanged(self, labelled: LabelledSet, cue: Cue, others: np.ndarray) -> Iterator[Batch]:
        """Yields batches of the kind of data of a cue: test examples that have the cue of others."""
        modality = labelled.inputs.by_name[cue.kind]
        of_others = labelled.reordered("test", others.tolist()).examples("test", cue.kind)
        for examples, giving in zip(labelled.examples("test", cue.kind), of_others, strict=True):
            values = cue.exchanged(values_of(modality, examples), values_of(modality, giving))
            yield modality.finish(with_values(modality, examples, values))

    # sufficiency

    def sufficiency(self) -> dict[str, dict]:
        """See `TaskAudit`. All cues together are a further cue, and all cues of another example a control. Cues of
        files are left out if their bytes are not known."""
        features = {}
        for kind in dict.fromkeys(cue.kind for cue in self.roles):
            features |= self._read(kind, [cue for cue in self.roles if cue.kind == kind])
        sides = {kind: self._words() if kind == "text" else self._together(features, kind) for kind in self.kinds}
        first, second = (sides[kind] for kind in self.kinds)
        results = {}
        for cue, values in features.items():
            opposite = first if cue.kind == self.kinds[1] else second
            results[cue.name] = self._of_readers(self.roles[cue], values, opposite)
        results[TOGETHER] = self._of_readers(ALL, first, second)
        mixed = {split: shuffled(values) for split, values in first.items()}
        results[SHUFFLED] = self._of_readers(CONTROL, mixed, second)
        return results

    def _of_readers(self, role: str, left: Splits, right: Splits) -> dict:
        readings = [pair_reader(left, right, self.groups, seed) for seed in SEEDS]
        return {
            "role": role,
            BITS: [reading.bits for reading in readings],
            ACCURACY: [reading.accuracy for reading in readings],
            "error": float(readings[0].per_row.std() / len(readings[0].per_row) ** 0.5),
        }

    def _read(self, kind: str, cues: Sequence[Cue]) -> dict[Cue, Splits]:
        """Returns the features of cues of one kind, `(n, d)` of each split; of none if the files are not known."""
        features = {cue: {} for cue in cues}
        try:
            for split in SPLITS:
                parts = [[cue.read(values).float() for cue in cues] for values in self._values(split, kind)]
                for cue, read in zip(cues, zip(*parts, strict=True), strict=True):
                    features[cue][split] = torch.cat(read).numpy()
        except BadSample as error:
            log.warning("The audit leaves out the cues %s: %s.", ", ".join(cue.name for cue in cues), error)
            return {}
        return features

    def _values(self, split: str, kind: str) -> Iterator:
        """Yields what cues of a kind of data read, in batches. Raises `BadSample` for files that are not known."""
        labelled = self.sets[split]
        if kind == "text":
            yield self._tokens(split)
        elif kind == FILE:
            yield list(labelled.contents(split, self.kinds[0]))
        else:
            modality = labelled.inputs.by_name[kind]
            yield from (values_of(modality, examples) for examples in labelled.examples(split, kind))

    def _tokens(self, split: str) -> Tensor:
        """Returns the token ids of the captions of a split, `(n, L)`, -1 where there is no token."""
        texts, labelled = self.labelled.inputs.by_name["text"], self.sets[split]
        ids = texts.batch(labelled.texts(split))["input_ids"]
        return ids.masked_fill(ids == texts.tokenizer.pad_token_id, -1)

    def _words(self) -> Splits:
        return {split: self._tokens(split).numpy() for split in SPLITS}

    def _together(self, features: Mapping[Cue, Splits], kind: str) -> Splits:
        """Returns all cues of a kind of data side by side, but no artefacts and no controls."""
        some = [values for cue, values in features.items() if cue.kind == kind and self.roles[cue] == CUE]
        return {split: np.concatenate([values[split] for values in some], axis=1) for split in SPLITS}


def groups_of(labelled: LabelledSet, split: str, kinds: tuple[str, str]) -> np.ndarray:
    """Returns the number of the caption of each labelled row, equal for equal ones, `(n,)`; without texts, all rows
    differ."""
    if "text" not in kinds:
        return np.arange(len(labelled.rows(split)))
    return np.unique([normalised(caption) for caption in labelled.texts(split)], return_inverse=True)[1]


def other_pairs(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws another pair for each: any one, each is drawn once; and one of another group. Always the same draw.

    groups: `(n,)`, at least two of them. Returns their places, `(n,)` each."""
    random, rows = np.random.default_rng(SEED), np.arange(len(groups))
    order, anyone = random.permutation(rows), np.empty_like(rows)
    anyone[order] = np.roll(order, -1)
    return anyone, drawn_apart(rows, rows, groups, random)


TASK_AUDIT = PairCues
