"""What a setting that weakens the best cue of a task does to this cue's share, and to transfer.

    python benchmarks/weaker_cues.py                             # all recipes: hours on 2 cores
    python benchmarks/weaker_cues.py rotation_emoji --jobs 2
    python benchmarks/weaker_cues.py rotation_emoji --seeds 0 --options --max_steps 300    # a quick look

Each setting is a run of a recipe with --audit and three seeds, in a folder of its own below --runs: a finished run is
not repeated, and a stopped one resumes. Rows of finished runs are kept in benchmarks/weaker_cues.json (--rows), and the
table benchmarks/weaker_cues.md (--output) is made of all of them. With --seeds or --options, runs have other folders,
and the table is only printed. The best cue is that of the recipe as it is; "without
it" is the accuracy of the model if the cue is that of another example. A setting helps if transfer or retrieval is
above the recipe's by more than 2 * sqrt(s1^2 + s2^2).
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

from ablation import RECIPES, where

from hf_pretext.audit.entry import best_cue, share_of
from hf_pretext.audit.task import ACCURACY, BITS, WITHOUT
from hf_pretext.cards.results import read_results
from hf_pretext.cards.summary import probe

HERE = Path(__file__).parent
FEWER = ("--num_train_epochs", "0.3")
AS_IT_IS = "as it is"
SETTINGS = {  # recipe: {name: options}; the first is the recipe as it is
    "rotation_emoji": {AS_IT_IS: (), "moved by up to 0.2 of the side": ("--max_shift", "0.2")},
    "contrastive_emoji": {
        AS_IT_IS: (),
        "color_jitter 0.4, a fifth grey": ("--color_jitter", "0.4", "--grayscale", "0.2"),
    },
    "masked_lm_reviews": {
        "0.3 epochs": FEWER,
        "0.3 epochs, whole words": (*FEWER, "--unit", "word"),
        "0.3 epochs, spans": (*FEWER, "--unit", "span"),
    },
}
MEASURES = ("image_to_text_r1", "image_to_text_r10")  # of pairs, next to transfer


def folder_of(runs: Path, recipe: str, setting: str, given: list[str]) -> Path:
    """Returns the folder of a run. given: options of all runs."""
    words = "".join(c if c.isalnum() else " " for c in " ".join([setting, *given])).split()
    return runs / "-".join([recipe, *words])


def finished(folder: Path) -> bool:
    """Returns whether a run has its results, with the audit."""
    return (folder / "results.json").exists() and "audit" in read_results(folder)


def run_all(cases: list[tuple[str, str]], runs: Path, jobs: int, given: list[str]) -> None:
    """Runs recipes, `jobs` at a time. Raises `RuntimeError` for one that fails."""
    waiting, running = [case for case in cases if not finished(folder_of(runs, *case, given))], {}
    while waiting or running:
        while waiting and len(running) < jobs:
            recipe, setting = waiting.pop(0)
            folder = folder_of(runs, recipe, setting, given)
            options = ["--audit", "--output_dir", str(folder), *SETTINGS[recipe][setting], *given]
            resumed = ["--resume_from_checkpoint", "last"] if folder.exists() else []
            print(f"{recipe}, {setting}: {folder}", flush=True)
            process = subprocess.Popen([sys.executable, str(RECIPES / f"{recipe}.py"), *options, *resumed])
            running[process] = recipe, setting
        for process in [each for each in running if each.poll() is not None]:
            recipe, setting = running.pop(process)
            if process.returncode:
                raise RuntimeError(f"{recipe}, {setting} failed. Call this script again to resume it.")
        time.sleep(1)


def row_of(folder: Path, cue: str | None) -> dict:
    """Returns what the table has of a run. cue: the best one of the recipe as it is; None for the run's own."""
    results = read_results(folder)
    audit = results["audit"]
    best = best_cue(audit) or (next(iter(audit["cues"])), None)  # of a model that answers nothing: any
    cue = cue or best[0]
    table, read = probe(results), audit["cues"][cue]
    measures = results.get("measures", {}).get("trained", {})
    return {
        "cue": cue,
        "seeds": len(results["seeds"]),
        "steps": results["seeds"][0]["steps"],
        "reveals": read[BITS],
        "answered": audit["task"]["trained"][BITS],
        "share": share_of(audit, read),
        "best": best[0],
        "accuracy": audit["task"]["trained"][ACCURACY],
        "without": read.get(WITHOUT),
        "linear probe": table.trained,
        "random": table.random,
        "kNN": results["transfer"]["figures"]["trained"]["knn_top1"],
        **{name: measures[name] for name in MEASURES if name in measures},
        "where": where(),
    }


def shown(value: dict | None) -> str:
    """Returns mean and standard deviation in words."""
    if value is None:
        return "—"
    return f"{value['mean']:.3f}" + (f" ± {value['std']:.3f}" if value.get("std") is not None else "")


def verdict(before: dict, after: dict, name: str) -> str:
    """Returns whether a setting is above or below the recipe as it is by more than the spread of the seeds."""
    one, other = before.get(name), after.get(name)
    if one is None or None in (one.get("std"), other.get("std")):
        return "—"
    difference, limit = other["mean"] - one["mean"], 2 * math.hypot(one["std"], other["std"])
    word = "above" if difference > limit else "below" if difference < -limit else "within the spread"
    return f"{difference:+.3f}, {word}"


def page(rows: dict[str, dict[str, dict]]) -> str:
    """Returns the tables in Markdown."""
    lines = [
        "Settings that weaken the best cue of a task, measured with `python benchmarks/weaker_cues.py`: mean, standard "
        "deviation over the seeds, on test. Bits are of one answer of the task; those of the cue are what a small "
        'reader gets from it alone, and its share is of the bits of the model. "Without it": accuracy of the model on '
        "the task, with the cue of another example. Random changes of training images, such as of colours, are no part "
        "of the task: the readers see images as they are, so that the bits of a cue stay, and only how much the "
        'model relies on it may change. A difference is "above" or "below" the recipe as it is if it is '
        "larger than twice the standard deviation of such a difference.",
    ]
    for recipe, of_recipe in rows.items():
        first = next(iter(of_recipe.values()))
        metrics = ["linear probe", "kNN", *(name for name in MEASURES if name in first)]
        names = {name: name.replace("_", " ").replace(" r", " R@") for name in metrics}
        lines += [
            "",
            f"## {recipe}: {first['cue']}",
            "",
            f"{first['seeds']} seeds, {first['where']}. Linear probe of random encoders: {shown(first['random'])}.",
            "",
            "| setting | steps | bits of the cue | bits of the model | share | accuracy | without it | best cue | "
            + " | ".join(f"{names[name]} | difference" for name in metrics)
            + " |",
            "|---|--:|--:|--:|--:|--:|--:|---|" + "--:|--:|" * len(metrics),
        ]
        for setting, row in of_recipe.items():
            of_metrics = [f"{shown(row[n])} | {'' if row is first else verdict(first, row, n)}" for n in metrics]
            share = "—" if row["share"] is None else f"{row['share']:.0%}"
            cells = [setting, f"{row['steps']:,}", shown(row["reveals"]), shown(row["answered"]), share]
            cells += [shown(row["accuracy"]), shown(row["without"]), row["best"], *of_metrics]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", choices=[*SETTINGS, []], help="Recipes to run. Default: all.")
    parser.add_argument("--seeds", nargs="+", default=[], help="Default: those of the recipe.")
    parser.add_argument("--jobs", type=int, default=1, help="Runs at a time.")
    parser.add_argument("--runs", type=Path, default=Path("runs/weaker_cues"), help="Folder of the runs.")
    parser.add_argument("--rows", type=Path, default=HERE / "weaker_cues.json", help="JSON file that keeps the rows.")
    parser.add_argument("--output", type=Path, default=HERE / "weaker_cues.md")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="Options of all runs.")
    args = parser.parse_args()
    recipes = args.recipes or [*SETTINGS]
    given = [*(["--seeds", *args.seeds] if args.seeds else []), *args.options]
    run_all([(recipe, setting) for recipe in recipes for setting in SETTINGS[recipe]], args.runs, args.jobs, given)
    rows = json.loads(args.rows.read_text()) if args.rows.exists() and not given else {}
    for recipe in recipes:
        rows[recipe], cue = {}, None
        for setting in SETTINGS[recipe]:
            rows[recipe][setting] = row_of(folder_of(args.runs, recipe, setting, given), cue)
            cue = rows[recipe][setting]["cue"]
    rows = {recipe: rows[recipe] for recipe in SETTINGS if recipe in rows}
    if not given:
        args.rows.write_text(json.dumps(rows, indent=2) + "\n")
        args.output.write_text(page(rows))
    print(page(rows))


if __name__ == "__main__":
    main()
