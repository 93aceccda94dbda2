"""The entry "audit" of results.json: what models learned by, what they know, and what they ignore.

trained and random models, labelled set -> metrics of each -> mean and spread over seeds, and warnings
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ..evaluation.labelled_set import LabelledSet
from ..evaluation.transfer import SPLITS, mean_and_spread, recompute_batch_norm
from ..modalities.image import Image
from ..modeling import PretextModel
from ..utils.files import without_nan
from ..utils.paths import relative
from .changed_inputs import transformations_of
from .decoded import check_waves
from .encoder import EncoderAudit, encoder_audit
from .properties import IMAGE_PROPERTIES, Property, of_images
from .simple_cues import SimpleCues, simple_cues
from .task import ACCURACY, ARTEFACT, BITS, CONTROL, CUE, EXPLAINED, OVERFITTING, QUESTION, TaskAudit, task_audit
from .transformations import Transformation

INFORMATION, TRANSFORMATIONS, CUES = PARTS = ("information", "transformations", "cues")
TRAINED, RANDOM = "trained", "random"
TASK, LEFT_OUT, A_CONTROL = "pretext task", "No audit of the", "The control"  # in warnings
OF_TASK = (f"{LEFT_OUT} {TASK}", A_CONTROL)  # how warnings of the pretext task begin
AT_CHANCE, ERRORS = 0.01, 3  # bits of a control, and multiple of its standard error, from which there is a warning


@dataclass
class AuditOptions:
    """What is audited. nuisance: further columns of the labelled set that are read from features, e.g. the style of
    drawings. same: column whose equal values are the same thing in another form. only: some of `PARTS`. device, dtypes:
    of the models, and of autocast for features by kind. trained_on: whether the models were trained on the train split:
    only then is there an over-fitting to measure. test_seen: whether they were trained on the test split, too."""

    nuisance: Sequence[str] = ()
    same: str | None = None
    only: Sequence[str] = PARTS
    device: torch.device | str = "cpu"
    dtypes: Mapping[str, torch.dtype | None] = field(default_factory=dict)
    trained_on: bool = False
    test_seen: bool = False


class ModelAudit(NamedTuple):
    """Metrics of one model: of its encoders by kind, of its answers to the pretext task, and of each cue it may rely
    on. The latter two are empty for tasks that are not audited, the last one also for models that were not trained.
    gray: whether the encoder was measured in grey."""

    encoders: dict[str, EncoderAudit]
    answers: dict[str, float]
    reliance: dict[str, dict[str, float]]
    gray: bool = False


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
        self.same = {} if same is None else {same: labelled.column(same, "audit_same", apart=True).splits["test"]}
        self.problems: list[str] = []
        self._simple: dict[str, SimpleCues | None] = {}
        self._shared: dict = {}
        for kind in labelled.kinds:
            self._check_names(kind)

    @cached_property
    def of_pixels(self) -> dict[str, Property]:
        """Properties of the images, if the set has some that are kept in memory."""
        return of_images({split: self.labelled.pixels[split] for split in SPLITS}) if self.labelled.pixels else {}

    def properties(self, kind: str) -> dict[str, Property]:
        """Returns what is read from the encoder of a kind: the label, the nuisances, and properties of images."""
        labelled = self.labelled.of_kind(kind)
        seen = self.of_pixels if isinstance(self.labelled.inputs.by_name[kind], Image) else {}
        return {labelled.label: as_property(labelled.labels), **self.further, **seen}

    def simple_cues(self, model: PretextModel, kind: str) -> SimpleCues | None:
        """Returns the simple cues of the inputs of a kind, as the encoder of a model sees them; None if they can't be
        read. They are read once."""
        key = (kind, model.sees_gray)
        if key not in self._simple:
            labelled = self._seen_by(model).of_kind(kind)
            self._simple[key] = simple_cues(labelled, kind, as_property(labelled.labels))
        return self._simple[key]

    def _check_names(self, kind: str) -> None:
        """Raises `ValueError` for two properties, or two changes, of one name."""
        label, images = self.labelled.of_kind(kind).label, isinstance(self.labelled.inputs.by_name[kind], Image)
        properties = [label, *self.further, *(IMAGE_PROPERTIES if images else ())]
        changes = [*self.same, *(each.name for each in self.transformations(kind))]
        for names in (properties, changes):
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"The audit would measure two things called {twice[0]!r}. Leave this column out.")

    def transformations(self, kind: str, gray: bool = False) -> tuple[Transformation, ...]:
        """Returns the transformations of the inputs of a kind; of grey images, without those of colours."""
        wanted = TRANSFORMATIONS in self.options.only
        return transformations_of(self.labelled.inputs.by_name[kind], gray) if wanted else ()

    def model(self, model: PretextModel, trained: bool = True) -> ModelAudit:
        """Audits one model. What can't be audited is left out and named in `problems`. trained: whether it is asked on
        which cues it relies."""
        encoders = {}
        if {INFORMATION, TRANSFORMATIONS} & {*self.options.only}:
            for kind in model.encoders:
                with self._survived("changes and simple cues of sounds"):
                    check_waves([self.labelled.inputs.by_name[kind]])
                with self._survived(f"{kind} encoder"):
                    encoders[kind] = self._encoder(model, kind)
        answers, reliance = {}, {}
        with self._survived(TASK):
            task = self._task_audit(model) if CUES in self.options.only else None
            if task is not None:
                answers, reliance = task.answers(), task.reliance() if trained else {}
        return ModelAudit(encoders, answers, reliance, model.sees_gray)

    def _encoder(self, model: PretextModel, kind: str) -> EncoderAudit:
        options, pooling = self.options, getattr(model.task, "pooling", "mean")
        return encoder_audit(
            model.encoders[kind],
            self._seen_by(model).of_kind(kind),
            kind,
            self.properties(kind) if INFORMATION in options.only else {},
            self.transformations(kind, model.sees_gray),
            self.same if INFORMATION in options.only else {},
            pooling,
            options.device,
            options.dtypes.get(kind),
            self.simple_cues(model, kind) if INFORMATION in options.only else None,
        )

    def _seen_by(self, model: PretextModel) -> LabelledSet:
        """Returns the labelled set as the encoder of a model sees it: in grey, if it was trained on that."""
        return self.labelled.in_gray() if model.sees_gray else self.labelled

    @contextmanager
    def _survived(self, what: str) -> Iterator[None]:
        """Turns a `ValueError` into one of `problems`: a part that can't be audited must not lose the others."""
        try:
            yield
        except ValueError as error:
            self.problems.append(f"{LEFT_OUT} {what}: {str(error).rstrip('.')}")

    def entry(self, models: Mapping[str, Sequence[Callable[[], PretextModel]]]) -> dict:
        """Returns the entry of results.json. models: functions that build the models of each seed, by "trained",
        "start" (the encoder that training started from) and "random"."""
        self.problems = []
        audits = {
            who: [
                self.model(self._with_statistics(build()) if who == RANDOM else build(), who == TRAINED)
                for build in builds
            ]
            for who, builds in models.items()
            if builds
        }
        trained, labelled = audits[TRAINED], self.labelled
        everyone = [audit for who in (TRAINED, RANDOM) for audit in audits[who]]
        kinds = [kind for kind in trained[0].encoders if all(kind in audit.encoders for audit in everyone)]
        entry = {
            "dataset": relative(labelled.name),
            "test_seen": self.options.test_seen,
            "rows": {split: len(labelled.rows(split)) for split in SPLITS},
            "encoders": {kind: self._encoders(kind, audits) for kind in kinds},
        }
        if all(audit.answers for audit in trained):
            with self._survived(TASK):
                entry |= self._task(models[TRAINED][0](), audits)
        warnings = [*self.problems, *(warning for kind in kinds for warning in self._undefined(kind, trained))]
        warnings += control_warnings(entry.get("cues", {}))
        return without_nan({**entry, "warnings": list(dict.fromkeys(warnings))})

    def _task(self, model: PretextModel, audits: Mapping[str, Sequence[ModelAudit]]) -> dict:
        """Returns the entries of the pretext task and of its cues. model: the first trained one."""
        task = self._task_audit(model)
        answers = {who: [self._answers(a) for a in audits[who] if a.answers] for who in (TRAINED, RANDOM)}
        of_cues = cues(task.sufficiency(), [each.reliance for each in audits[TRAINED]])
        return {"task": {"unit": task.unit, **over_seeds(answers)}, "cues": of_cues}

    def _task_audit(self, model: PretextModel) -> TaskAudit | None:
        """Returns the audit of the pretext task of a model, see `task_audit`."""
        task = task_audit(model, self.labelled, self.options.device)
        if task is not None:
            task.shared = self._shared
        return task

    def _with_statistics(self, model: PretextModel) -> PretextModel:
        """Gives the batch norm of an untrained model the statistics of train, as a trained one has them."""
        for kind, encoder in model.encoders.items():
            encoder.to(self.options.device)
            recompute_batch_norm(encoder, self._seen_by(model).batches("train", kind))
        return model

    def _answers(self, audit: ModelAudit) -> dict[str, float]:
        """Returns the answers of a model, without what needs training on the train split if there was none."""
        return {name: v for name, v in audit.answers.items() if name != OVERFITTING or self.options.trained_on}

    def _undefined(self, kind: str, trained: Sequence[ModelAudit]) -> Iterator[str]:
        """Yields why metrics of trained encoders are undefined, and what their rank and dead channels warn of."""
        for number, audit in enumerate(trained):
            yield from (f"Trained model {number + 1}: {warning}" for warning in audit.encoders[kind].warnings)

    def _encoders(self, kind: str, audits: Mapping[str, Sequence[ModelAudit]]) -> dict:
        """Returns the metrics of the encoders of one kind."""
        by_who = {who: [each.encoders[kind] for each in some if kind in each.encoders] for who, some in audits.items()}
        return {
            "label": self.labelled.of_kind(kind).label,
            **({"gray": True} if audits[TRAINED][0].gray else {}),
            "entropy": by_who[TRAINED][0].entropy,
            "layers": {who: [each.layer for each in some] for who, some in by_who.items()},
            "code_curve": {who: mean_curve([each.curve for each in some]) for who, some in by_who.items()},
            **over_seeds({who: [each.metrics for each in some] for who, some in by_who.items()}),
            "on_these_rows": paired(by_who[TRAINED][0].per_row, by_who[RANDOM][0].per_row),
        }


def as_property(labels) -> Property:
    """Returns `transfer.Labels` as a property."""
    return Property(len(labels.names), labels.splits)


def over_seeds(by_who: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict]:
    """Returns mean and standard deviation of each metric, by who."""
    return {
        who: {name: mean_and_spread([metrics[name] for metrics in some]) for name in some[0]}
        for who, some in by_who.items()
        if some
    }


def mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Returns the mean over seeds of the curves of an online code (see `Code`), of those that are defined."""
    blocks = zip(*filter(None, curves), strict=True)
    return [(of_seeds[0][0], float(np.mean([bits for _, bits in of_seeds]))) for of_seeds in blocks]


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
            "error": each.get("error"),
            **({QUESTION: each[QUESTION]} if QUESTION in each else {}),
            **{metric: mean_and_spread(each[metric]) for metric in (BITS, ACCURACY, EXPLAINED) if metric in each},
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
        f"{A_CONTROL} {name!r} reveals {each[BITS]['mean']:.3f} bits, but can reveal nothing: the cues are not reliable"
        for name, each in of_cues.items()
        if each["role"] == CONTROL and each[BITS]["mean"] > max(AT_CHANCE, ERRORS * (each["error"] or 0))
    ]


def share_of(entry: Mapping, cue: Mapping) -> float | None:
    """Returns the bits of a cue as a share of those that the trained models answer, of the same question; None for
    undefined ones, and for models that answer no better than chance."""
    name = f"{BITS}_{cue[QUESTION]}" if QUESTION in cue else BITS
    answered = entry.get("task", {}).get(TRAINED, {}).get(name, {}).get("mean") or 0.0
    bits = cue[BITS]["mean"]
    return None if bits is None or answered <= AT_CHANCE else bits / answered


def best_cue(entry: Mapping) -> tuple[str, float] | None:
    """Returns the single cue that reveals the largest share of the bits of the trained models, and the share; None
    without cues, and for models that answer no better than chance."""
    single = {name: each for name, each in entry.get("cues", {}).items() if each["role"] in (CUE, ARTEFACT)}
    shares = {name: share_of(entry, each) for name, each in single.items()}
    return max(((n, share) for n, share in shares.items() if share is not None), key=lambda pair: pair[1], default=None)
