"""The entry "audit" of results.json: what models learned by, what they know, and what they ignore.

trained and random models, labelled set -> metrics of each -> mean and spread over seeds, and warnings
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS, mean_and_spread
from ..features import Pooling
from ..modalities.image import Image
from ..modeling import PretextModel
from ..utils.paths import relative
from .encoder import EncoderAudit, encoder_audit
from .properties import Property, of_images
from .task import ACCURACY, BITS, CONTROL, task_audit
from .transformations import Transformation, image_transformations

INFORMATION, TRANSFORMATIONS, CUES = PARTS = ("information", "transformations", "cues")
TRAINED, RANDOM = "trained", "random"
AT_CHANCE = 0.01  # bits of a control from which there is a warning


@dataclass
class AuditOptions:
    """What is audited. nuisance: further columns of the labelled set that are read from features, e.g. the style of
    drawings. same: column whose equal values are the same thing in another form. only: some of `PARTS`. device, dtypes:
    of the models, and of autocast for features by kind."""

    nuisance: Sequence[str] = ()
    same: str | None = None
    only: Sequence[str] = PARTS
    device: torch.device | str = "cpu"
    dtypes: Mapping[str, torch.dtype | None] = field(default_factory=dict)


class ModelAudit(NamedTuple):
    """Metrics of one model: of its encoders by kind, of its answers to the pretext task, and of each cue it may rely
    on. The latter two are empty for tasks that are not audited."""

    encoders: dict[str, EncoderAudit]
    answers: dict[str, float]
    reliance: dict[str, dict[str, float]]


class Audit:
    """Audits models on one labelled set.

    Raises `ValueError` for parts that do not exist, and for columns that the labelled set lacks."""

    def __init__(self, labelled: LabelledSet, options: AuditOptions | None = None):
        self.labelled, self.options = labelled, options or AuditOptions()
        unknown = [part for part in self.options.only if part not in PARTS]
        if unknown:
            raise ValueError(f"The audit has no part {unknown[0]!r}. Give some of {', '.join(PARTS)}.")
        self.further = {name: as_property(labelled.column(name)) for name in self.options.nuisance}
        same = self.options.same
        self.same = {} if same is None else {same: labelled.column(same).splits["test"]}

    @cached_property
    def of_pixels(self) -> dict[str, Property]:
        """Properties of the images, if the set has some that are kept in memory."""
        return of_images({split: self.labelled.pixels[split] for split in SPLITS}) if self.labelled.pixels else {}

    def properties(self, kind: str) -> dict[str, Property]:
        """Returns what is read from the encoder of a kind: the label, the nuisances, and properties of images."""
        labelled = self.labelled.of_kind(kind)
        seen = self.of_pixels if isinstance(self.labelled.inputs.by_name[kind], Image) else {}
        return {labelled.label: as_property(labelled.labels), **self.further, **seen}

    def transformations(self, kind: str) -> tuple[Transformation, ...]:
        """Returns the transformations of the inputs of a kind."""
        modality = self.labelled.inputs.by_name[kind]
        if TRANSFORMATIONS not in self.options.only or not isinstance(modality, Image):
            return ()
        return image_transformations(modality.mean, modality.std)

    def model(self, model: PretextModel) -> ModelAudit:
        """Audits one model."""
        options, encoders = self.options, {}
        if {INFORMATION, TRANSFORMATIONS} & {*options.only}:
            pooling: Pooling = getattr(model.task, "pooling", "mean")
            for kind, encoder in model.encoders.items():
                encoders[kind] = encoder_audit(
                    encoder,
                    self.labelled.of_kind(kind),
                    kind,
                    self.properties(kind) if INFORMATION in options.only else {},
                    self.transformations(kind),
                    self.same if INFORMATION in options.only else {},
                    pooling,
                    options.device,
                    options.dtypes.get(kind),
                )
        task = task_audit(model, self.labelled, options.device) if CUES in options.only else None
        return ModelAudit(encoders, task.answers() if task else {}, task.reliance() if task else {})

    def entry(self, models: Mapping[str, Sequence[Callable[[], PretextModel]]]) -> dict:
        """Returns the entry of results.json. models: functions that build the models of each seed, by "trained",
        "start" (the encoder that training started from) and "random"."""
        audits = {who: [self.model(build()) for build in builds] for who, builds in models.items() if builds}
        trained, labelled = audits[TRAINED], self.labelled
        kinds = trained[0].encoders
        entry = {
            "dataset": relative(labelled.name),
            "rows": {split: len(labelled.rows(split)) for split in SPLITS},
            "encoders": {kind: self._encoders(kind, audits) for kind in kinds},
        }
        warnings = [warning for kind in kinds for warning in trained[0].encoders[kind].warnings]
        if trained[0].answers:
            task = task_audit(models[TRAINED][0](), labelled, self.options.device)
            entry["task"] = {
                "unit": task.unit,
                **over_seeds({w: [a.answers for a in each] for w, each in audits.items()}),
            }
            entry["cues"] = cues(task.sufficiency(), [each.reliance for each in trained])
            warnings += control_warnings(entry["cues"])
        return {**entry, "warnings": warnings}

    def _encoders(self, kind: str, audits: Mapping[str, Sequence[ModelAudit]]) -> dict:
        """Returns the metrics of the encoders of one kind."""
        by_who = {who: [each.encoders[kind] for each in some if kind in each.encoders] for who, some in audits.items()}
        properties = self.properties(kind) if INFORMATION in self.options.only else {}
        return {
            "label": self.labelled.of_kind(kind).label,
            "entropy": {name: entropy(each) for name, each in properties.items()},
            "layers": {who: [each.layer for each in some] for who, some in by_who.items()},
            **over_seeds({who: [each.metrics for each in some] for who, some in by_who.items()}),
            "on_these_rows": paired(by_who[TRAINED][0].per_row, by_who[RANDOM][0].per_row),
        }


def as_property(labels) -> Property:
    """Returns `transfer.Labels` as a property."""
    return Property(len(labels.names), labels.splits)


def entropy(each: Property) -> float:
    """Returns the entropy of a property on test in bits, the most that can be read of it."""
    shares = np.bincount(each.labels["test"], minlength=each.classes) / len(each.labels["test"])
    return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())


def over_seeds(by_who: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict]:
    """Returns mean and standard deviation of each metric, by who."""
    return {
        who: {name: mean_and_spread([metrics[name] for metrics in some]) for name in some[0]}
        for who, some in by_who.items()
        if some
    }


def paired(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Compares two models on the same test rows: the mean `difference` of each metric, and its standard `error`. It
    holds for these rows and these two models only."""
    differences = {name: values - other[name] for name, values in one.items()}
    return {
        name: {"difference": float(d.mean()), "error": float(d.std(ddof=1) / len(d) ** 0.5) if len(d) > 1 else None}
        for name, d in differences.items()
    }


def cues(sufficient: Mapping[str, dict], reliances: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict]:
    """Joins what readers get from each cue with what the trained models rely on, as mean and standard deviation."""
    return {
        name: {
            "role": each["role"],
            **{metric: mean_and_spread(each[metric]) for metric in (BITS, ACCURACY)},
            **{
                metric: mean_and_spread([of_seed[name][metric] for of_seed in reliances])
                for metric in reliances[0].get(name, {})
            },
        }
        for name, each in sufficient.items()
    }


def control_warnings(of_cues: Mapping[str, dict]) -> list[str]:
    """Returns a warning for each control from which the answers can be read: then the readers are wrong."""
    return [
        f"The control {name!r} reveals {each[BITS]['mean']:.3f} bits, but can reveal nothing: the cues are not reliable"
        for name, each in of_cues.items()
        if each["role"] == CONTROL and each[BITS]["mean"] > AT_CHANCE
    ]


def best_cue(entry: Mapping) -> tuple[str, float] | None:
    """Returns the cue that reveals most, and its bits as a share of those of the trained models; None without cues, and
    for models that answer no better than chance."""
    readable = {name: each[BITS]["mean"] for name, each in entry.get("cues", {}).items() if each["role"] != CONTROL}
    answered = entry.get("task", {}).get(TRAINED, {}).get(BITS, {}).get("mean") or 0
    if not readable or answered <= AT_CHANCE:
        return None
    name = max(readable, key=readable.get)
    return name, readable[name] / answered
