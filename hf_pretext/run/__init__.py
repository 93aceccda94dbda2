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
    from ..stream.sole_run import sole_run
    from .checks import check_output
    from .evaluate import evaluate
    from .experiment import ask, plan
    from .publish import publish
    from .train import train

    request = ask(recipe, objective, command_line, values)
    check_output(request)
    with sole_run(request.first.output_dir):  # while planning too, which checks what the folder contains by now
        experiment = plan(request)
        records = train(experiment)
        if not request.main_process:
            return None
        began = time.perf_counter()
        repository = next(iter(records.values())).get("repository")
        return publish(experiment, evaluate(experiment, records), repository, began)
