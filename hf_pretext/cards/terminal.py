"""What a person sees at the end of a run or of an evaluation: tables, verdicts, and what to do next.

results -> tables on the screen
"""

import os
import textwrap

from .results import CARD, REPORT, read_results, transfers
from .tables import columns, figure, measured, table, verdict
from .usage import lines

TABLE_WIDTH = 96


def console():
    """A terminal on which nothing is coloured by guessing, wide enough for a table: a wrapped one can't be read."""
    from rich.console import Console

    made = Console(highlight=False)
    made.width = max(made.width, TABLE_WIDTH)
    return made


def show_transfer(results: dict) -> None:
    """Prints the table of each encoder's transfer, and a sentence for each method."""
    from rich.table import Table
    from rich.text import Text

    screen = console()
    for transfer in transfers(results):
        title = f"{transfer['label']} of {transfer['dataset']}, test split: {transfer['rows']['test']:,} rows"
        kind = f", {transfer['kind']} encoder" if "other_transfers" in results else ""
        grid = Table(title=Text(f"{title}, {len(transfer['classes'])} classes{kind}"))  # names are no markup
        grid.add_column("frozen encoder", no_wrap=True)
        for method, accuracy in columns(transfer).values():
            grid.add_column(f"{method}\n{accuracy}".replace(", ", "\n"), justify="right", no_wrap=True)
        for row in table(results, transfer):
            grid.add_row(*row)
        screen.print(grid)
        for sentence in verdict(transfer):
            screen.print(sentence, soft_wrap=True, markup=False)
    if results["transfer"]["test_seen_in_pretraining"]:
        screen.print("The test split was cut from what was pretrained on: these metrics are not of unseen data.")


def show(folder: str | os.PathLike, recipe: str) -> None:
    """Prints what a run has shown, how to load it and what to do next."""
    from rich.table import Table

    results, screen = read_results(folder), console()
    if "transfer" in results:
        show_transfer(results)
        if "measures" in results:
            grid = Table(title="the full model, on test")
            grid.add_column("measure", no_wrap=True)
            for who in results["measures"]:
                grid.add_column(who, justify="right", no_wrap=True)
            for row in measured(results):
                grid.add_row(*row)
            screen.print(grid)
        pretext = ", ".join(f"{name} {figure(value)}" for name, value in results["pretext"].items())
        screen.print(f"the pretext task itself, on test: {pretext}", soft_wrap=True)
    else:
        screen.print("No transfer: --eval_dataset none.")
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
