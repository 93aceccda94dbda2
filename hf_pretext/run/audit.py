"""Audit of the models of a run: --audit -> results["audit"] (see `audit.entry`)."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..audit.entry import RANDOM, TRAINED, Audit, AuditOptions
from ..encoders import is_shape_alone
from ..evaluation.comparison import START
from ..modeling import PretextModel
from .settings import training_index

if TYPE_CHECKING:
    from .experiment import Experiment

RANDOM_SEEDS = 3  # of random models, also for a single trained one


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


def results(experiment: "Experiment") -> dict:
    """Returns the entry "audit" of results.json: of the trained models, of as many random ones but at least three, and
    of the encoders that training started from if all are pretrained."""
    blueprint, arguments = experiment.blueprint, experiment.request.arguments
    seeds = list(dict.fromkeys([*arguments, *range(RANDOM_SEEDS)]))[: max(RANDOM_SEEDS, len(arguments))]

    def built(build: Callable[..., PretextModel], *arguments) -> PretextModel:
        return experiment.as_fast_layout(build(*arguments))

    def of_start() -> PretextModel:
        return blueprint.as_it_was(experiment.request.first.seed).model

    begun = [blueprint.start.of(kind) for kind in experiment.trial.encoder_classes]
    return audit_of(experiment).entry(
        {
            TRAINED: [partial(built, blueprint.trained, args.output_dir) for args in arguments.values()],
            START: [partial(built, of_start)] if all(path and not is_shape_alone(path) for path in begun) else [],
            RANDOM: [partial(built, blueprint.random, seed) for seed in seeds],
        }
    )
