"""Simple cues of the inputs of an encoder: what a label may be read from without it.

labelled set, kind -> cues of each row (n, d) of train, validation, test -> what a linear reader gets from them
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS
from ..modules.clip_cues import BRIGHTNESS, CENTROID, FRAME_COLORS, LOUDNESS, MOTION
from ..modules.cues import COLOR_HISTOGRAM, THUMBNAIL
from ..utils.places import evenly
from .decoded import values_of
from .information import Information, conditional_information
from .properties import Property
from .readers import Reading, Splits, linear_reader

CUES = {
    "image": (THUMBNAIL, COLOR_HISTOGRAM),
    "audio": (LOUDNESS, CENTROID),
    "video": (FRAME_COLORS, BRIGHTNESS, MOTION),
}
MOST = 4000  # train rows, evenly spaced


class SimpleCues(NamedTuple):
    """features: the cues, `(n, d)` of each split. label: of the same rows. rows: places of its train rows in that of
    the labelled set, `(n,)`. known: what a linear reader gets of the label from the cues."""

    features: Splits
    label: Property
    rows: np.ndarray
    known: Reading

    def beyond(self, features: Splits) -> Information:
        """Measures the bits of the label that features of all rows, `(n, d)`, add to the cues."""
        some = {**features, "train": features["train"][self.rows]}
        return conditional_information(some, self.features, self.label.labels, self.label.classes, self.known)


def simple_cues(labelled: LabelledSet, kind: str, label: Property) -> SimpleCues | None:
    """Reads the simple cues of one kind of data: thumbnail and colour histogram of images, loudness and spectral
    centroid of sounds, colours, brightness and motion of films, the number of tokens of texts. None for sounds that a
    feature extractor changes in the workers, so that their waves are not known."""
    modality = labelled.inputs.by_name[kind]
    if kind == "audio" and modality.front_end is None:
        return None
    rows = np.array(evenly(len(labelled.rows("train")), MOST))
    read = {split: torch.cat(list(_read(labelled, split, kind))).numpy() for split in SPLITS}
    features, labels = ({**each, "train": each["train"][rows]} for each in (read, label.labels))
    return SimpleCues(features, Property(label.classes, labels), rows, linear_reader(features, labels, label.classes))


def _read(labelled: LabelledSet, split: str, kind: str) -> Iterator[Tensor]:
    modality = labelled.inputs.by_name[kind]
    if kind == "text":
        for batch in labelled.batches(split, kind):
            yield batch["attention_mask"].sum(1, keepdim=True).float()
        return
    for examples in labelled.examples(split, kind):
        values = values_of(modality, examples)
        yield torch.cat([cue.read(values).float() for cue in CUES[kind]], dim=1)
