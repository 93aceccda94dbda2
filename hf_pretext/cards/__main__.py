"""`python -m hf_pretext.cards model_cards`: whatever states figures, again from the recorded results.

model_cards/<recipe>/results.json -> its README.md, the README's table, the recipe's own claim
"""

import argparse
import re
from pathlib import Path

from ..utils.files import write_text
from . import publish
from .results import hardware, read_results
from .tables import figure, unshown, words
from .wording import headlines, measure_words

TABLE = re.compile(r"(<!-- figures: made by `make cards` -->\n).*?(<!-- /figures -->)", re.DOTALL)
CLAIM = re.compile(r"^Measured: .*?(?=\n\n)", re.DOTALL | re.MULTILINE)


def readme_table(all_results: list[dict]) -> str:
    """One row for each recipe and method: its objective, and its encoder (bold where it beats it) and a random one."""
    lines = ["| objective | recipe | label | measured by | trained | random | training |", "|" + "---|" * 7]
    for results in sorted(all_results, key=lambda results: results["objective"]["name"]):
        transfer, name = results["transfer"], results["recipe"]
        seconds = [run["seconds"] for run in results["seeds"]]
        cells = [results["objective"]["name"], f"[{name}](model_cards/{name}/README.md)"]
        cells.append(f"`{transfer['label']}`, {len(transfer['classes'])} classes")
        training = f"{sum(seconds) / len(seconds) / 60:.1f} min on {hardware(results['machine'])}"
        by_who, lost, rows = results.get("measures", {}), unshown(results), []
        for method in transfer["methods"]:
            name = f"{method}_top1"
            pair = (transfer["figures"][who][name] for who in ("trained", "random"))
            rows.append((words(method), transfer["beats_random"][name], *map(figure, pair)))
        for measure in headlines(results):
            pair = (by_who[who][measure] for who in ("trained", "random"))
            rows.append((measure_words(measure), lost is not None and measure not in lost, *map(figure, pair)))
        for method, beats, trained, random in rows:
            shown = f"**{trained}**" if beats else trained
            lines.append(f"| {' | '.join([*cells, method, shown, random, training])} |")
            cells, training = [""] * 3, ""
    return "\n".join(lines) + "\n"


def claim(results: dict) -> str:
    """What a recipe's docstring says that it reaches."""
    figures, runs = results["transfer"]["figures"], results["seeds"]
    seconds, speed = (sum(run[key] for run in runs) / len(runs) for key in ("seconds", "samples_per_second"))
    sentences = [
        f"Measured: {len(runs)} seeds, {seconds / 60:.1f} minutes each ({speed:.0f} {results['samples']}/s) on"
    ]
    sentences += [f"{hardware(results['machine'])}."]
    for method in results["transfer"]["methods"]:
        others = [f"{who} {figure(metrics[f'{method}_top1'])}" for who, metrics in figures.items() if who != "trained"]
        value = f"{figure(figures['trained'][f'{method}_top1'])} ({', '.join(others)});"
        sentences.append(f"{words(method)}, of `{results['transfer']['label']}`: {value}")
    for measure in headlines(results):
        by_who = {who: figure(metrics[measure]) for who, metrics in results["measures"].items()}
        trained, others = by_who.pop("trained"), ", ".join(f"{who} {value}" for who, value in by_who.items())
        sentences.append(f"{measure_words(measure)}: {trained} ({others});")
    pretext = (f"{name} {figure(value)}" for name, value in results["pretext"].items())
    sentences.append(f"the pretext task itself on test: {', '.join(pretext)}.")
    lines = [""]
    for word in " ".join(sentences).split():
        if len(lines[-1]) + len(word) > 110:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="model_cards/, with a folder for each recipe")
    root = parser.parse_args().folder
    folders = sorted(path.parent for path in root.glob("*/results.json"))
    for folder in folders:
        publish(folder)
        recipe = root.parent / "recipes" / f"{folder.name}.py"
        write_text(recipe, CLAIM.sub(lambda _, folder=folder: claim(read_results(folder)), recipe.read_text(), count=1))
    readme = root.parent / "README.md"
    rows = readme_table([read_results(folder) for folder in folders])
    write_text(readme, TABLE.sub(lambda metrics: metrics[1] + rows + metrics[2], readme.read_text()))


if __name__ == "__main__":
    main()
