"""Health of the models of a run, without labels: which rows are held out, and the metrics for results.json.

training data -> held-out rows; trained and random models -> results["health"]
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..data.hold_out import Cut, HeldOut, hold_out
from ..data.sources import Source
from ..evaluation.comparison import START
from ..evaluation.health import Health, health, warnings
from ..evaluation.health_rows import HealthRows, validation_rows
from ..evaluation.transfer import mean_and_spread
from ..modeling import PretextModel, TrainingHooks
from ..utils.paths import relative

if TYPE_CHECKING:
    from .experiment import Experiment, Request

LEARNING_HOOKS = ("prepare", "before_training", "before_round")  # without them, a model has no targets


def held_out(request: "Request", sources: list[Source], cut: Cut | None = None) -> tuple[list[Source], list[HeldOut]]:
    """Holds rows out of the training data: without a labelled set a share of them; with one, its rows of validation and
    test if they are in the training data.

    cut: these rows. Returns the sources to train on, and the rows; `[]` with a labelled set. Raises `ValueError` like
    `hold_out`."""
    asked = request.options.held_out_rows
    if not request.evaluated:
        return hold_out(sources, asked)
    if asked is not None:
        raise ValueError(
            f"--held_out_rows {asked} has no effect with --eval_dataset, whose validation split is used. Leave it out."
        )
    return [cut.of(source) if cut is not None and i == cut.index else source for i, source in enumerate(sources)], []


def health_rows(experiment: "Experiment") -> HealthRows:
    """Reads the rows on which the models of a run are measured without labels: of the validation split of the labelled
    set if there is one, else the held-out rows. Raises `ValueError` if none can be read."""
    held, labelled = experiment.held_out, experiment.labelled
    if labelled is not None:
        trained_on = experiment.sees("validation")
        held = validation_rows(labelled, trained_on)
    return HealthRows(held, experiment.inputs, experiment.request.first.dataloader_num_workers)


def measured(
    experiment: "Experiment", model: PretextModel, pretext: bool = True, kinds: Collection[str] | None = None
) -> Health:
    """Measures a model on the rows of the run (see `health`)."""
    dtypes = {kind: experiment.feature_dtype(kind) for kind in model.encoders}
    return health(model, experiment.health_rows, experiment.request.first.device, dtypes, pretext, kinds)


def while_training(experiment: "Experiment", model: PretextModel) -> dict[str, float]:
    """Returns the metrics of an evaluation during training: of the encoders, and without a labelled set also of the
    pretext task."""
    return measured(experiment, model, pretext=experiment.labelled is None).metrics


def results(experiment: "Experiment") -> dict:
    """Returns the entry "health" of results.json: mean and standard deviation of each metric over the trained seeds,
    and over random models of the same seeds, metrics of the model that training started from if its encoder was
    pretrained, chance levels, and warnings about the first seed.

    Metrics of the pretext task are left out for untrained models of objectives that learn their targets from the data,
    and for heads that the pretrained model does not have."""
    blueprint, seeds = experiment.blueprint, experiment.request.arguments
    of_trained, of_random = [], []
    for seed, args in seeds.items():
        of_trained.append(measured(experiment, experiment.as_fast_layout(blueprint.trained(args.output_dir))))
        of_random.append(untrained(experiment, seed))
    rows, first, start = experiment.health_rows, of_trained[0], as_it_was(experiment)
    return {
        "dataset": " + ".join(relative(name) for name in rows.names),
        "rows": len(rows),
        "trained_on": rows.trained_on,
        "split": "validation" if experiment.labelled is not None else None,
        "channels": {kind: channels for kind, (_, channels) in first.sizes.items()},
        "trained": over_seeds(of_trained),
        **({START: over_seeds([start])} if start else {}),
        "random": over_seeds(of_random),
        "chance": first.chance,
        "warnings": warnings(first.metrics, first.chance, list(first.sizes), of_random[0].metrics),
    }


def untrained(experiment: "Experiment", seed: int) -> Health:
    """Measures the random model of a seed."""
    model = experiment.as_fast_layout(experiment.blueprint.random(seed))
    return measured(experiment, model, pretext=needs_no_data(model))


def as_it_was(experiment: "Experiment") -> Health | None:
    """Measures the encoders that training started from, before it; also the pretext task if all heads are pretrained.
    None for training from scratch."""
    start = experiment.blueprint.as_it_was(experiment.request.first.seed)
    if start is None:
        return None
    model = experiment.as_fast_layout(start.model)
    return measured(experiment, model, start.complete and needs_no_data(model), start.kinds)


def over_seeds(each: list[Health]) -> dict[str, dict]:
    """Returns mean and standard deviation of each metric, those of the pretext task first."""
    names = [name for name in each[0].metrics if all(name in one.metrics for one in each)]
    return {name: mean_and_spread([one.metrics[name] for one in each]) for name in names}


def needs_no_data(model: PretextModel) -> bool:
    """Returns True if an untrained model has a pretext loss: its objective learns nothing from the data before it."""
    return all(getattr(type(model), name) is getattr(TrainingHooks, name) for name in LEARNING_HOOKS)
