"""Publishing: results.json, the card, the report, the screen, and the Hub where that is asked for.

Experiment + results -> files, lines, a push
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import TrainingArguments
from transformers.utils import logging

from ..cards import REPORT, RESULTS
from ..cards import publish as write_card
from ..cards.panels import panel_of
from ..cards.report import draw
from ..cards.terminal import show
from ..cards.usage import tried
from ..utils.files import write_json
from ..utils.hub import full_name
from .evaluate import output_folder
from .experiment import Experiment

log = logging.get_logger(__name__)


def publish(experiment: Experiment, results: dict, repository: str | None, began: float) -> dict:
    """Writes results down in every form, and shows them. Returns what results.json holds.

    repository: of --push_to_hub. began: when evaluation did, by `time.perf_counter`."""
    folder, panel = output_folder(experiment), None
    results["usage"] = tried(results, folder)
    if experiment.labelled is not None:
        write_json(folder / RESULTS, {**results, "evaluation_seconds": time.perf_counter() - began})
        try_to_write_card(folder)  # before anything is drawn: what was measured must not hang on an image
        with survived("The test set was not drawn"):
            panel = panel_of(experiment.panel_models(), experiment.labelled, results, experiment.request.first.device)
    results["evaluation_seconds"] = time.perf_counter() - began
    write_json(folder / RESULTS, results)
    with survived("No report was drawn"):
        draw(folder / REPORT, results, panel)
    try_to_write_card(folder)
    experiment.request.say("")
    with survived("Its metrics are not shown"):
        show(folder, experiment.request.recipe.name)
    if experiment.request.first.push_to_hub:
        publish_on_hub(experiment.request.first, folder, experiment.request.say, repository)
    return results


@contextmanager
def survived(loss: str) -> Iterator[None]:
    """A warning in place of an error: a run that trained for days must not end for the want of an image."""
    try:
        yield
    except Exception as error:
        log.warning(f"{loss}: {type(error).__name__}: {error}")


def try_to_write_card(folder: Path) -> None:
    """Writes the card, if it can be written."""
    with survived(f"No card was written. Try again: hf-pretext card {folder}"):
        write_card(folder)


def publish_on_hub(args: TrainingArguments, folder: Path, say: Callable[[str], None], repository: str | None) -> None:
    """Does what --push_to_hub asks for. What fails is said, and can be done again: everything lies in the folder."""
    from ..cards.push import push

    repository = repository or args.hub_model_id or folder.name
    private, revision = args.hub_private_repo, args.hub_revision or "main"
    try:
        repository = full_name(repository, args.hub_token)
        address = push(folder, repository, private, revision, token=args.hub_token, say=say)
        say(f"\nPublished: {address}")
    except (ValueError, OSError) as error:
        options = " --private" * bool(private) + (f" --revision {revision}" if revision != "main" else "")
        say(f"\nNot published: {error}\n  hf-pretext push {folder} {repository}{options}")
