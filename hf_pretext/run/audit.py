"""Audit of the models of a run: --audit -> results["audit"] (see `audit.entry`)."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..audit.code import coded_classes, first_epoch_code
from ..audit.entry import RANDOM, TRAINED, Audit, AuditOptions
from ..encoders import is_shape_alone
from ..evaluation.comparison import START
from ..evaluation.transfer import mean_and_spread
from ..modeling import PretextModel
from .settings import training_index

if TYPE_CHECKING:
    from .experiment import Experiment

RANDOM_SEEDS = 3  # of random models, also for a single trained one
FEW = 8  # rows that show what kind of loss an objective has


def audit_of(experiment: "Experiment") -> Audit:
    """Returns the audit of a run. Raises `ValueError` for columns that the labelled set lacks."""
    options, inputs = experiment.request.options, experiment.inputs
    return Audit(
        experiment.labelled,
        AuditOptions(
            nuisance=options.audit_nuisance,
            same=options.audit_same,
            device=experiment.request.first.device,
            dtypes={kind: experiment.feature_dtype(kind) for kind in inputs.by_name},
            trained_on=training_index(options) is not None,
            test_seen=experiment.sees("test"),
        ),
    )


def results(experiment: "Experiment", records: Mapping[int, dict]) -> dict:
    """Returns the entry "audit" of results.json: of the trained models, of as many random ones but at least three, and
    of the encoders that training started from if all are pretrained. records: the record of each seed's training."""
    blueprint, arguments = experiment.blueprint, experiment.request.arguments
    seeds = list(dict.fromkeys([*arguments, *range(RANDOM_SEEDS)]))[: max(RANDOM_SEEDS, len(arguments))]

    def built(build: Callable[..., PretextModel], *arguments) -> PretextModel:
        return experiment.as_fast_layout(build(*arguments))

    def of_start() -> PretextModel:
        return blueprint.as_it_was(experiment.request.first.seed).model

    begun = [blueprint.start.of(kind) for kind in experiment.trial.encoder_classes]
    models = {
        TRAINED: [partial(built, blueprint.trained, args.output_dir) for args in arguments.values()],
        START: [partial(built, of_start)] if all(path and not is_shape_alone(path) for path in begun) else [],
        RANDOM: [partial(built, blueprint.random, seed) for seed in seeds],
    }
    return {**audit_of(experiment).entry(models), **code(experiment, records)}


def code(experiment: "Experiment", records: Mapping[int, dict]) -> dict:
    """Returns `{"code": {"bits", "uniform", "samples"}}`: the length of the online code of the pretext labels in the
    first epoch of each seed, that of equally likely labels, in bits per label, and the number of samples.

    `{}` where the losses are no such code: of other tasks (see `coded_classes`), of data without a length or of several
    sources, whose rows are not each seen once in an epoch, of runs that were resumed within the first epoch, as their
    logs may lack steps, and of runs that logged nothing."""
    data, samples = experiment.data, [record["samples_seen"] for record in records.values()]
    if data.endless or len(data.sources) > 1 or not all(record["history"] for record in records.values()):
        return {}
    resumed = [part["samples_seen"] for record in records.values() for part in record["resumed"]]
    batch = next(iter(experiment.labelled.pretext_batches("validation")))
    few = {name: values[:FEW] for name, values in batch.items()}
    classes = coded_classes(experiment.blueprint.random(experiment.request.first.seed), few)
    if classes is None or min(resumed, default=len(data)) < len(data):
        return {}
    lengths = [first_epoch_code(record["history"], len(data)) for record in records.values()]
    seen = min(len(data), *samples)
    return {"code": {"bits": mean_and_spread(lengths), "uniform": math.log2(classes), "samples": seen}}
