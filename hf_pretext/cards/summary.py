"""The linear probe that stands for a recipe in overviews, next to a random encoder and the best simple baseline.

results -> Probe -> cells and sentences of the README, docs/which_task.md and `hf-pretext objectives`
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from ..evaluation.comparison import GRAY, START
from .tables import MISSING, figure

SOLVED = 0.9995  # accuracy that is shown as 1.000
NAMES = {"pixels": "raw pixels", "frame pixels": "raw pixels of a frame", "majority": "majority class"}
BOLD = (
    "Bold: the gain over random exceeds twice the spread over seeds, 2·√(s₁² + s₂²), where s₁ and s₂ are the standard "
    "deviations."
)


class Probe(NamedTuple):
    """The linear probe of a recipe with the most labels: top-1 accuracies on the test split, as in results.json.

    recipe, objective: names. inputs: kinds of data of the objective. label: kind of data of the encoder, column of the
    labels and number of classes, as Markdown. trained, random, baseline: `{"mean", "std", "values"}`. best: name of
    the baseline, in words. beats_random: None for too few seeds."""

    recipe: str
    objective: str
    inputs: tuple[str, ...]
    label: str
    trained: dict
    random: dict
    baseline: dict
    best: str
    beats_random: bool | None

    @property
    def shown_baseline(self) -> str:
        """Accuracy and name of the best simple baseline, as "0.515, raw pixels"; a dash if none was measured."""
        return f"{figure(self.baseline)}, {self.best}" if self.best else MISSING

    @property
    def behind(self) -> bool:
        """True if the baseline is better than the trained encoder."""
        return bool(self.best) and self.trained["mean"] is not None and self.baseline["mean"] > self.trained["mean"]

    @property
    def solved(self) -> bool:
        """True if a random encoder makes hardly any error."""
        return (self.random["mean"] or 0) >= SOLVED


def probe(results: dict) -> Probe:
    """Returns the linear probe of recorded results: of the first encoder, on images in colour."""
    transfer = results["transfer"]
    methods = [name for name in transfer["methods"] if name.startswith("linear_probe") and not name.endswith(GRAY)]
    name = f"{methods[-1]}_top1"
    by_who = {who: metrics[name] for who, metrics in transfer["figures"].items()}
    simple = {who: value for who, value in by_who.items() if who not in ("trained", "random", START)}
    measured = {who: value for who, value in simple.items() if value["mean"] is not None}
    best = max(measured, key=lambda who: measured[who]["mean"], default="")
    return Probe(
        results["recipe"],
        results["objective"]["name"],
        tuple(results["inputs"]),
        labels(results),
        by_who["trained"],
        by_who["random"],
        measured.get(best, {"mean": None, "std": None, "values": []}),
        NAMES.get(best, best),
        transfer["beats_random"][name],
    )


def labels(results: dict) -> str:
    """Returns the kind of data of the evaluated encoder, the label column and its number of classes, as Markdown."""
    transfer = results["transfer"]
    kind = transfer.get("kind") or next(iter(results["encoders"]))  # old results have no kind, but the encoders' order
    return f"{kind}: `{transfer['label']}`, {len(transfer['classes'])} classes"


def notes(probes: Sequence[Probe]) -> str:
    """Returns sentences on probes that show less than they seem to: baselines that are better than the trained encoder,
    and labels that a random encoder predicts. Empty if there are none."""
    behind = sorted((each.best, each.recipe) for each in probes if each.behind)
    solved = [each.recipe for each in probes if each.solved]
    sentences = []
    if behind:
        by_name = [
            f"{listed(recipe for _, recipe in rows)} ({name})" for name, rows in groupby(behind, lambda row: row[0])
        ]
        sentences.append(
            f"{len(behind)} of {len(probes)} trained encoders are worse than the best baseline: {'; '.join(by_name)}."
        )
    if solved:
        sentences.append(f"A random encoder solves the probe too, which then shows nothing: {listed(solved)}.")
    return " ".join(sentences)


def listed(names: Iterable[str]) -> str:
    """Returns names as "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def rankings(probes: Sequence[Probe]) -> list[str]:
    """Returns one line of Markdown for each kind of data and label that several objectives were measured on: the
    objectives with their best trained encoder and its gain over random, the best first, and the best baseline. Bold:
    beats random."""

    def group(each: Probe) -> tuple[str, str]:
        return " + ".join(each.inputs), each.label

    lines = []
    for (inputs, label), members in groupby(sorted(probes, key=group), group):
        known = [each for each in members if each.trained["mean"] is not None and each.random["mean"] is not None]
        ordered = sorted(known, key=lambda each: -each.trained["mean"])
        first = {each.objective: each for each in reversed(ordered)}  # the best of each objective
        if len(first) > 1:
            scores = [scored(each) for each in ordered if first[each.objective] is each]
            baseline = max(ordered, key=lambda each: each.baseline["mean"] or 0)
            lines.append(f"{inputs} ({label}): {', '.join(scores)}. Best baseline: {baseline.shown_baseline}.")
    return lines


def scored(of: Probe) -> str:
    """Returns an objective with its accuracy and the gain over random, as "rotation **0.572** (+0.060)"."""
    score = f"{of.trained['mean']:.3f}"
    gain = of.trained["mean"] - of.random["mean"]
    return f"{of.objective} {f'**{score}**' if of.beats_random else score} ({gain:+.3f})"
