"""What a person sees at the end of a run or of an evaluation: tables, verdicts, and what to do next.

results -> tables on the screen
"""

import os
import textwrap

from . import CARD, REPORT, columns, figure, measured, read_results, table, verdict
from .usage import lines

TABLE_WIDTH = 96


def console():
    """A terminal on which nothing is coloured by guessing, wide enough for a table: a wrapped one can't be read."""
    from rich.console import Console

    made = Console(highlight=False)
    made.width = max(made.width, TABLE_WIDTH)
    return made


def show_transfer(results: dict) -> None:
    """Prints the table of transfer, and a sentence for each method."""
    from rich.table import Table
    from rich.text import Text

    transfer, screen = results["transfer"], console()
    title = f"{transfer['label']} of {transfer['dataset']}, test split: {transfer['rows']['test']:,} rows"
    shown = Table(title=Text(f"{title}, {len(transfer['classes'])} classes"))  # names are no markup
    shown.add_column("frozen encoder", no_wrap=True)
    for method, kind in columns(results).values():
        shown.add_column(f"{method}\n{kind}".replace(", ", "\n"), justify="right", no_wrap=True)
    for row in table(results):
        shown.add_row(*row)
    screen.print(shown)
    for sentence in verdict(results):
        screen.print(sentence, soft_wrap=True, markup=False)
    if transfer["test_seen_in_pretraining"]:
        screen.print("The test split was cut from what was pretrained on: these figures are not of unseen data.")


def show(folder: str | os.PathLike, recipe: str) -> None:
    """Prints what a run has shown, how to load it and what to do next."""
    from rich.table import Table

    results, screen = read_results(folder), console()
    if "transfer" in results:
        show_transfer(results)
        if "measures" in results:
            both = Table(title="both towers together, on test")
            both.add_column("measure", no_wrap=True)
            for who in results["measures"]:
                both.add_column(who, justify="right", no_wrap=True)
            for row in measured(results):
                both.add_row(*row)
            screen.print(both)
        pretext = ", ".join(f"{name} {figure(value)}" for name, value in results["pretext"].items())
        screen.print(f"the pretext task itself, on test: {pretext}", soft_wrap=True)
    else:
        screen.print("No transfer figures: --eval_dataset none.")
    seconds = sum(seed["seconds"] for seed in results["seeds"])
    speed = sum(seed["samples_seen"] for seed in results["seeds"]) / seconds
    screen.print(
        f"{seconds / 60:.1f} minutes of training ({speed:.0f} {results['samples']}/s), "
        f"{results['evaluation_seconds'] / 60:.1f} of evaluation\n"
    )
    screen.print("Load the encoder anywhere, with plain transformers:\n", style="bold")
    screen.print(textwrap.indent(lines(results, folder), "  ") + "\n", soft_wrap=True, markup=False)
    screen.print(f"Look at {folder}/{REPORT} and {folder}/{CARD}. Next:", soft_wrap=True, markup=False)
    screen.print(
        f"  python recipes/{recipe}.py --dataset path/to/your/data --output_dir runs/mine\n"
        f"  hf-pretext push {folder} you/your-encoder",
        soft_wrap=True,
        markup=False,
    )
