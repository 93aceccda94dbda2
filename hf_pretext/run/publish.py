"""Writes results.json, the model card and the report, prints the results, and pushes them with --push_to_hub.

Experiment + results -> files, text in the terminal, a push
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import TrainingArguments
from transformers.utils import logging

from ..cards import REPORT, RESULTS
from ..cards import publish as write_card
from ..cards.panels import IMAGE, Panel, panels_of, panels_without_labels
from ..cards.report import draw
from ..cards.terminal import show
from ..cards.usage import tried
from ..utils.files import write_json
from ..utils.hub import full_name
from .evaluate import output_folder
from .experiment import Experiment

log = logging.get_logger(__name__)


def publish(experiment: Experiment, results: dict, repository: str | None, began: float) -> dict:
    """Writes and prints the results, and pushes the run with --push_to_hub. Returns the content of results.json.

    repository: Hub repository of --push_to_hub. began: start of the evaluation, from `time.perf_counter`, in
    seconds."""
    folder, panels = output_folder(experiment), []
    results["usage"] = tried(results, folder)
    of_images = "health" in results and IMAGE in results["health"]["channels"]
    if experiment.labelled is not None or of_images:
        write_json(folder / RESULTS, {**results, "evaluation_seconds": time.perf_counter() - began})
        try_to_write_card(folder)  # first, because drawing may fail
        with survived("The report has no examples"):
            panels = panels_for(experiment, results)
    results["evaluation_seconds"] = time.perf_counter() - began
    write_json(folder / RESULTS, results)
    with survived("The report was not written"):
        draw(folder / REPORT, results, panels)
    try_to_write_card(folder)
    log_results(experiment, folder, results)
    experiment.request.say("")
    with survived("The metrics can't be shown"):
        show(folder, next_command(experiment))
    if experiment.request.first.push_to_hub:
        publish_on_hub(experiment.request.first, folder, experiment.request.say, repository)
    return results


def panels_for(experiment: Experiment, results: dict) -> list[Panel]:
    """Returns the panels of the report: of test examples, or without a labelled set of held-out images."""
    models, device = experiment.panel_models(), experiment.request.first.device
    if experiment.labelled is None:
        return panels_without_labels(models, experiment.health_rows, device)
    return panels_of(models, experiment.sets.shown, results, device)


def next_command(experiment: Experiment) -> str:
    """Returns the command to try next: the same task on the user's data, or with that, an evaluation on labels."""
    request = experiment.request
    if "dataset" not in request.given:
        return f"{request.recipe.command} --dataset path/to/your/data --output_dir runs/mine"
    return f"hf-pretext evaluate {output_folder(experiment)} --dataset path/to/labelled/data"


def log_results(experiment: Experiment, folder: Path, results: dict) -> None:
    """Logs the results in the trackers of --report_to. An error becomes a warning."""
    trackers = experiment.request.trackers
    for tracker in trackers.active:
        with survived(f"{type(tracker).__name__} of --report_to has no results"):
            trackers.log_results(tracker, folder, results)


@contextmanager
def survived(loss: str) -> Iterator[None]:
    """Turns an error into a warning, because a failed image must not end a long run. loss: start of the warning."""
    try:
        yield
    except Exception as error:
        log.warning(f"{loss}: {type(error).__name__}: {error}")


def try_to_write_card(folder: Path) -> None:
    """Writes the model card. An error becomes a warning."""
    with survived(f"The model card was not written. Try again: hf-pretext card {folder}"):
        write_card(folder)


def publish_on_hub(args: TrainingArguments, folder: Path, say: Callable[[str], None], repository: str | None) -> None:
    """Pushes the run to the Hub. If it fails, prints the reason and the command that pushes the folder again.

    repository: full name or name; default: --hub_model_id or the name of the folder. say: prints a text."""
    from ..cards.push import push

    repository = repository or args.hub_model_id or folder.name
    private, revision = args.hub_private_repo, args.hub_revision or "main"
    try:
        repository = full_name(repository, args.hub_token)
        address = push(folder, repository, private, revision, token=args.hub_token, say=say)
        say(f"\nPushed to the Hub: {address}")
    except (ValueError, OSError) as error:
        options = " --private" * bool(private) + (f" --revision {revision}" if revision != "main" else "")
        say(f"\nNot pushed to the Hub: {error}\n  hf-pretext push {folder} {repository}{options}")
