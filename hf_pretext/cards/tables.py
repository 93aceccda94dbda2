"""Tables and verdicts of a card: means with standard deviations, and whether the trained encoder beats random.

results -> rows, sentences
"""

import html

from ..evaluation.baselines import baselines
from ..evaluation.comparison import GRAY, START
from ..evaluation.fine_tune import FINE_TUNE
from ..evaluation.transfer import beats
from .results import transfers
from .wording import health_words, measure_words

FEW = 2  # up to this many methods, tables also show the accuracy per class
KINDS = {"top1": "top-1", "mean_class": "per class"}
MAJORITY = {"majority": "always predicting the majority class does"}  # as `Baseline.words`: continues with "better"
AS_IT_WAS = "as it was"  # the encoder that training started from
MISSING = "—"
NONE = {"mean": None}  # a metric that was not measured
NO_RESULT, LOWER_IS_BETTER = ("_error", "_baseline"), ("rank", "_bits", "seconds")  # ends of the names of metrics


def shown(value, form: str = "{:,}") -> str:
    """Formats a number; returns a dash for None."""
    return MISSING if value is None else form.format(value)


def code_span(text: str) -> str:
    """Returns escaped text (see `harmless`) as a Markdown code span, without the HTML escapes.

    Code spans show HTML escapes literally. `text` contains no backtick and no newline."""
    return f"`{html.unescape(text)}`"


def hours(seconds: float | None) -> str:
    """Formats seconds in minutes; in hours from one hour."""
    if seconds is None or seconds < 3600:
        return shown(seconds and seconds / 60, "{:,.1f} minutes")
    return f"{seconds / 3600:,.1f} hours"


def epochs(run: dict) -> str:
    """Formats the epochs of a seed; for a mixture of datasets, the epochs of each dataset."""
    parts = [value for name, value in (run["history"] or [{}])[-1].items() if name.startswith("epoch_of_source")]
    return ", ".join(f"{part:.1f}" for part in parts) or shown(run["epochs"] or None, "{:.1f}")


def figure(value: dict | None) -> str:
    """Formats mean and standard deviation, as `0.545 ± 0.008`; only the mean for a single seed.

    Returns an empty text for None and a dash if the mean is missing (NaN or infinite)."""
    if value is None:
        return ""
    if value["mean"] is None:
        return MISSING
    return f"{value['mean']:.3f}" + (f" ± {value['std']:.3f}" if value["std"] is not None else "")


def words(method: str, transfer: dict) -> str:
    """Returns the name of a method in words: "linear probe, 10% of labels" for "linear_probe_10%". transfer: its
    results, which have the epochs of fine-tuning."""
    if method == FINE_TUNE:
        count = transfer[FINE_TUNE]["epochs"]
        return f"fine-tuning ({count} epoch{'s' * (count != 1)})"
    if method.endswith(GRAY):
        return f"{words(method.removesuffix(GRAY), transfer)}, grey images"
    name, _, share = method.partition("probe_")
    return (
        f"{name.replace('_', ' ')}probe, {share} of labels" if share else method.replace("_", " ").replace("knn", "kNN")
    )


def measured_encoder(method: str) -> str:
    """Returns in words which encoder a method measures."""
    return "fine-tuned encoder" if method == FINE_TUNE else "frozen encoder"


def columns(transfer: dict) -> dict[str, tuple[str, str]]:
    """Returns the columns of a transfer table: metric name -> (method, kind of accuracy), both in words."""
    methods = transfer["methods"]
    kinds = list(KINDS) if len(methods) <= FEW else ["top1"]
    return {f"{method}_{kind}": (words(method, transfer), KINDS[kind]) for method in methods for kind in kinds}


def table(results: dict, transfer: dict) -> list[list[str]]:
    """Returns the rows of a transfer table: name of the encoder or baseline, then the metrics of `columns`."""
    objective = results["objective"]["name"]
    names = {"trained": f"trained ({objective})"}
    if START in transfer["figures"]:
        names = {"trained": f"continued ({objective})", START: AS_IT_WAS}
    return [
        [names.get(who, who), *(figure(figures[column]) for column in columns(transfer))]
        for who, figures in transfer["figures"].items()
    ]


def measured(results: dict) -> list[list[str]]:
    """Returns the rows of the full model's table: metric in words, then trained, random and chance."""
    by_who = results.get("measures", {})
    names = next(iter(by_who.values()), {})
    return [[measure_words(name), *(figure(by_who[who][name]) for who in by_who)] for name in names]


def health_head(results: dict) -> list[str]:
    """Returns the columns of the table of metrics without labels, in words, without the name of the metric."""
    return ["trained", *([AS_IT_WAS] if START in results.get("health", {}) else []), "random", "chance"]


def health(results: dict) -> list[list[str]]:
    """Returns the rows of the table of metrics without labels: metric in words, then the columns of `health_head`."""
    of = results.get("health", {})
    measured_models = [of[who] for who in ("trained", START, "random") if who in of]
    return [
        [
            health_words(name),
            *(figure(metrics.get(name)) for metrics in measured_models),
            shown_chance(of["chance"].get(name)),
        ]
        for name in of.get("trained", {})
    ]


def shown_chance(level: float | None) -> str:
    """Formats a chance level; empty for a metric without one."""
    return "" if level is None else f"{level:.3f}"


def unshown(results: dict, worse: bool = False, who: str = "random") -> list[str] | None:
    """Returns the names of the metrics in which the trained full model does not beat the random one.

    who: "chance" compares with chance, which is the same for all seeds. worse: returns only the metrics in which the
    random model beats the trained one. For ranks, bits and errors in seconds, lower is better. Standard errors and
    baselines get no verdict.
    Returns None if there are too few seeds for a verdict (see `evaluation.transfer.beats`)."""
    by_who, names = results.get("measures", {}), []
    for name in by_who.get("trained", {}):
        trained, other = by_who["trained"][name], by_who.get(who, {}).get(name, NONE)
        pair = trained, other if who == "random" else {**other, "std": 0.0, "values": trained["values"]}
        if any(value["mean"] is None for value in pair) or name.endswith(NO_RESULT):
            continue
        ours, other = reversed(pair) if name.endswith(LOWER_IS_BETTER) else pair
        answer = beats(other, ours) if worse else beats(ours, other)
        if answer is None:
            return None
        names += [name] if answer is worse else []
    return names


def verdict(transfer: dict) -> list[str]:
    """Returns one sentence for each method, without a full stop: whether the trained encoder beats the random one, the
    gain, and the baselines that do better."""
    sentences = []
    for method in transfer["methods"]:
        name = f"{method}_top1"
        answer = transfer["beats_random"][name]
        means = {who: figures[name]["mean"] for who, figures in transfer["figures"].items()}
        if means["trained"] is None or means["random"] is None:
            sentences.append(f"{words(method, transfer)}: not measured")
            continue
        gain = f"{means['trained'] - means['random']:+.3f} over random"
        result = {
            True: f"beats random ({gain}, more than twice the spread over seeds)",
            False: f"does NOT beat random ({gain}, not more than twice the spread over seeds)",
            None: f"no verdict ({gain}; a verdict needs 3 seeds each of the trained and the random encoder)",
        }[answer]
        ahead = [f"{who} better, by {by:.3f}" for who, by in ahead_of_it(transfer, method)]
        sentences.append("; ".join([f"{words(method, transfer)}: {result}", *against_start(transfer, name), *ahead]))
    return sentences


def against_start(transfer: dict, name: str) -> list[str]:
    """Returns the verdict on a metric compared with the encoder that training started from; `[]` from scratch."""
    if START not in transfer["figures"]:
        return []
    trained, start = (transfer["figures"][who][name]["mean"] for who in ("trained", START))
    gain = f"{trained - start:+.3f}"
    return [
        {
            True: f"better than the encoder as it was ({gain}, more than twice the spread over seeds)",
            False: f"NOT better than the encoder as it was ({gain}, not more than twice the spread over seeds)",
            None: f"{gain} over the encoder as it was (no verdict: that needs 3 trained seeds)",
        }[transfer["beats_start"][name]]
    ]


def chosen_layers(transfer: dict) -> str:
    """Returns the layers that were chosen for each method on frozen features, as a sentence."""
    methods = [method for method in transfer["methods"] if method != FINE_TUNE]
    names = "; ".join(words(method, transfer) for method in methods)
    layers = "; ".join(
        f"{who} {', '.join(str(transfer['details'][who][0][method]['layer']) for method in methods)}"
        for who in ("trained", "random")
    )
    return f"Chosen layers ({names}): {layers}."


def first_seed(transfer: dict) -> list[str]:
    """Returns the top-1 accuracy of the first seed for each method, as "kNN: 0.631"."""
    trained = transfer["figures"]["trained"]
    return [
        f"{words(method, transfer)}: {shown(trained[f'{method}_top1']['values'][0], '{:.3f}')}"
        for method in transfer["methods"]
    ]


def ahead_of_it(transfer: dict, method: str) -> list[tuple[str, float]]:
    """Returns the baselines whose mean in a method exceeds that of the trained encoder: (subject and verb, difference).

    The random encoder and the one that training started from are not included: they have a verdict."""
    means = {who: figures[f"{method}_top1"]["mean"] for who, figures in transfer["figures"].items()}
    if means["trained"] is None:
        return []
    names = {**MAJORITY, **{baseline.name: baseline.words for baseline in baselines()}}
    return [
        (names.get(who, f"{who} does"), mean - means["trained"])
        for who, mean in means.items()
        if who not in ("trained", "random", START) and mean is not None and mean > means["trained"]
    ]


def shortcomings(results: dict) -> list[str]:
    """Returns sentences for the card's limits: baselines that do better, zero-shot that does not beat random, and runs
    that collapsed."""
    sentences = []
    for transfer in transfers(results):
        for method in transfer["methods"]:
            for who, by in ahead_of_it(transfer, method):
                label = code_span(transfer["label"])
                sentences.append(
                    f"Label {label}, {words(method, transfer)}: {who} better than this encoder's features, by {by:.3f}."
                )
    if "zero_shot_top1" in (unshown(results) or ()):
        sentences.append("The top-1 accuracy of zero-shot classification does not beat that of an untrained model.")
    for run in results["seeds"]:
        sentences += [f"The training of seed {run['seed']} collapsed: {what}." for what in run.get("collapsed", [])]
    return sentences
