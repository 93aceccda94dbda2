"""Terminal output at the end of a run or an evaluation: tables, verdicts and next steps.

results -> tables on the screen
"""

import os
import textwrap

from .audit import cue_head, cue_rows, encoder_tables, sentences
from .compare import cells, differing_rows, head
from .results import CARD, REPORT, read_results, transfers
from .tables import columns, figure, health, health_head, measured, table, verdict
from .tasks import tasks
from .usage import lines

TABLE_WIDTH = 120


def console():
    """Returns a console without automatic highlighting. It is at least `TABLE_WIDTH` wide, so that no table wraps."""
    from rich.console import Console

    made = Console(highlight=False)
    made.width = max(made.width, TABLE_WIDTH)
    return made


def show_transfer(results: dict) -> None:
    """Prints the transfer table of each encoder, and one verdict for each method."""
    from rich.table import Table
    from rich.text import Text

    screen = console()
    for transfer in transfers(results):
        title = f"{transfer['label']} of {transfer['dataset']}, test split: {transfer['rows']['test']:,} rows"
        kind = f", {transfer['kind']} encoder" if "other_transfers" in results else ""
        grid = Table(
            title=Text(f"{title}, {len(transfer['classes'])} classes{kind}")
        )  # plain text: names may contain rich markup
        grid.add_column("encoder", no_wrap=True)
        for method, accuracy in columns(transfer).values():
            grid.add_column(
                f"{method}\n{accuracy}".replace(", ", "\n").replace(" (", "\n("), justify="right", no_wrap=True
            )
        for row in table(results, transfer):
            grid.add_row(*row)
        screen.print(grid)
        for sentence in verdict(transfer):
            screen.print(sentence, soft_wrap=True, markup=False)
    if results["transfer"]["test_seen_in_pretraining"]:
        screen.print("The test split is part of the pretraining data: these metrics are not on unseen data.")


def show_health(results: dict) -> None:
    """Prints the metrics without labels, and warnings."""
    from rich.table import Table

    screen, of = console(), results["health"]
    seen = "that were trained on" if of["trained_on"] else "held out of training"
    grid = Table(title=f"health without labels, {of['rows']:,} rows {seen}")
    grid.add_column("metric", no_wrap=True)
    for who in health_head(results):
        grid.add_column(who, justify="right", no_wrap=True)
    for row in health(results):
        grid.add_row(*row)
    screen.print(grid)
    for sentence in of["warnings"]:
        screen.print(f"WARNING: {sentence}.", soft_wrap=True, markup=False)


def show_audit(audit: dict) -> None:
    """Prints what a model learned by: its cues, what its encoders know and ignore, and verdicts."""
    from rich.table import Table

    screen = console()
    grids = [("cues of the pretext task", cue_head(audit), cue_rows(audit))] if "cues" in audit else []
    grids += [
        (each["title"], [name.replace(": ", "\n") for name in each["head"]], each["rows"])
        for each in encoder_tables(audit)
    ]
    for title, names, rows in grids:
        grid = Table(title=title)
        for number, name in enumerate(names):
            grid.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            grid.add_row(*row)
        screen.print(grid)
    for sentence in sentences(audit):
        screen.print(f"{sentence}.", soft_wrap=True, markup=False)
    for sentence in audit["warnings"]:
        screen.print(f"WARNING: {sentence}.", soft_wrap=True, markup=False)


def show_comparison(rows: list[dict]) -> None:
    """Prints runs next to each other: a column for each run, a line for each criterion."""
    from rich.table import Table

    lines = [head(), *map(cells, rows)]
    grid = Table()
    for number in range(len(lines)):
        grid.add_column(lines[number][0] if number else "", justify="right" if number else "left")
    for row in list(zip(*lines, strict=True))[1:]:
        grid.add_row(*row)
    console().print(grid)
    if note := differing_rows(rows):
        console().print(note)


def show(folder: str | os.PathLike, following: str) -> None:
    """Prints the results of a run, the lines that load its encoder, and next steps. following: the first of these, a
    command."""
    from rich.table import Table

    results, screen = read_results(folder), console()
    if "transfer" in results:
        show_transfer(results)
        if "measures" in results:
            grid = Table(title="full model, test split")
            grid.add_column("metric", no_wrap=True)
            for who in results["measures"]:
                grid.add_column(who, justify="right", no_wrap=True)
            for row in measured(results):
                grid.add_row(*row)
            screen.print(grid)
        pretext = ", ".join(f"{name} {figure(value)}" for name, value in results["pretext"].items())
        screen.print(f"pretext task, test split: {pretext}", soft_wrap=True)
    else:
        screen.print("No labelled set, so no transfer was measured (--eval_dataset).")
    if "health" in results:
        show_health(results)
    if "audit" in results:
        show_audit(results["audit"])
    seconds = sum(seed["seconds"] for seed in results["seeds"])
    speed = sum(seed["samples_seen"] for seed in results["seeds"]) / seconds
    screen.print(
        f"{seconds / 60:.1f} minutes of training ({speed:.0f} {results['samples']}/s), "
        f"{results['evaluation_seconds'] / 60:.1f} minutes of evaluation\n"
    )
    screen.print("Load the encoder with plain transformers:\n", style="bold")
    screen.print(textwrap.indent(lines(results, folder), "  ") + "\n", soft_wrap=True, markup=False)
    screen.print(f"See {folder}/{REPORT} and {folder}/{CARD}. Next steps:", soft_wrap=True, markup=False)
    screen.print(
        f"  {following}\n  hf-pretext push {folder} you/your-encoder",
        soft_wrap=True,
        markup=False,
    )


def show_objectives(kind: str | None = None) -> None:
    """Prints what each objective does and what was measured. kind: only objectives of this kind of data."""
    from rich.table import Table

    screen = console()
    grid = Table(title="Objectives: hf-pretext train NAME --dataset path/to/data", show_lines=True)
    grid.add_column("name", no_wrap=True)
    grid.add_column("data")
    grid.add_column("task")
    grid.add_column("measured: linear probe (random encoder; best baseline), minutes of training")
    for task in tasks(kind):
        recorded = [
            f"{entry['recipe']}: {entry['trained']} ({entry['random']}; {entry['baseline']}), {entry['minutes']} min"
            for entry in task["measured"]
        ]
        grid.add_row(task["name"], " + ".join(task["inputs"]), task["summary"], "\n".join(recorded))
    screen.print(grid)
    screen.print("Measured on small data on a CPU: docs/which_task.md. Options: hf-pretext train NAME --help")
