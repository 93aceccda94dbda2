"""Modalities (image, text, audio, video), one file each, and `Inputs`, which combines them.

A file has the name of its modality. Parameters named `kind` and `kinds` are names of modalities.

row {"image": bytes, "text": str} -> one example (in a worker) -> collate -> finish (on the device) -> model inputs
"""

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, VisionTextDualEncoderProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from ..data.captions import label_number
from ..data.decoding import BadSample
from ..registry import modality_class
from ..stream.collate import collate
from ._clips import Clips
from ._modality import MIDDLE, Batch, Context, Example, Modality
from ._narrated import texts_of_clip

__all__ = ["MIDDLE", "Batch", "Context", "Example", "Inputs", "Modality", "PairArguments", "Processors"]
PAIR = {"image", "text"}


@strict
@dataclass
class PairArguments:
    """Options of objectives with several modalities.

    images_alone: Additional datasets of which only the images are used. Only for objectives that also learn from
        single modalities (FLAVA, BEiT-3).
    videos_alone: Additional datasets of which only the videos are used, for example videos without narration. Only for
        objectives of videos that also learn from single modalities.
    texts_alone: Additional datasets of which only the texts are used. Only for objectives that also learn from single
        modalities (FLAVA, BEiT-3). Of a text much longer than --max_length, a random part is used; of texts with times,
        a random one. Each step's batch comes from one dataset. --mixture_weights sets how often each dataset is drawn,
        in this order: pairs, then the datasets of single modalities in the order of the objective's inputs.
    pair_label: Column of the pair labels. With --positives label, pairs with equal values are positives of each other.
        If not set: the caption. Evaluation always uses the caption.
    heldout_dataset: A second labelled dataset. None of its classes is in the train split of --eval_dataset; for
        objectives of texts, it is enough if none of its captions is. The metrics of the full model (matching,
        retrieval) are measured on it, too.
    """

    _argument_group_name: ClassVar[str] = "pairs"

    images_alone: list[str] | None = None
    videos_alone: list[str] | None = None
    texts_alone: list[str] | None = None
    pair_label: str | None = None
    heldout_dataset: str | None = None


def modality_classes(
    kinds: Sequence[str], views: Iterable[str] = (), one_text_a_row: bool = False
) -> dict[str, type[Modality]]:
    """Returns the classes of modalities, by name. views: modalities that are drawn several times per row.
    one_text_a_row: see `PretextModel`.

    A single modality without views gets the class that `Modality.alone` returns. Raises `ValueError` for an unknown
    modality."""
    classes = {kind: modality_class(kind) for kind in kinds}
    alone = len(kinds) == 1 and not {*kinds} & {*views}
    return {kind: each.alone(one_text_a_row) if alone else each for kind, each in classes.items()}


def columns_to_read(modalities: Iterable[Modality | type[Modality]]) -> dict[str, str | tuple[str, ...]]:
    """Returns for each modality its canonical column, or a tuple of columns, of which one is enough.

    Next to a film or sound, a text may also be subtitles."""
    modalities = list(modalities)
    timed = any(modality.timed for modality in modalities)
    names = {each.name: (*each.columns, *(each.timed_columns if timed else ())) for each in modalities}
    return {kind: columns[0] if len(columns) == 1 else columns for kind, columns in names.items()}


def inputs_options(kinds: Sequence[str], views: Iterable[str] = (), one_text_a_row: bool = False) -> tuple[type, ...]:
    """Returns all option dataclasses of some modalities. For several modalities these include `PairArguments` and an
    `EncoderArguments` with fields `<kind>_encoder` and `eval_<kind>_label` for each. Raises `ValueError` for an unknown
    modality."""
    of_kinds = [options for c in modality_classes(kinds, views, one_text_a_row).values() for options in c.options]
    several = (PairArguments, encoder_arguments(kinds)) if len(kinds) > 1 else ()
    return tuple(dict.fromkeys([*of_kinds, *several]))


def encoder_arguments(kinds: Sequence[str]) -> type:
    """Returns a dataclass with two fields for each modality: `<kind>_encoder`, the checkpoint its encoder starts from,
    and `eval_<kind>_label`, the label by which its encoder is measured."""
    names = [name for kind in kinds for name in (f"{kind}_encoder", f"eval_{kind}_label")]
    fields = [(name, str | None, field(default=None)) for name in names]
    made = make_dataclass("EncoderArguments", fields, namespace={"_argument_group_name": "encoders"})
    helps = (
        f"    {kind}_encoder: Start the {kind} encoder from this checkpoint (Hub id or folder).\n"
        f"    eval_{kind}_label: Column of the labels of --eval_dataset by which the {kind} encoder is measured. If "
        "not set: --eval_label."
        for kind in kinds
    )
    made.__doc__ = "\n".join(["Checkpoints that the encoders start from, and labels to measure them by.", "", *helps])
    return made


def check_composition(modalities: Sequence[Modality], views: Iterable[str]) -> None:
    """Raises `ValueError` without modalities, for the same modality twice, for views of other modalities, and for texts
    with clips of several lengths."""
    names = [modality.name for modality in modalities]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Inputs has the modalities {names}. Give one or more, each once.")
    if unknown := sorted(set(views) - set(names)):
        raise ValueError(
            f"views contains {', '.join(unknown)}, which is not a modality of these inputs. Use only "
            f"{', '.join(names)}."
        )
    lengths = {modality.part.seconds for modality in modalities if modality.timed}
    if len(lengths) > 1 and any(modality.timed_columns for modality in modalities):
        raise ValueError(
            "Texts are those of the seconds of a clip, but clips have several lengths: "
            f"{', '.join(sorted(map(str, lengths)))}. Give all modalities the same seconds."
        )


class Processors:
    """Processors of modalities for which transformers has no common class.

    by_kind: processors by modality. Each is saved in the sub-folder of its modality."""

    def __init__(self, by_kind: Mapping[str, Any]):
        self.by_kind = dict(by_kind)

    def save_pretrained(self, save_directory, **options) -> None:
        """Writes the processor of each modality to `save_directory/<kind>`."""
        for kind, processor in self.by_kind.items():
            processor.save_pretrained(str(Path(save_directory) / kind), **options)


class Inputs:
    """Combines the modalities that an objective takes.

    views: how often a modality is drawn per row. The draws are stacked along a new axis: `{"image": 2}` gives
    pixel_values `(2, 3, S, S)` per example. The views of a timed modality are spread over time: of `{"audio": 2}`, the
    first is at the position that all modalities share, the second half of all positions later. Views of audio come with
    their starts in seconds, `sound_start` `(K,)`, see `Waves.of_views`. Views of texts next to a film or sound are the
    narrations nearest in time to the clip, see `Text.draws`. pair_label: column of the pair labels. Rows
    with several modalities get a hash of its value as `labels`.

    Two modalities can have a column of the same name. Then a modality without a time axis keeps the name, and the other
    modality's column is prefixed: "audio_attention_mask".
    """

    def __init__(self, *modalities: Modality, views: Mapping[str, int] | None = None, pair_label: str | None = None):
        """Raises `ValueError` like `check_composition`."""
        self.modalities, self.views, self.pair_label = modalities, dict(views or {}), pair_label
        self.by_name = {modality.name: modality for modality in modalities}
        check_composition(modalities, self.views)
        self.read = modalities  # the others are left out of examples, see `only`
        self._combined: Any = None
        self._clips = Clips()

    def __call__(self, row: dict, random: np.random.Generator | None) -> Example:
        """Returns one example with all modalities of a row. Raises `BadSample` for a row that can't be used.

        All modalities share one random position in time, so that audio and video are of the same moment, also where
        they are two files. A film that several of them read is decoded once. The example is empty if the row has only
        modalities that are left out (see `only`)."""
        present = [modality for modality in self.modalities if modality.column(row) is not None]
        kinds = [modality for modality in self.read if modality in present]
        if not present:
            raise BadSample(f"no {' or '.join(modality.name for modality in self.read)} in this row")
        timed = random is not None and any(modality.timed for modality in kinds)
        at, example = float(random.random()) if timed else MIDDLE, {}
        decoded = self.decoded(row, at)
        for modality in kinds:
            drawn = self._views(modality, row, decoded, random, at)
            several = modality.name in self.views
            example |= self.renamed(modality.name, collate(drawn, fills=modality.fills) if several else drawn[0])
        if self.pair_label is not None and len(present) > 1:
            example["labels"] = self.label_of(decoded)
        return example

    def decoded(self, row: dict, at: float) -> dict:
        """Returns a row with decoded clips in place of its films and sounds, see `Clips`. Raises `BadSample`."""
        return self._clips.decoded(row, self.read, at, within=self.modalities)

    def _views(
        self, modality: Modality, row: dict, decoded: dict, random: np.random.Generator | None, at: float
    ) -> list[Example]:
        """Draws all views of one modality. decoded: the row with the clips of the first view. Where another place in
        time can't be used (silence, damage), the view is of the first place."""
        views = self.views.get(modality.name)
        if views is None:
            return [modality(decoded, random, at)]
        if not modality.timed:
            return modality.draws(decoded, random, at, views)
        drawn = [modality(decoded, random, at)]
        for view in range(1, views):
            place, other = (at + view / views) % 1, decoded
            with suppress(BadSample):
                other = self._clips.decoded(row, self.modalities, place, only=modality)
            drawn.append(modality(other, random, place))
        return drawn

    def label_of(self, row: Mapping) -> int:
        """Returns an integer hash of a row's pair label: of a text with times, of the narration nearest to the clip.
        row: with decoded clips. Raises `BadSample` if the row has no pair label."""
        nearest = texts_of_clip(row, 1) if self.pair_label == "text" else None
        label = nearest[0] if nearest else row.get(self.pair_label)
        if label is None:
            raise BadSample(f"no value in the column {self.pair_label!r} (--pair_label)")
        return label_number(label)

    def finish(self, batch: Batch) -> Batch:
        """Returns model inputs on the batch's device. Views keep their axis: `(B, K, ...)`."""
        finished = dict(batch)
        for modality in self.modalities:
            columns = self.of_kind(batch, modality.name)
            if not columns:
                continue
            for name in self.renamed(modality.name, columns):
                del finished[name]
            finished |= self.renamed(modality.name, self._finished(modality, columns))
        return finished

    def _finished(self, modality: Modality, columns: Batch) -> Batch:
        if modality.name not in self.views:
            return modality.finish(columns)
        size = next(iter(columns.values())).shape[:2]
        flat = modality.finish({name: value.flatten(0, 1) for name, value in columns.items()})
        return {name: value.unflatten(0, size) for name, value in flat.items()} | modality.of_views(columns)

    # column names

    def renamed(self, kind: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Renames the columns of one modality to their names in the combined batch, e.g. `attention_mask` of audio to
        `audio_attention_mask` if texts have that column too."""
        return {self._name(kind, name): value for name, value in columns.items()}

    def of_kind(self, batch: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Returns one modality's columns of a batch of all modalities, under the argument names of its encoder."""
        names = {name: self._name(kind, name) for name in self.by_name[kind].outputs}
        return {name: batch[shown] for name, shown in names.items() if shown in batch}

    def _name(self, kind: str, name: str) -> str:
        order = sorted(self.modalities, key=lambda modality: modality.timed)
        first = next((modality.name for modality in order if name in modality.outputs), kind)
        return name if first == kind else f"{kind}_{name}"

    # properties of all modalities

    @property
    def fills(self) -> dict[str, float]:
        """Padding value of each column that is padded along time."""
        return {name: value for m in self.modalities for name, value in self.renamed(m.name, m.fills).items()}

    @property
    def needed(self) -> tuple[str | tuple[str, ...], ...]:
        """Columns to read: for each modality its canonical column, or a tuple of columns, of which one is enough."""
        return tuple(columns_to_read(self.modalities).values())

    @property
    def samples(self) -> str:
        """Name of the samples in messages, in the plural: "images", "pairs"."""
        return "pairs" if set(self.by_name) == PAIR else " and ".join(m.samples for m in self.modalities)

    @property
    def processors(self) -> dict[str, Any]:
        """Processor of each modality."""
        return {modality.name: modality.processor for modality in self.modalities}

    @property
    def processor(self) -> Any:
        """Processor that is saved with each checkpoint. For several modalities: one transformers processor if `combine`
        found a class for all, else a `Processors`."""
        if len(self.modalities) == 1:
            return self.modalities[0].processor
        return Processors(self.processors) if self._combined is None else self._combined

    def combine(self, config: PreTrainedConfig) -> Any:
        """Sets `processor` to one transformers processor for all modalities, if possible, and returns `processor`.

        The class is the one that transformers has for the model's config, or else `VisionTextDualEncoderProcessor`. It
        must take the processors of all modalities."""
        by_role = {modality.role: modality.processor for modality in self.modalities}
        native = PROCESSOR_MAPPING.get(type(config), VisionTextDualEncoderProcessor)
        if set(by_role) <= set(inspect.signature(native.__init__).parameters) and len(by_role) > 1:
            self._combined = native(**by_role)
        return self.processor

    def keep_processor_of(self, kind: str) -> None:
        """Sets `processor` to that of one modality, for a model that has no encoder of the others."""
        self._combined = self.by_name[kind].processor

    def evaluation(self) -> "Inputs":
        """Returns a copy without augmentation and without random captions. Its pair label is the caption."""
        other = copy.copy(self)
        other._clips = Clips()
        other.modalities = tuple(modality.evaluation() for modality in self.modalities)
        other.by_name = {modality.name: modality for modality in other.modalities}
        other.read = tuple(other.by_name[modality.name] for modality in self.read)
        other.pair_label = "text" if self.pair_label is not None and "text" in self.by_name else None
        return other

    def only(self, kinds: Sequence[str]) -> "Inputs":
        """Returns a copy whose examples have only these modalities, and the label of a pair. Others are not decoded.
        Clips stay within the shortest file of all."""
        other = copy.copy(self)
        other._clips, other.read = Clips(), tuple(self.by_name[kind] for kind in kinds)
        return other

    def noise(self, kinds: Sequence[str] | None = None) -> list[Batch]:
        """Returns batches of random model inputs: one of all modalities, then one for each of `kinds` alone."""
        parts = {}
        for modality in self.modalities:
            views = self.views.get(modality.name)
            drawn = modality.noise() if views is None else modality.noise_of_views(views)
            parts[modality.name] = self.renamed(modality.name, drawn)
        everything = {name: value for part in parts.values() for name, value in part.items()}
        if self.pair_label is not None and len(parts) > 1:
            everything["labels"] = torch.arange(len(next(iter(everything.values()))))
        return [everything, *(parts[kind] for kind in kinds or ())]

    def shape(self) -> dict[str, int | float]:
        """Returns sizes by name for a recipe's encoder function. If two modalities differ in a size, the name of the
        second is prefixed: "video_image_size"."""
        sizes: dict[str, int | float] = {}
        for modality in self.modalities:
            for name, value in modality.shape().items():
                sizes[name if sizes.get(name, value) == value else f"{modality.name}_{name}"] = value
        return sizes

    def facts(self) -> dict:
        """Returns the entries of results.json about the options of all modalities."""
        return {name: value for modality in self.modalities for name, value in modality.facts().items()}
