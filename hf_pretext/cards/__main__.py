"""`python -m hf_pretext.cards model_cards`: regenerates every published metric from the recorded results.

model_cards/<recipe>/results.json -> its README.md; the README's table; docs/results.md; docs/which_task.md;
docs/presets.md; what `hf-pretext objectives` shows; the "Measured:" paragraph of the recipe's docstring
"""

import argparse
import re
from pathlib import Path

from ..utils.files import write_text
from . import publish, tasks
from .compare import draw
from .results import hardware, read_results
from .summary import BOLD, labels, notes, probe
from .tables import MISSING, figure, unshown, words
from .wording import headlines, measure_words

TABLE = re.compile(r"(<!-- metrics: made by `make cards` -->\n).*?(<!-- /metrics -->)", re.DOTALL)
CLAIM = re.compile(r'^Measured: .*?(?=\n\n|\n""")', re.DOTALL | re.MULTILINE)
COMPARED = {"random": "untrained encoder", "pixels": "raw pixels", "majority": "majority class"}

RESULTS_PAGE = """# Results

Made by `make cards` from the recorded results in `model_cards/`.

- All metrics are on the test split: of the frozen encoder, of the fine-tuned encoder where the \
metric says so, and, for image-text pairs, of the full model. Values are mean ± standard deviation over {seeds} seeds.
- The random encoder has the same architecture and is untrained. {bold}
- The layer and the L2 strength of the linear probe are chosen on the validation split, in the same way for trained \
and random encoders. For random encoders with batch norm, its statistics are chosen too. All seeds use the same layer \
and the same choice of statistics.
- The label is that of the first encoder, whose kind of data stands before it. The cards have the other encoders and \
the baselines: raw pixels, TF-IDF, log-mel, the majority class. Some are better than the encoder: \
[which_task.md](which_task.md) has the best of each recipe.
- Minutes are the training time of one seed. Most recipes ran with one thread while another recipe used the second \
core; BEiT-3 ran alone.

"""


def measured_rows(results: dict) -> list[tuple[str, bool, str, str]]:
    """Returns (metric in words, whether it beats random, trained value, random value) for each published metric."""
    transfer, by_who, lost, rows = results["transfer"], results.get("measures", {}), unshown(results), []
    for method in transfer["methods"]:
        name = f"{method}_top1"
        values = (figure(transfer["figures"][who][name]) for who in ("trained", "random"))
        rows.append((words(method, transfer), transfer["beats_random"][name], *values))
    for measure in headlines(results):
        values = (figure(by_who[who][measure]) for who in ("trained", "random"))
        rows.append((measure_words(measure), lost is not None and measure not in lost, *values))
    return rows


def minutes(results: dict) -> str:
    """Returns the mean training time of a seed in minutes, as text."""
    seconds = [run["seconds"] for run in results["seeds"]]
    return f"{sum(seconds) / len(seconds) / 60:.1f}"


def readme_table(all_results: list[dict]) -> str:
    """Returns the README's table: one row for each recipe with its linear probe (see `probe`), next to a random encoder
    and the best simple baseline; then a sentence on baselines that are better. The trained value is bold if it beats
    random."""
    lines = ["| recipe | objective | encoder: label | trained | random | best baseline | minutes |", "|" + "---|" * 7]
    for results in by_objective(all_results):
        of = probe(results)
        cells = [f"[{of.recipe}](model_cards/{of.recipe}/README.md)", of.objective, of.label]
        cells += [bold(figure(of.trained), of.beats_random), figure(of.random), of.shown_baseline, minutes(results)]
        lines.append(f"| {' | '.join(cells)} |")
    sentences = notes([probe(results) for results in by_objective(all_results)])
    return "\n".join([*lines, *(["", sentences] if sentences else [])]) + "\n"


def results_page(all_results: list[dict]) -> str:
    """Returns docs/results.md: one row for each recipe and metric."""
    seeds = " or ".join(sorted({str(len(results["seeds"])) for results in all_results}))
    lines = ["| objective | recipe | encoder: label | metric | trained | random | training |", "|" + "---|" * 7]
    for results in by_objective(all_results):
        cells = [results["objective"]["name"], f"[{results['recipe']}](../model_cards/{results['recipe']}/README.md)"]
        cells, training = [*cells, labels(results)], f"{minutes(results)} min on {hardware(results['machine'])}"
        for name, beats, trained, random in measured_rows(results):
            lines.append(f"| {' | '.join([*cells, name, bold(trained, beats), random, training])} |")
            cells, training = [""] * 3, ""
    return RESULTS_PAGE.format(seeds=seeds, bold=BOLD) + "\n".join(lines) + "\n"


def by_objective(all_results: list[dict]) -> list[dict]:
    """Sorts results by the name of their objective."""
    return sorted(all_results, key=lambda results: results["objective"]["name"])


def bold(text: str, really: bool) -> str:
    """Returns Markdown for bold text if `really`, else the text."""
    return f"**{text}**" if really else text


def claim(results: dict) -> str:
    """Returns the "Measured:" paragraph of a recipe's docstring, in lines of at most 110 characters."""
    figures, runs = results["transfer"]["figures"], results["seeds"]
    seconds, speed = (sum(run[key] for run in runs) / len(runs) for key in ("seconds", "samples_per_second"))
    sentences = [
        f"Measured: {len(runs)} seeds, {seconds / 60:.1f} minutes each ({speed:.0f} {results['samples']}/s) on"
    ]
    sentences += [f"{hardware(results['machine'])}. Top-1 accuracy on the test split, mean ± standard deviation:"]
    label, accuracies = results["transfer"]["label"], []
    for method in results["transfer"]["methods"]:
        by_who = {COMPARED.get(who, who): figure(metrics[f"{method}_top1"]) for who, metrics in figures.items()}
        accuracies.append(f"{words(method, results['transfer'])} (label `{label}`): {compared(by_who)}")
    sentences += [
        f"{'; '.join(accuracies)}. {'Other metrics' if headlines(results) else 'Pretext task'} on the test split:"
    ]
    for measure in headlines(results):
        by_who = {who: figure(metrics[measure]) for who, metrics in results["measures"].items()}
        by_who = {"untrained model" if who == "random" else who: value for who, value in by_who.items()}
        sentences.append(f"{measure_words(measure)}: {compared(by_who)};")
    pretext = (f"{name} {figure(value)}" for name, value in results["pretext"].items())
    sentences.append(f"{'pretext task: ' * bool(headlines(results))}{', '.join(pretext)}.")
    lines = [""]
    for word in " ".join(sentences).split():
        if len(lines[-1]) + len(word) > 110:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def compared(by_who: dict[str, str]) -> str:
    """Returns the value of the trained model and, in parentheses, the measured ones that it is compared with."""
    others = ", ".join(f"{who} {value}" for who, value in by_who.items() if who != "trained" and value != MISSING)
    return f"{by_who['trained']} ({others})"


def main() -> None:
    """Regenerates all cards, recipes' claims, the README's table, two pages and what `objectives` shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="model_cards/: contains a folder for each recipe")
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
    write_text(root.parent / "docs" / "which_task.md", tasks.page(all_results))
    if groups := tasks.audited(all_results):
        draw(root.parent / "docs" / tasks.CRITERIA_IMAGE, tasks.named_apart(groups))
    write_text(root.parent / "docs" / "presets.md", tasks.presets_page(all_results))
    tasks.write_measured(all_results)


if __name__ == "__main__":
    main()
