"""Evaluation: what was trained, next to random encoders and to what needs none.

Experiment + trained seeds -> results.json's content
"""

import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, TrainingArguments

from ..evaluation.baselines import baseline_transfer
from ..evaluation.comparison import (
    compare,
    compare_measures,
    described,
    encoder_transfer,
    pretext_metrics,
    random_transfer,
)
from ..evaluation.measure import chance_levels, measure_model
from ..evaluation.transfer import chosen_together, mean_and_spread
from ..utils.files import without_nan
from ..utils.machine import code_revision, describe, versions
from ..utils.paths import relative
from .experiment import Experiment, changed_arguments

RANDOM_SEEDS = 3
CARD_SETTINGS = ("license", "language", "limits")  # what only its author can say
VERSION = 2  # of results.json


def evaluate(experiment: Experiment, records: dict[int, dict]) -> dict:
    """Everything that results.json holds: facts, and metrics where there is a labelled set."""
    results = facts(experiment, records)
    if experiment.labelled is not None:
        results.update(without_nan(metrics(experiment)))  # one that overflowed must not lose the others
    return results


def metrics(experiment: Experiment) -> dict:
    """The pretext task on test, transfer of every encoder next to the baselines, and measures of whole models."""
    request, labelled = experiment.request, experiment.labelled
    chance = chance_levels(request.objective, labelled)
    trained = [trained_metrics(experiment, seed, bool(chance)) for seed in request.arguments]
    random_seeds = list(dict.fromkeys([*request.arguments, *range(RANDOM_SEEDS)]))
    random_seeds = random_seeds[: max(RANDOM_SEEDS, len(request.arguments))]
    random = [random_metrics(experiment, seed, trained[0].transfers, bool(chance)) for seed in random_seeds]
    transfers = {kind: compared(experiment, kind, trained, random, random_seeds) for kind in trained[0].transfers}
    first, *others = transfers
    by_who = {"trained": [each.measures for each in trained], "random": [each.measures for each in random]}
    pretext = [each.pretext for each in trained]
    return {
        **({"measures": compare_measures(**by_who, chance=chance)} if chance else {}),
        "pretext": {name: mean_and_spread([each[name] for each in pretext]) for name in pretext[0]},
        "transfer": transfers[first],
        **({"other_transfers": {kind: transfers[kind] for kind in others}} if others else {}),
    }


class OfSeed(NamedTuple):
    """What was measured of the model of one seed. transfers: by kind and variant (see `random_transfer`)."""

    pretext: dict[str, float]
    transfers: dict[str, dict[str, dict]]
    measures: dict[str, float]


def trained_metrics(experiment: Experiment, seed: int, measured: bool) -> OfSeed:
    """Metrics of a trained seed, whose model is freed afterwards. measured: whether any measure fits the objective."""
    request, labelled, device = experiment.request, experiment.labelled, experiment.request.first.device
    model = experiment.as_fast_layout(experiment.blueprint.trained(request.arguments[seed].output_dir))
    pretext = pretext_metrics(model, labelled.pretext_batches("test"), device)
    transfers = {
        kind: {
            "as trained": encoder_transfer(
                encoder, labelled, kind, description=f"trained, seed {seed}", **transfer_options(experiment, kind)
            )
        }
        for kind, encoder in model.encoders.items()
    }
    return OfSeed(pretext, transfers, measure_model(model, labelled, device, request.settings) if measured else {})


def random_metrics(experiment: Experiment, seed: int, kinds: Iterable[str], measured: bool) -> OfSeed:
    """The same of a random model. Each encoder is built for itself: statistics of batch norm are changed in place."""

    def build(kind: str) -> PreTrainedModel:
        return experiment.as_fast_layout(experiment.blueprint.random(seed).encoders[kind])

    transfers = {
        kind: random_transfer(
            partial(build, kind),
            experiment.labelled,
            kind,
            description=f"random, seed {seed}",
            **transfer_options(experiment, kind),
        )
        for kind in kinds
    }
    if not measured:
        return OfSeed({}, transfers, {})
    model = experiment.as_fast_layout(experiment.blueprint.random(seed))
    request = experiment.request
    return OfSeed({}, transfers, measure_model(model, experiment.labelled, request.first.device, request.settings))


def transfer_options(experiment: Experiment, kind: str) -> dict:
    """How transfer of a kind's encoder is measured."""
    device = experiment.request.first.device
    return {"methods": experiment.methods(kind), "device": device, "dtype": precision(experiment, kind)}


def compared(
    experiment: Experiment, kind: str, trained: list[OfSeed], random: list[OfSeed], random_seeds: list[int]
) -> dict:
    """Transfer of one kind's encoders: trained, random and baselines, layers chosen for all seeds together."""
    labelled = experiment.labelled
    ours, theirs = (chosen_together([each.transfers[kind] for each in some]) for some in (trained, random))
    baselines = baseline_transfer(kind, labelled, experiment.methods(kind))
    return {
        **described(labelled),
        "kind": kind,
        "test_seen_in_pretraining": labelled.split_by_us
        and labelled.name in [source.name for source in experiment.data.sources],
        "random_seeds": random_seeds,
        **compare(ours, theirs, baselines, labelled.labels.majority()),
        "details": {"trained": ours, "random": theirs, **baselines},
    }


def precision(experiment: Experiment, kind: str) -> torch.dtype | None:
    """What features of a kind are extracted in, where not float32."""
    modality = experiment.inputs.by_name[kind]
    return torch.bfloat16 if modality.features_in_bf16 and experiment.request.first.bf16 else None


def about(experiment: Experiment) -> str | None:
    """What the recipe says of itself in one line; None where the command line made it another one."""
    framework = {field.name for field in dataclasses.fields(TrainingArguments)}
    as_it_stands = experiment.request.given.keys() <= {*framework, "seeds", *CARD_SETTINGS}
    return (experiment.request.recipe.doc.strip().partition("\n")[0] or None) if as_it_stands else None


def facts(experiment: Experiment, records: dict[int, dict]) -> dict:
    """Everything about a run but its metrics."""
    request, blueprint, data = experiment.request, experiment.blueprint, experiment.data
    hidden = ("identity", "repository")
    return {
        "version": VERSION,
        "recipe": request.recipe.name,
        "about": about(experiment),
        "smoke": request.options.smoke,
        "folder": relative(request.first.output_dir),
        "objective": {"name": request.objective.objective, **dataclasses.asdict(blueprint.task)},
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
        "stream": dataclasses.asdict(request.stream),
        "settings": changed_arguments(request),
        "processes": request.first.world_size,
        "layout": "channels_last" if experiment.trial.convolutional else "contiguous",
        "machine": describe(request.first.device),
        "versions": versions(),
        "code_revision": code_revision(),
        "seeds": [{name: v for name, v in record.items() if name not in hidden} for record in records.values()],
    }


def output_folder(experiment: Experiment) -> Path:
    """Where results go."""
    return Path(experiment.request.first.output_dir)
