"""Inputs of an encoder that are changed: images, films and sounds.

labelled set, kind -> clean batches -> one transformation at one level -> inputs of the encoder

Images and films are changed as the encoder gets them, sounds as waves, before log-mel.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from ..evaluation.labelled_set import LabelledSet
from ..modalities import Batch, Modality
from ..modalities.audio import Audio
from ..modalities.image import Image
from ..modalities.video import Video
from .transformations import ROWS, Transformation, evenly, image_transformations, sound_transformations

COST = {"audio": 2, "video": 4}  # of a sound of 1 s and a film of 4 frames, in images


def transformations_of(modality: Modality) -> tuple[Transformation, ...]:
    """Returns the transformations of a kind of data, of batches `{column: (B, ...)}`. There are none of texts, and of
    sounds that a feature extractor changes in the workers, so that their waves are not known."""
    column = modality.encoder_input
    if isinstance(modality, Image):
        changes = image_transformations(modality.mean, modality.std)
    elif isinstance(modality, Video):
        of_images = image_transformations(modality.mean.flatten(), modality.std.flatten())
        changes = [replace(each, change=of_frames(each.change)) for each in of_images]
    elif isinstance(modality, Audio) and modality.front_end is not None:
        changes = sound_transformations()
    else:
        changes = ()
    return tuple(replace(each, change=of_column(each.change, column)) for each in changes)


def of_column(change: Callable, column: str) -> Callable:
    """Returns a change of one column of batches `{column: (B, ...)}` from a change of tensors `(B, ...)`."""
    return lambda batch, level: {**batch, column: change(batch[column], level)}


def of_frames(change: Callable) -> Callable:
    """Returns a change of films `(B, F, 3, S, S)`, the same for all frames, from a change of images."""

    def changed(films: Tensor, level) -> Tensor:
        return change(films.flatten(0, 1), level).unflatten(0, films.shape[:2])

    return changed


def clean_batches(labelled: LabelledSet, kind: str) -> dict[str, Iterator[Batch]]:
    """Returns batches of each split that are not changed, of evenly spaced rows: inputs of the encoder, or of sounds
    the decoded examples. There are `ROWS` of images, and fewer of sounds and films, so that all take about as long."""
    sounds = isinstance(labelled.inputs.by_name[kind], Audio)
    of_split = labelled.examples if sounds else labelled.batches
    return {
        split: evenly(of_split(split, kind), len(labelled.rows(split)), rows // COST.get(kind, 1))
        for split, rows in ROWS.items()
    }


def encoder_inputs(modality: Modality, batch: Batch) -> Batch:
    """Returns what the encoder gets of a batch of `clean_batches`."""
    return modality.finish(batch) if isinstance(modality, Audio) else batch
