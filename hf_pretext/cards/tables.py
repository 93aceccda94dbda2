"""Tables and verdicts of a card: means with spreads, and what beats what.

results -> rows, sentences
"""

import html

from ..evaluation.baselines import baselines
from ..evaluation.transfer import beats
from .results import transfers
from .wording import measure_words

FEW = 2  # methods whose accuracies per class have room in a table, too
KINDS = {"top1": "top-1", "mean_class": "per class"}
MAJORITY = {"majority": "always predicting the majority class does"}  # better than it
MISSING = "—"


def shown(value, form: str = "{:,}") -> str:
    """A number in some format; a dash where it is missing."""
    return MISSING if value is None else form.format(value)


def code_span(text: str) -> str:
    """A harmless text as code, in which Markdown decodes nothing. It holds no backtick and no line's end."""
    return f"`{html.unescape(text)}`"


def hours(seconds: float | None) -> str:
    """A time in minutes, or in hours where it is that long."""
    if seconds is None or seconds < 3600:
        return shown(seconds and seconds / 60, "{:,.1f} minutes")
    return f"{seconds / 3600:,.1f} hours"


def epochs(run: dict) -> str:
    """How often a seed saw its data; of a mixture, how often each part."""
    parts = [value for name, value in (run["history"] or [{}])[-1].items() if name.startswith("epoch_of_source")]
    return ", ".join(f"{part:.1f}" for part in parts) or shown(run["epochs"] or None, "{:.1f}")


def figure(value: dict | None) -> str:
    """A mean with its spread, as `0.545 ± 0.008`; without one for a single seed; a dash for what is no number."""
    if value is None:
        return ""
    if value["mean"] is None:
        return MISSING
    return f"{value['mean']:.3f}" + (f" ± {value['std']:.3f}" if value["std"] is not None else "")


def words(method: str) -> str:
    """A method's name in words: "linear_probe_10%" as "linear probe, 10% of labels"."""
    name, _, share = method.partition("probe_")
    return (
        f"{name.replace('_', ' ')}probe, {share} of labels" if share else method.replace("_", " ").replace("knn", "kNN")
    )


def columns(transfer: dict) -> dict[str, tuple[str, str]]:
    """Columns of a transfer table: names of metrics, with the method and the kind of accuracy in words."""
    methods = transfer["methods"]
    kinds = list(KINDS) if len(methods) <= FEW else ["top1"]
    return {f"{method}_{kind}": (words(method), KINDS[kind]) for method in methods for kind in kinds}


def table(results: dict, transfer: dict) -> list[list[str]]:
    """Rows of a transfer table: who, then the metrics of `columns`."""
    names = {"trained": f"trained ({results['objective']['name']})"}
    return [
        [names.get(who, who), *(figure(figures[column]) for column in columns(transfer))]
        for who, figures in transfer["figures"].items()
    ]


def measured(results: dict) -> list[list[str]]:
    """Rows of the table of measures: what is measured, then the trained model's, the random one's and chance's."""
    by_who = results.get("measures", {})
    names = next(iter(by_who.values()), {})
    return [[measure_words(name), *(figure(by_who[who][name]) for who in by_who)] for name in names]


def unshown(results: dict, worse: bool = False) -> list[str] | None:
    """Measures by which the trained model does not beat the random one, by name; None where seeds are too few to say.
    Of a rank, less is better. worse: only those by which the random one beats it."""
    by_who, names = results.get("measures", {}), []
    for name in by_who.get("trained", {}):
        pair = by_who["trained"][name], by_who["random"][name]
        if any(value["mean"] is None for value in pair):
            continue
        ours, other = reversed(pair) if name.endswith("rank") else pair
        answer = beats(other, ours) if worse else beats(ours, other)
        if answer is None:
            return None
        names += [name] if answer is worse else []
    return names


def verdict(transfer: dict) -> list[str]:
    """One sentence for each method: whether the trained encoder beats the random one, and who is ahead of it."""
    sentences = []
    for method in transfer["methods"]:
        name = f"{method}_top1"
        answer = transfer["beats_random"][name]
        means = {who: figures[name]["mean"] for who, figures in transfer["figures"].items()}
        if means["trained"] is None or means["random"] is None:
            sentences.append(f"{words(method)}: not measured")
            continue
        gain = f"{words(method)}: {means['trained'] - means['random']:+.3f} over random"
        reason = {
            True: "more than twice the spread of the seeds: it beats random",
            False: "NOT more than twice the spread of the seeds: nothing is shown",
            None: "no verdict: that takes 3 seeds on each side",
        }[answer]
        ahead = [f"{who} better, by {by:.3f}" for who, by in ahead_of_it(transfer, method)]
        sentences.append("; ".join([f"{gain}, {reason}", *ahead]))
    return sentences


def ahead_of_it(transfer: dict, method: str) -> list[tuple[str, float]]:
    """Baselines that need no encoder and do better than the trained one by this method: in words, and by how much."""
    means = {who: figures[f"{method}_top1"]["mean"] for who, figures in transfer["figures"].items()}
    if means["trained"] is None:
        return []
    names = {**MAJORITY, **{baseline.name: baseline.words for baseline in baselines()}}
    return [
        (names.get(who, f"{who} does"), mean - means["trained"])
        for who, mean in means.items()
        if who not in ("trained", "random") and mean is not None and mean > means["trained"]
    ]


def shortcomings(results: dict) -> list[str]:
    """What the metrics themselves say against the model, in sentences for its limits."""
    sentences = []
    for transfer in transfers(results):
        for method in transfer["methods"]:
            for who, by in ahead_of_it(transfer, method):
                label = code_span(transfer["label"])
                sentences.append(f"For {label} by {words(method)}, {who} better than its features, by {by:.3f}.")
    if "zero_shot_top1" in (unshown(results) or ()):
        sentences.append("Zero-shot classification: nothing shows that it is better than an untrained model's.")
    return sentences
