"""Audit of captioning: by what does a model predict which caption belongs to an image?

model with `log_likelihood`, labelled set -> log p(caption | image) of all pairs of a split (N, N)
-> minus log p(caption), its mean over the images -> see `TaskAudit`

Readers and cues are those of `pair_cues`: they answer the same rows. The mutual information compares captions of any
length and frequency; in the direction from captions to images it is the likelihood alone.
"""

from collections.abc import Iterable

import numpy as np

from ..evaluation.captioning import condensed, likelihoods, mutual_information
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.measure import Subject, distinct, places_among
from ..modalities import Batch
from ..modeling import PretextModel
from ..modules.cues import Cue
from .pair_cues import PairCues


class CaptionPairs(PairCues):
    """Audits which caption a captioning model finds most likely for an image, and which image for a caption. Each pair
    costs a pass of the decoder, so that there are fewer candidates. Cues in captions can't be exchanged."""

    most = 96

    @staticmethod
    def fits(model: type[PretextModel] | PretextModel) -> bool:
        return "describe" in model.capabilities and bool(model.cues)

    def _scores(self, labelled: LabelledSet, split: str) -> np.ndarray:
        """Returns the mutual information of all pairs of a split, `(N, N)`, in nats."""
        return mutual_scores(self._subject(labelled), split, labelled.batches(split, "image"))

    def _exchanged_scores(self, subject: Subject, cue: Cue, others: np.ndarray) -> np.ndarray:
        """See `PairCues`. p(caption) is the mean over the changed images, so that no caption gains by the change."""
        return mutual_scores(subject, "test", self._exchanged(subject.labelled, cue, others))


def mutual_scores(subject: Subject, split: str, images: Iterable[Batch]) -> np.ndarray:
    """Returns the mutual information of images with the captions of a split, `(images, captions)`, in nats."""
    captions = subject.labelled.texts(split)
    candidates = distinct(captions)
    scores = mutual_information(likelihoods(subject, condensed(subject, images), candidates))
    return scores[:, places_among(candidates, captions)].numpy()


TASK_AUDIT = CaptionPairs
