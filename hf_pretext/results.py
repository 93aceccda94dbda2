"""What a run has shown: figures, facts, card and report.

trained seeds + labelled pictures -> results.json, report.png, README.md, a table on the screen
"""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, TrainingArguments

from .cards import RESULTS, publish, show
from .cards.report import Neighbours, draw
from .command_line import relative
from .evaluation.comparison import compare, encoder_transfer, pixel_transfer, pretext_figures, random_transfer
from .evaluation.knn import TEMPERATURE, K, neighbours
from .evaluation.transfer import chosen_together, mean_and_spread
from .features import extract
from .files import write_json
from .machine import describe, versions
from .modeling import build_encoder

if TYPE_CHECKING:
    from .run import Run

RANDOM_SEEDS = 3
QUERIES, NEIGHBOURS = 8, 6  # of the report
NOT_SETTINGS = ("output_dir", "seed", "resume_from_checkpoint", "hub_token", "disable_tqdm")


def publish_results(run: "Run") -> dict:
    """Evaluates what was trained, writes it down in every form, and shows it. Returns what results.json holds."""
    begun = time.perf_counter()
    results, panel = facts(run), None
    if run.labelled is not None:
        results.update(figures(run))
        panel = nearest(run, results["transfer"]["details"])
    results["evaluation_seconds"] = time.perf_counter() - begun
    folder = Path(run.first.output_dir)
    write_json(folder / RESULTS, results)
    draw(folder / "report.png", results, panel)
    publish(folder)
    run.say("")
    show(folder, run.recipe.name)
    return results


def figures(run: "Run") -> dict:
    """The pretext task on test, and transfer beside the baselines."""
    device, labelled = run.first.device, run.labelled
    trained, pretext = [], []
    for seed, args in run.args.items():
        model = run.laid_out(run.objective.from_pretrained(args.output_dir, dtype=torch.float32))
        pretext.append(pretext_figures(model, labelled.batches("test"), device))
        found = encoder_transfer(model.encoder, labelled, device=device, description=f"trained, seed {seed}")
        trained.append({"as trained": found})

    def build() -> PreTrainedModel:
        return run.laid_out(run.fresh(seed, random=True)[0].encoder)

    random = []
    seeds = list(dict.fromkeys([*run.args, *range(RANDOM_SEEDS)]))[: max(RANDOM_SEEDS, len(run.args))]
    for seed in seeds:
        random.append(random_transfer(build, labelled, device=device, description=f"random, seed {seed}"))
    trained, random, pixels = chosen_together(trained), chosen_together(random), pixel_transfer(labelled)
    compared = compare(trained, random, pixels, labelled.labels.majority())
    return {
        "pretext": {name: mean_and_spread([found[name] for found in pretext]) for name in pretext[0]},
        "transfer": {
            "dataset": relative(labelled.name),
            "label": labelled.label,
            "classes": labelled.labels.names,
            "pictures": {split: len(values) for split, values in labelled.labels.splits.items()},
            "left_out": dict(labelled.left_out),
            "random_seeds": seeds,
            **compared,
            "details": {"trained": trained, "random": random, "pixels": pixels},
        },
    }


def nearest(run: "Run", details: dict) -> Neighbours | None:
    """Pictures of test beside the nearest ones of train, by the first trained and the first random encoder."""
    pixels, labels = run.labelled.pixels, run.labelled.labels.splits
    if not pixels:  # a set too large to be kept
        return None
    encoders = {
        "trained": run.objective.from_pretrained(run.first.output_dir, dtype=torch.float32).encoder,
        "random": run.fresh(run.first.seed, random=True)[0].encoder,
    }
    queries = evenly(len(pixels["test"]), QUERIES)
    found = {}
    for who, encoder in encoders.items():
        layers = (details[who][0]["knn"]["layer"],)
        bank, asked = (
            extract(
                run.laid_out(encoder),
                run.labelled.batches(split),
                layers,
                device=run.first.device,
                description=f"neighbours by the {who} encoder",
            )
            for split in ("train", "test")
        )
        closest = neighbours(bank[layers[0]], asked[layers[0]][queries], NEIGHBOURS)
        same = labels["train"][closest] == labels["test"][queries][:, None]
        found[who] = (pixels["train"][torch.from_numpy(closest)], same)
    return Neighbours(pixels["test"][queries], found)


def facts(run: "Run") -> dict:
    """Everything about a run but its figures."""
    return {
        "recipe": run.recipe.name,
        "smoke": run.options.smoke,
        "folder": relative(run.first.output_dir),
        "objective": {"name": run.objective.objective, **dataclasses.asdict(run.task)},
        "encoder": {
            "class": run.encoder_class,
            "model_type": run.config.model_type,
            "start": run.options.encoder and relative(run.options.encoder),
            "parameters": sum(p.numel() for p in build_encoder(run.config).parameters()),
        },
        "data": {
            "dataset": " + ".join(relative(source.name) for source in run.source.sources),
            "split": run.options.split,
            "rows": None if run.source.endless else len(run.source),
            "mixture_weights": run.source.weights,
        },
        "image_size": list(run.processing.size),
        "augmentation": dataclasses.asdict(run.augmentation),
        "stream": dataclasses.asdict(run.stream),
        "settings": settings(run),
        "processes": run.first.world_size,
        "layout": "channels_last" if run.convolutional else "contiguous",
        "machine": describe(run.first.device),
        "versions": versions(),
        "knn": {"k": K, "temperature": TEMPERATURE},
        "seeds": list(run.seeds.values()),
    }


def settings(run: "Run") -> dict:
    """Training arguments that differ from transformers' defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    own = {**{name: run.values[name] for name in run.values if name in defaults}, "bf16": run.first.bf16}
    return {k: v for k, v in sorted(own.items()) if v != defaults[k] and k not in NOT_SETTINGS}


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` indices spread over `count`; all of them where there are less."""
    return sorted({i * count // wanted for i in range(wanted)})
