"""Inputs of an encoder that are changed: images, films, sounds and texts.

labelled set, kind -> clean batches -> one transformation at one level -> inputs of the encoder

Images and films are changed as the encoder gets them, sounds as waves, before log-mel, texts as texts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from ..evaluation.labelled_set import LabelledSet, TextBatches
from ..evaluation.measure import TEXTS_AT_ONCE
from ..modalities import Batch, Modality
from ..modalities.audio import Audio
from ..modalities.image import Image
from ..modalities.text import Text
from ..modalities.video import Video
from .text_changes import beginning
from .transformations import (
    OF_COLOURS,
    ROWS,
    Transformation,
    image_transformations,
    sound_transformations,
    spaced_rows,
    text_transformations,
)

WORDS = 32  # of a text whose changes are measured: 30 s on one core for a ModernBERT of width 256 and 2 layers
COST = {"audio": 2, "video": 4}  # of a sound of 1 s and a film of 4 frames, in images


Clean = Batch | list[str]


def transformations_of(modality: Modality, gray: bool = False) -> tuple[Transformation, ...]:
    """Returns the transformations of a kind of data: of batches `{column: (B, ...)}`, or of lists of texts.

    gray: leaves out changes of colours. There are none of sounds that a feature extractor changes in the workers, so
    that their waves are not known."""
    if isinstance(modality, Text):
        return text_transformations()
    column = modality.encoder_input
    if isinstance(modality, Image):
        changes = image_transformations(modality.mean, modality.std)
        changes = [each for each in changes if not (gray and each.name in OF_COLOURS)]
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


def clean_batches(labelled: LabelledSet, kind: str) -> dict[str, Iterator[Clean]]:
    """Returns batches of each split that are not changed, of evenly spaced rows: inputs of the encoder; of sounds the
    decoded examples; or texts of at most `WORDS` words. A longer text would be cut by the tokenizer after the change,
    so that deleted words would be replaced by later ones. There are `ROWS` of images and texts, and fewer of sounds and
    films, so that all take about as long."""
    modality = labelled.inputs.by_name[kind]

    def batches(split: str) -> Iterable[Clean]:
        if isinstance(modality, Text):
            return [[beginning(text, WORDS) for text in labelled.texts(split)]]
        return labelled.examples(split, kind) if isinstance(modality, Audio) else labelled.batches(split, kind)

    return {
        split: spaced_rows(batches(split), len(labelled.rows(split)), rows // COST.get(kind, 1))
        for split, rows in ROWS.items()
    }


def encoder_inputs(labelled: LabelledSet, kind: str, clean: Clean) -> Iterable[Batch]:
    """Returns batches of encoder inputs, as `labelled.batches` has them, of a batch of `clean_batches`."""
    modality = labelled.inputs.by_name[kind]
    if not isinstance(clean, list):
        return [modality.finish(clean) if isinstance(modality, Audio) else clean]
    if labelled.texts_alone:
        return TextBatches([*modality.documents(clean)], modality.tokenizer.pad_token_id, ("input_ids",))
    return (modality.batch(clean[first : first + TEXTS_AT_ONCE]) for first in range(0, len(clean), TEXTS_AT_ONCE))
