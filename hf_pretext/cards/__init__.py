"""results.json -> README.md of a Hub repository, and the table that ends a run. No figure is typed by hand.

folder with results.json -> README.md, a table on the screen
"""

import json
import os
from pathlib import Path

from ..files import write_text

METHODS = {"linear_probe": "linear probe", "knn": "kNN"}
RESULTS, CARD = "results.json", "README.md"
TABLE_WIDTH = 88


def read_results(folder: str | os.PathLike) -> dict:
    """What a run measured. Raises `ValueError` where the folder holds no results."""
    path = Path(folder) / RESULTS
    if not path.exists():
        raise ValueError(f"{folder} holds no {RESULTS}: a recipe writes it at its end. Give the --output_dir of a run.")
    return json.loads(path.read_text())


def render(results: dict, has_report: bool = False) -> str:
    """The card's text. has_report: whether report.png lies beside it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hf_pretext", "cards"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    verdicts = verdict(results) if "transfer" in results else []
    template = environment.get_template("card.md.jinja")
    return template.render(results, rows=table(results), verdicts=verdicts, has_report=has_report)


def publish(folder: str | os.PathLike) -> Path:
    """Writes the card of a run from its results, and returns where."""
    path = Path(folder) / CARD
    write_text(path, render(read_results(folder), (Path(folder) / "report.png").exists()))
    return path


def figure(value: dict | None) -> str:
    """A mean with its spread, as `0.545 ± 0.008`; without one for a single seed."""
    if value is None:
        return ""
    return f"{value['mean']:.3f}" + (f" ± {value['std']:.3f}" if value["std"] is not None else "")


def table(results: dict) -> list[list[str]]:
    """Rows of the transfer table: who, then top-1 and mean per-class accuracy of each method."""
    if "transfer" not in results:
        return []
    figures = results["transfer"]["figures"]
    names = {
        "trained": f"trained ({results['objective']['name']})",
        "random": "random",
        "pixels": "pixels",
        "majority": "majority",
    }
    columns = [f"{method}_{kind}" for method in METHODS for kind in ("top1", "mean_class")]
    return [[names[who], *(figure(figures[who][column]) for column in columns)] for who in names]


def verdict(results: dict) -> list[str]:
    """One sentence for each method: whether the trained encoder beats the random one."""
    sentences = []
    for method, words in METHODS.items():
        answer = results["transfer"]["beats_random"][f"{method}_top1"]
        trained, random = (results["transfer"]["figures"][who][f"{method}_top1"] for who in ("trained", "random"))
        gain = f"{words}: {trained['mean'] - random['mean']:+.3f} over random"
        reason = {
            True: "more than twice the spread of the seeds: it beats random",
            False: "NOT more than twice the spread of the seeds: nothing is shown",
            None: "no verdict: that takes 3 seeds on each side",
        }[answer]
        sentences.append(f"{gain}, {reason}")
    return sentences


def show(folder: str | os.PathLike, recipe: str) -> None:
    """Prints what a run has shown, how to load it and what to do next."""
    from rich.console import Console
    from rich.table import Table

    results, console = read_results(folder), Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)  # a wrapped table can't be read
    if "transfer" in results:
        transfer = results["transfer"]
        shown = Table(
            title=f"{transfer['label']} of {transfer['dataset']}, test split: {transfer['pictures']['test']} pictures, "
            f"{len(transfer['classes'])} classes"
        )
        shown.add_column("frozen encoder", no_wrap=True)
        for method in METHODS.values():
            shown.add_column(f"{method}\ntop-1", justify="right", no_wrap=True)
            shown.add_column(f"{method}\nper class", justify="right", no_wrap=True)
        for row in table(results):
            shown.add_row(*row)
        console.print(shown)
        for sentence in verdict(results):
            console.print(sentence, soft_wrap=True)
        pretext = ", ".join(f"{name} {figure(value)}" for name, value in results["pretext"].items())
        console.print(f"the pretext task itself, on test: {pretext}", soft_wrap=True)
    else:
        console.print("No transfer figures: --eval_dataset none.")
    seconds = sum(seed["seconds"] for seed in results["seeds"])
    speed = sum(seed["samples_seen"] for seed in results["seeds"]) / seconds
    console.print(
        f"{seconds / 60:.1f} minutes of training ({speed:.0f} pictures/s), "
        f"{results['evaluation_seconds'] / 60:.1f} of evaluation\n"
    )
    console.print("Load the encoder anywhere, with plain transformers:\n", style="bold")
    console.print(loading_lines(str(folder)) + "\n", soft_wrap=True, markup=False)
    console.print(
        f"Look at [bold]{folder}/report.png[/bold] and [bold]{folder}/README.md[/bold]. Next:", soft_wrap=True
    )
    console.print(
        f"  python recipes/{recipe}.py --dataset path/to/your/pictures --output_dir runs/mine\n"
        f"  hf upload you/your-encoder {folder} --exclude 'checkpoint-*' 'seed-*'",
        soft_wrap=True,
        markup=False,
    )


def loading_lines(folder: str) -> str:
    """The three lines that load an encoder and its processor."""
    return (
        "  from transformers import AutoImageProcessor, AutoModel\n"
        f'  processor = AutoImageProcessor.from_pretrained("{folder}")\n'
        f'  encoder = AutoModel.from_pretrained("{folder}")'
    )
