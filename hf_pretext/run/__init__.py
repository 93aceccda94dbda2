"""Runs a recipe: plan, train, evaluate, publish."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..modeling import PretextModel
from .command_line import CommandLine

if TYPE_CHECKING:
    from ..recipe import Recipe


def run(
    recipe: "Recipe", objective: type[PretextModel], command_line: CommandLine, values: Mapping[str, Any]
) -> dict | None:
    """Plans, trains, evaluates and publishes. Returns the content of results.json on the main process, None on others.

    values: values of all options. Raises `ValueError`, before training and before any file is written, for options that
    are wrong or don't fit the data or the model."""
    from .evaluate import evaluate
    from .experiment import plan
    from .publish import publish
    from .train import train

    experiment = plan(recipe, objective, command_line, values)
    records = train(experiment)
    if not experiment.request.main_process:
        return None
    began = time.perf_counter()
    repository = next(iter(records.values())).get("repository")
    return publish(experiment, evaluate(experiment, records), repository, began)
