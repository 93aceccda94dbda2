"""What a run has shown: figures, facts, card and report.

trained seeds + labelled pictures -> results.json, report.png, README.md, a table on the screen
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import logging

from ..cards import REPORT, RESULTS, publish
from ..cards.report import draw
from ..cards.terminal import show
from ..cards.usage import tried
from ..encoders import build_encoder
from ..evaluation.comparison import (
    compare,
    compare_measures,
    described,
    encoder_transfer,
    pretext_figures,
    random_transfer,
)
from ..evaluation.transfer import chosen_together, mean_and_spread
from ..utils.files import without_nan, write_json
from ..utils.hub import full_name
from ..utils.machine import code_revision, describe, versions
from ..utils.paths import relative
from .experiment import settings

if TYPE_CHECKING:
    from .experiment import Run

log = logging.get_logger(__name__)
RANDOM_SEEDS = 3
CARD_SETTINGS = ("license", "language", "limits")  # what only its author can say


def publish_results(run: "Run") -> dict:
    """Evaluates what was trained, writes it down in every form, and shows it. Returns what results.json holds."""
    begun = time.perf_counter()
    results, folder, panel = facts(run), Path(run.first.output_dir), None
    if run.labelled is not None:
        results.update(without_nan(figures(run)))  # one that overflowed must not lose the others
    results["usage"] = tried(results, folder)
    if run.labelled is not None:
        write_json(folder / RESULTS, {**results, "evaluation_seconds": time.perf_counter() - begun})
        try_to_publish(folder)  # before anything is drawn: what was measured must not hang on a picture
        with survived("No picture of the test set was drawn"):
            panel = run.data.panel(run.labelled, results)
    results["evaluation_seconds"] = time.perf_counter() - begun
    write_json(folder / RESULTS, results)
    with survived("No report was drawn"):
        draw(folder / REPORT, results, panel)
    try_to_publish(folder)
    run.say("")
    with survived("Its figures are not shown"):
        show(folder, run.recipe.name)
    if run.first.push_to_hub:
        publish_on_hub(run, folder)
    return results


@contextmanager
def survived(loss: str) -> Iterator[None]:
    """A warning in place of an error: a run that has trained for days must not end for the want of a picture."""
    try:
        yield
    except Exception as error:
        log.warning(f"{loss}: {type(error).__name__}: {error}")


def try_to_publish(folder: Path) -> None:
    """Writes the card, if it can be written."""
    with survived(f"No card was written. Try again: hf-pretext card {folder}"):
        publish(folder)


def publish_on_hub(run: "Run", folder: Path) -> None:
    """What --push_to_hub asks for. What fails now is told, and can be done again: all lies in the folder."""
    from ..cards.push import push

    args, repository = run.first, run.repository or run.first.hub_model_id or folder.name
    private, revision = args.hub_private_repo, args.hub_revision or "main"
    try:
        repository = full_name(repository, args.hub_token)
        told = push(folder, repository, private, revision, token=args.hub_token, say=run.say)
        run.say(f"\nPublished: {told}")
    except (ValueError, OSError) as error:
        again = " --private" * bool(private) + (f" --revision {revision}" if revision != "main" else "")
        run.say(f"\nNot published: {error}\n  hf-pretext push {folder} {repository}{again}")


def figures(run: "Run") -> dict:
    """The pretext task on test, and transfer beside the baselines."""
    labelled = run.labelled
    options = dict(methods=run.data.methods, device=run.first.device, dtype=run.data.precision(run.first))
    trained, pretext, measured = [], [], {"trained": [], "random": []}
    for seed, args in run.args.items():
        model = run.laid_out(run.trained(args.output_dir))
        pretext.append(pretext_figures(model, labelled.pretext_batches("test"), run.first.device))
        found = encoder_transfer(model.encoder, labelled, description=f"trained, seed {seed}", **options)
        trained.append({"as trained": found})
        measured["trained"].append(run.data.measures(model, labelled))

    random = []
    seeds = list(dict.fromkeys([*run.args, *range(RANDOM_SEEDS)]))[: max(RANDOM_SEEDS, len(run.args))]
    for seed in seeds:

        def build(seed=seed) -> PreTrainedModel:
            return run.laid_out(run.random(seed))

        random.append(random_transfer(build, labelled, description=f"random, seed {seed}", **options))
        measured["random"].append(run.data.measures(run.laid_out(run.fresh(seed, random=True)[0]), labelled))
    trained, random, baselines = chosen_together(trained), chosen_together(random), run.data.baselines(labelled)
    compared = compare(trained, random, baselines, labelled.labels.majority())
    chance = run.data.by_chance(labelled)
    return {
        **({"measures": compare_measures(**measured, chance=chance)} if chance else {}),
        "pretext": {name: mean_and_spread([found[name] for found in pretext]) for name in pretext[0]},
        "transfer": {
            **described(labelled),
            "test_seen_in_pretraining": labelled.split_by_us
            and labelled.name in [source.name for source in run.source.sources],
            "random_seeds": seeds,
            **compared,
            "details": {"trained": trained, "random": random, **baselines},
        },
    }


def about(run: "Run") -> str | None:
    """What the recipe says of itself in one line; None where the command line made it another one."""
    framework = {field.name for field in dataclasses.fields(TrainingArguments)}
    as_it_stands = run.given.keys() <= {*framework, "seeds", *CARD_SETTINGS}
    return (run.recipe.doc.strip().partition("\n")[0] or None) if as_it_stands else None


def facts(run: "Run") -> dict:
    """Everything about a run but its figures."""
    return {
        "recipe": run.recipe.name,
        "about": about(run),
        "smoke": run.options.smoke,
        "folder": relative(run.first.output_dir),
        "objective": {"name": run.objective.objective, **dataclasses.asdict(run.task)},
        "encoder": {
            "class": run.encoder_class,
            "model_type": run.config.model_type,
            "start": run.data.begun_from(),
            "base_models": [path for path in run.data.checkpoints() if not Path(path).exists()],  # of the Hub
            "parameters": sum(p.numel() for p in build_encoder(run.config).parameters()),
        },
        "data": {
            "dataset": " + ".join(relative(source.name) for source in run.source.sources),
            "split": run.options.split,
            "rows": None if run.source.endless else len(run.source),
            "mixture_weights": run.source.weights,
            "revisions": {source.name: source.revision for source in run.source.sources if source.revision},
        },
        "modality": "_".join(run.objective.inputs),
        "card": {name: getattr(run.options, name) for name in CARD_SETTINGS},
        "samples": run.data.samples,
        **run.data.facts(),
        "stream": dataclasses.asdict(run.stream),
        "settings": settings(run),
        "processes": run.first.world_size,
        "layout": "channels_last" if run.convolutional else "contiguous",
        "machine": describe(run.first.device),
        "versions": versions(),
        "code_revision": code_revision(),
        "seeds": [{name: value for name, value in seed.items() if name != "identity"} for seed in run.seeds.values()],
    }
