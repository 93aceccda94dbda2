"""Evaluates trained models, compared with random encoders and with baselines without an encoder.

Experiment + trained seeds -> content of results.json
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedModel, TrainingArguments

from ..evaluation import localization
from ..evaluation.baselines import baseline_transfer
from ..evaluation.comparison import (
    START,
    compare,
    compare_measures,
    described,
    pretext_metrics,
    random_transfer,
    trained_transfer,
    with_gray,
)
from ..evaluation.held_out import described_as_held_out
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.measure import HELDOUT, chance_levels, measure_model
from ..evaluation.transfer import chosen_together, mean_and_spread
from ..modeling import PretextModel
from ..utils.files import without_nan
from ..utils.finite import check_finite_weights
from ..utils.machine import code_revision, describe, versions
from ..utils.paths import relative
from . import audit, health
from .experiment import Experiment, changed_arguments

RANDOM_SEEDS = 3  # minimum number of random encoders
AUDIT_SETTINGS = ("audit", "audit_nuisance", "audit_same")  # options that do not change the model
CARD_SETTINGS = ("license", "language", "limits")  # options that only the author of a model can set
VERSION = 2  # format version of results.json


def evaluate(experiment: Experiment, records: dict[int, dict]) -> dict:
    """Returns the content of results.json: facts of the run, metrics without labels, and metrics of a labelled set if
    it has one.

    records: the record of each seed's training, by seed. Raises `ValueError` for trained weights that are not finite.
    """
    for args in experiment.request.arguments.values():
        check_finite_weights(args.output_dir)
    results = facts(experiment, records)
    try:
        results["health"] = without_nan(health.results(experiment))
    except ValueError as error:  # rows that can't be read must not lose the results
        experiment.request.say(f"No metrics without labels: {error}")
    if experiment.labelled is not None:
        results.update(without_nan(metrics(experiment)))  # one overflowed metric must not lose the others
        if experiment.request.options.audit:
            try:
                results["audit"] = without_nan(audit.results(experiment, records))
            except ValueError as error:  # data that can't be audited must not lose the results
                experiment.request.say(f"No audit: {error}")
    return results


def metrics(experiment: Experiment) -> dict:
    """Returns pretext metrics on the test split, transfer of every encoder with baselines, and measures of models."""
    request = experiment.request
    chance = all_chance_levels(experiment)
    trained = [trained_metrics(experiment, seed, bool(chance)) for seed in request.arguments]
    random_seeds = list(dict.fromkeys([*request.arguments, *range(RANDOM_SEEDS)]))
    random_seeds = random_seeds[: max(RANDOM_SEEDS, len(request.arguments))]
    random = [random_metrics(experiment, seed, trained[0].transfers, bool(chance)) for seed in random_seeds]
    start = start_metrics(experiment, bool(chance))
    transfers = {
        kind: compared(experiment, kind, trained, random, random_seeds, start.transfers.get(kind, {}))
        for kind in trained[0].transfers
    }
    first, *others = transfers
    by_who = {"trained": [each.measures for each in trained], "random": [each.measures for each in random]}
    by_who |= {START: start.measures} if start.measures else {}
    pretext = [each.pretext for each in trained]
    return {
        **({"measures": compare_measures(**by_who, chance=chance)} if chance else {}),
        **heldout_facts(experiment),
        **localization.described(experiment.labelled),
        "pretext": {name: mean_and_spread([each[name] for each in pretext]) for name in pretext[0]},
        "transfer": transfers[first],
        **({"other_transfers": {kind: transfers[kind] for kind in others}} if others else {}),
    }


def heldout_facts(experiment: Experiment) -> dict:
    """Returns the entry of results.json about the held-out set, if there is one."""
    heldout, labelled = experiment.sets.heldout, experiment.labelled
    if heldout is None:
        return {}
    return {"heldout": {**described(heldout), **described_as_held_out(heldout, labelled)}}


class OfSeed(NamedTuple):
    """Metrics of one seed's model.

    transfers: `{kind: {variant: transfer}}`; variants are "as trained", or the batch norm statistics of a random
    encoder. pretext, measures: `{metric: value}` on test."""

    pretext: dict[str, float]
    transfers: dict[str, dict[str, dict]]
    measures: dict[str, float]


def trained_metrics(experiment: Experiment, seed: int, measured: bool) -> OfSeed:
    """Returns the metrics of a trained seed. measured: True if any measure fits the objective."""
    request, labelled, device = experiment.request, experiment.labelled, experiment.request.first.device
    model = experiment.as_fast_layout(experiment.blueprint.trained(request.arguments[seed].output_dir))
    pretext = pretext_metrics(model, labelled.pretext_batches("test"), device)
    measure = partial(measured_transfer, experiment, f"trained, seed {seed}")
    transfers = {kind: measure(kind, partial(trained_transfer, encoder)) for kind, encoder in model.encoders.items()}
    return OfSeed(pretext, transfers, measured_model(experiment, model) if measured else {})


def start_metrics(experiment: Experiment, measured: bool) -> OfSeed:
    """Returns the metrics of the model that training started from, as it was: transfer of the encoders that have
    pretrained weights, and measures if all weights of the full model are pretrained. Empty for training from scratch.

    measured: True if any measure fits the objective."""
    start = experiment.blueprint.as_it_was(experiment.request.first.seed)
    if start is None:
        return OfSeed({}, {}, {})
    model = experiment.as_fast_layout(start.model)
    transfers = {
        kind: measured_transfer(experiment, "as it was", kind, partial(trained_transfer, model.encoders[kind]))
        for kind in start.kinds
    }
    return OfSeed({}, transfers, measured_model(experiment, model) if measured and start.complete else {})


def random_metrics(experiment: Experiment, seed: int, kinds: Iterable[str], measured: bool) -> OfSeed:
    """Returns the metrics of a random model. Its encoders are built separately, since batch norm is changed in place.

    kinds: kinds of data of the encoders. measured: True if any measure fits the objective."""

    def build(kind: str) -> PreTrainedModel:
        return experiment.as_fast_layout(experiment.blueprint.random(seed).encoders[kind])

    measure = partial(measured_transfer, experiment, f"random, seed {seed}")
    transfers = {kind: measure(kind, partial(random_transfer, partial(build, kind))) for kind in kinds}
    if not measured:
        return OfSeed({}, transfers, {})
    model = experiment.as_fast_layout(experiment.blueprint.random(seed))
    return OfSeed({}, transfers, measured_model(experiment, model))


def labelled_sets(experiment: Experiment) -> dict[str, LabelledSet]:
    """Returns the sets on which full models are measured, by the prefix of the names of their metrics."""
    sets = {"": experiment.labelled, HELDOUT: experiment.sets.heldout}
    return {prefix: labelled for prefix, labelled in sets.items() if labelled is not None}


def all_chance_levels(experiment: Experiment) -> dict[str, float]:
    """Returns the chance levels of the metrics of `measured_model`, by the same names."""
    model = experiment.blueprint.random(experiment.request.first.seed)
    return {
        f"{prefix}{name}": level
        for prefix, labelled in labelled_sets(experiment).items()
        for name, level in chance_levels(model, labelled, experiment.request.settings).items()
    }


def measured_model(experiment: Experiment, model: PretextModel) -> dict[str, float]:
    """Returns the metrics of a full model on the test split of each labelled set."""
    request = experiment.request
    return {
        f"{prefix}{name}": value
        for prefix, labelled in labelled_sets(experiment).items()
        for name, value in measure_model(model, labelled, request.first.device, request.settings).items()
    }


def measured_transfer(
    experiment: Experiment, description: str, kind: str, measure: Callable[..., dict[str, dict]]
) -> dict[str, dict]:
    """Measures transfer of one kind of data. description: of the progress bars. measure: see `with_gray`."""
    return with_gray(
        measure,
        experiment.labelled.of_kind(kind),
        experiment.request.objective.sees_gray,
        kind=kind,
        methods=experiment.methods(kind),
        pooling=getattr(experiment.blueprint.task, "pooling", "mean"),
        device=experiment.request.first.device,
        dtype=experiment.feature_dtype(kind),
        fine_tuning=experiment.fine_tuning(kind),
        description=description,
    )


def compared(
    experiment: Experiment,
    kind: str,
    trained: list[OfSeed],
    random: list[OfSeed],
    random_seeds: list[int],
    start: dict[str, dict],
) -> dict:
    """Returns the transfer of one kind's encoders: trained, random, baselines, and the one that training started from.
    All seeds use the same layer. start: transfer of the latter by variant; empty for training from scratch."""
    labelled = experiment.labelled.of_kind(kind)
    of_trained, of_random = (chosen_together([each.transfers[kind] for each in some]) for some in (trained, random))
    begun = chosen_together([start])[0] if start else None
    baselines = measured_transfer(experiment, "", kind, baseline_transfer)
    return {
        **described(labelled, experiment.fine_tuning(kind)),
        "kind": kind,
        "test_seen_in_pretraining": experiment.sees("test"),
        "random_seeds": random_seeds,
        **compare(of_trained, of_random, baselines, labelled.labels.majority(), begun),
        "details": {"trained": of_trained, "random": of_random, **baselines, **({START: [begun]} if begun else {})},
    }


def about(experiment: Experiment) -> str | None:
    """Returns the first line of the recipe's docstring; None if the command line changes the recipe."""
    framework = {field.name for field in dataclasses.fields(TrainingArguments)}
    unchanged = experiment.request.given.keys() <= {*framework, "seeds", *AUDIT_SETTINGS, *CARD_SETTINGS}
    return (experiment.request.recipe.doc.strip().partition("\n")[0] or None) if unchanged else None


def facts(experiment: Experiment, records: dict[int, dict]) -> dict:
    """Returns the content of results.json without the metrics. records: the record of each seed's training."""
    request, blueprint, data = experiment.request, experiment.blueprint, experiment.data
    hidden = ("identity", "repository", "length")
    task = {name: relative(value, to_current=False) for name, value in dataclasses.asdict(blueprint.task).items()}
    return {
        "version": VERSION,
        "recipe": request.recipe.name,
        "about": about(experiment),
        "smoke": request.options.smoke,
        "folder": relative(request.first.output_dir),
        "objective": {"name": request.objective.objective, **task},
        "encoder": {
            "class": next(iter(experiment.trial.encoder_classes.values())),
            "model_type": blueprint.config.model_type,
            "start": str(blueprint.start) if blueprint.start.paths else None,
            "base_models": blueprint.start.base_models,
            "parameters": experiment.trial.parameters,
        },
        "encoders": {
            kind: {"class": name, "start": relative(blueprint.start.of(kind))}
            for kind, name in experiment.trial.encoder_classes.items()
        },
        "data": {
            "dataset": " + ".join(relative(source.name) for source in data.sources),
            "split": request.options.split,
            "rows": None if data.endless else len(data),
            "mixture_weights": data.weights,
            "revisions": {source.name: source.revision for source in data.sources if source.revision},
        },
        "inputs": list(request.objective.inputs),
        "card": {name: getattr(request.options, name) for name in CARD_SETTINGS},
        **experiment.data_facts,
        "stream": dataclasses.asdict(request.stream.on(request.first.world_size)),
        "settings": changed_arguments(request),
        "processes": request.first.world_size,
        "layout": "channels_last" if experiment.trial.convolutional else "contiguous",
        "machine": describe(request.first.device),
        "versions": versions(),
        "code_revision": code_revision(),
        "seeds": [{name: v for name, v in record.items() if name not in hidden} for record in records.values()],
    }


def output_folder(experiment: Experiment) -> Path:
    """Returns the output folder for the results."""
    return Path(experiment.request.first.output_dir)
