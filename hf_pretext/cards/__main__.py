"""`python -m hf_pretext.cards model_cards`: writes every published metric again, from the recorded results.

model_cards/<recipe>/results.json -> its README.md; the README's table; docs/results.md; the claim in the recipe
"""

import argparse
import re
from pathlib import Path

from ..utils.files import write_text
from . import publish
from .results import hardware, read_results
from .tables import figure, unshown, words
from .wording import headlines, measure_words

TABLE = re.compile(r"(<!-- metrics: made by `make cards` -->\n).*?(<!-- /metrics -->)", re.DOTALL)
CLAIM = re.compile(r"^Measured: .*?(?=\n\n)", re.DOTALL | re.MULTILINE)


RESULTS_PAGE = """# Results

Made by `make cards` from the recorded results in `model_cards/`.

- Metrics of the frozen encoder, and of the full model on image-text pairs, on the test split. Mean ± standard \
deviation over {seeds} seeds, next to random encoders of the same shape. Bold: the gain over random exceeds twice the \
spread over seeds, 2·√(s₁² + s₂²).
- The layer, the strength of the linear probe and the random encoder's batch-norm statistics are chosen on validation, \
for trained and random encoders alike; layer and statistics once for all seeds.
- The cards have more baselines: raw pixels, TF-IDF, the majority class.
- Minutes are of training one seed, mostly with one thread while another recipe used the second core (BEiT-3: alone).

"""


def measured_rows(results: dict) -> list[tuple[str, bool, str, str]]:
    """Each published metric of a recipe: its name, whether it beats random, and the values, trained and random."""
    transfer, by_who, lost, rows = results["transfer"], results.get("measures", {}), unshown(results), []
    for method in transfer["methods"]:
        name = f"{method}_top1"
        values = (figure(transfer["figures"][who][name]) for who in ("trained", "random"))
        rows.append((words(method), transfer["beats_random"][name], *values))
    for measure in headlines(results):
        values = (figure(by_who[who][measure]) for who in ("trained", "random"))
        rows.append((measure_words(measure), lost is not None and measure not in lost, *values))
    return rows


def minutes(results: dict) -> str:
    """Mean minutes of training a seed."""
    seconds = [run["seconds"] for run in results["seeds"]]
    return f"{sum(seconds) / len(seconds) / 60:.1f}"


def labels(results: dict) -> str:
    return f"`{results['transfer']['label']}`, {len(results['transfer']['classes'])} classes"


def readme_table(all_results: list[dict]) -> str:
    """One row for each recipe: its linear probe with most labels, trained (bold where it beats random) and random."""
    lines = ["| recipe | objective | linear probe of | trained | random | minutes |", "|" + "---|" * 6]
    for results in by_objective(all_results):
        rows = zip(results["transfer"]["methods"], measured_rows(results), strict=False)
        _, beats, trained, random = [row for method, row in rows if method.startswith("linear_probe")][-1]
        cells = [f"[{results['recipe']}](model_cards/{results['recipe']}/README.md)", results["objective"]["name"]]
        cells += [labels(results), bold(trained, beats), random, minutes(results)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def results_page(all_results: list[dict]) -> str:
    """docs/results.md: one row for each recipe and metric."""
    seeds = " or ".join(sorted({str(len(results["seeds"])) for results in all_results}))
    lines = ["| objective | recipe | label | metric | trained | random | training |", "|" + "---|" * 7]
    for results in by_objective(all_results):
        cells = [results["objective"]["name"], f"[{results['recipe']}](../model_cards/{results['recipe']}/README.md)"]
        cells, training = [*cells, labels(results)], f"{minutes(results)} min on {hardware(results['machine'])}"
        for name, beats, trained, random in measured_rows(results):
            lines.append(f"| {' | '.join([*cells, name, bold(trained, beats), random, training])} |")
            cells, training = [""] * 3, ""
    return RESULTS_PAGE.format(seeds=seeds) + "\n".join(lines) + "\n"


def by_objective(all_results: list[dict]) -> list[dict]:
    return sorted(all_results, key=lambda results: results["objective"]["name"])


def bold(text: str, really: bool) -> str:
    return f"**{text}**" if really else text


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
    all_results = [read_results(folder) for folder in folders]
    readme, rows = root.parent / "README.md", readme_table(all_results)
    write_text(readme, TABLE.sub(lambda match: match[1] + rows + match[2], readme.read_text()))
    write_text(root.parent / "docs" / "results.md", results_page(all_results))


if __name__ == "__main__":
    main()
