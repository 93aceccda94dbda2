"""The audit in words: by what a model learned, what its encoder knows, and what it ignores.

results["audit"] -> rows of tables, sentences
"""

from collections.abc import Iterator, Mapping

from ..audit.encoder import BEYOND, BITS, SAVED
from ..audit.entry import RANDOM, TRAINED, best_cue, share_of
from ..audit.task import (
    ACCURACY,
    ARTEFACT,
    CONFLICT,
    ENTROPY,
    EXPLAINED,
    EXPLAINED_WITHOUT,
    OVERFITTING,
    QUESTION,
    ROLES,
    WITHOUT,
)
from ..audit.transformations import EQUIVARIANCE, INVARIANCE, PARAMETER
from ..evaluation.comparison import START
from ..evaluation.transfer import beats
from .tables import MISSING, figure, shown

WHO = {TRAINED: "trained", START: "as it was", RANDOM: "random"}
HEAD = ("cue", "role", "bits it reveals", "of the model's")
CLASSES = {WITHOUT: "accuracy without it", CONFLICT: "follows it"}  # further columns
VALUES = {EXPLAINED: "explained", EXPLAINED_WITHOUT: "explained without it"}  # the same if answers are values
OF_CUES = (
    "A cue is so simple that it may reveal the answer of the pretext task without any understanding. A small reader "
    "answers from each cue alone, on test; a larger one may get more. {without}: of the model, if the cue is that of "
    "another example. Such an input is unusual, so that the drop is an upper bound of what the cue contributes; the "
    "drop of a control is what an unusual input alone costs. {more} Spreads of cues are over seeds of the reader."
)
FOLLOWS = "Follows it: share of examples for which the model gives the answer of the example that the cue is from."
OF_PAIRS = "Follows it: share of pairs for which the model prefers that answer to the right one, 0.5 by chance."
OF_VALUES = (
    "Bits of a value: ½ log2 of the variance over the mean squared error. Explained: share of the variance that is "
    "predicted."
)
OF_ENCODERS = (
    "Bits of a property: usable information of a linear reader of frozen features, on test. Beyond simple cues: over a "
    "linear reader of {simple}. Invariance to a change: 1 for equal features, 0 if a changed input is as far away as "
    "another example. Bits of the change: in the features of one input. Equivariance: R2 of a linear map from "
    "the features of an input to those of the changed one."
)
SIMPLE = {
    "image": "a thumbnail and the colours of images",
    "video": "colours, brightness and motion of films",
    "audio": "loudness and spectral centroid of sounds",
    "text": "the length of texts",
}
CHANGES = {INVARIANCE: "invariance", PARAMETER: "bits of the change", EQUIVARIANCE: "equivariance"}
NOISE = 1e-6  # differences that are not compared
REVEALS = 0.1  # share of the answer's entropy from which an artefact is named
LARGE = 0.5  # share of the model's bits from which a cue is named


def protocol(audit: Mapping) -> str:
    """Returns how the metrics of an audit were measured, as sentences."""
    sentences, kinds = [], audit.get("encoders", {})
    if "cues" in audit:
        values, pairs = further(audit) is VALUES, audit["task"]["unit"] == "pair"
        more = OF_VALUES if values else OF_PAIRS if pairs else FOLLOWS
        without = "Explained without it" if values else "Accuracy without it"
        sentences.append(OF_CUES.format(without=without, more=more))
    if kinds:
        simple = ", or of ".join(SIMPLE[kind] for kind in kinds)
        sentences.append(OF_ENCODERS.format(simple=simple))
    return " ".join(sentences)


def encoder_words(name: str, label: str) -> str:
    """Returns the name of a metric of an encoder in words. label: name of the label."""
    metric, what = parts_of(name)
    what = what.replace("_", " ")
    return {
        BITS: f"bits of {what}",
        BEYOND: f"bits of {what} beyond simple cues",
        SAVED: f"bits saved per label of {label}",
        INVARIANCE: f"invariance to {what}",
        PARAMETER: f"bits of the {what} in one view",
        EQUIVARIANCE: f"equivariance to {what}",
    }[metric]


def parts_of(name: str) -> tuple[str, str]:
    """Returns the metric and what it is of: "parameter_bits_hue" -> ("parameter_bits", "hue")."""
    begins = (PARAMETER, SAVED, BEYOND, BITS, INVARIANCE, EQUIVARIANCE)
    metric = next(begin for begin in begins if name.startswith(f"{begin}_"))
    return metric, name.removeprefix(f"{metric}_")


def encoder_tables(audit: Mapping) -> list[dict]:
    """Returns two tables for the encoder of each kind, `{"title", "head", "rows"}`: the bits that a reader gets of the
    label and of other properties, and what its features make of changed inputs."""
    tables = []
    for kind, each in audit.get("encoders", {}).items():
        present, gray = [who for who in WHO if who in each], " from grey images" if each.get("gray") else ""
        names = [WHO[who] for who in present]
        known = [name for name in each[TRAINED] if parts_of(name)[0] in (BITS, BEYOND, SAVED)]
        rows = [
            [encoder_words(name, each["label"]), *cells(each, present, name), at_most(each, name)] for name in known
        ]
        if rows:
            tables.append(
                {"title": f"what the {kind} encoder knows{gray}", "head": ["", *names, "at most"], "rows": rows}
            )
        changes = dict.fromkeys(parts_of(name)[1] for name in each[TRAINED] if name not in known)
        head = ["change", *(f"{metric}: {name}" for metric in CHANGES.values() for name in names)]
        rows = [
            [change.replace("_", " "), *(c for m in CHANGES for c in cells(each, present, f"{m}_{change}"))]
            for change in changes
        ]
        if rows:
            title = f"changed {'grey ' if gray else ''}inputs of the {kind} encoder"
            tables.append({"title": title, "head": head, "rows": rows})
    return tables


def cells(each: Mapping, present: list[str], name: str) -> list[str]:
    """Returns a metric of the encoders that are present; a dash if it was not measured."""
    return [figure(each[who].get(name)) or MISSING for who in present]


def at_most(each: Mapping, name: str) -> str:
    """Returns the most bits that can be read of a property; empty for other metrics."""
    is_limited = name.startswith((BITS, BEYOND))
    return shown(each["entropy"].get(name.removeprefix(f"{BITS}_")), "{:.3f}") if is_limited else ""


def further(audit: Mapping) -> dict[str, str]:
    """Returns the columns of the table of cues after those of `HEAD`, in words, by the name of their metric."""
    return VALUES if any(EXPLAINED in each for each in audit.get("cues", {}).values()) else CLASSES


def cue_head(audit: Mapping) -> list[str]:
    """Returns the head of the table of cues."""
    return [*HEAD, *further(audit).values()]


def cue_rows(audit: Mapping) -> list[list[str]]:
    """Returns the rows of the table of cues, with the columns of `cue_head`: cues first, the most revealing one
    first."""
    cues = sorted(audit.get("cues", {}).items(), key=lambda cue: (ROLES.index(cue[1]["role"]), -mean_of(cue[1], BITS)))
    return [
        [
            name,
            each["role"],
            figure(each[BITS]),
            shown(share_of(audit, each), "{:.0%}"),
            *(figure(each.get(metric)) or MISSING for metric in further(audit)),
        ]
        for name, each in cues
    ]


def mean_of(metrics: Mapping, name: str) -> float:
    """Returns the mean of a metric; 0 if it is undefined."""
    return metrics[name]["mean"] or 0.0


def sentences(audit: Mapping) -> list[str]:
    """Returns what the audit shows, as sentences without a full stop."""
    encoders = audit.get("encoders", {})
    begin = {kind: f"{kind.capitalize()} encoder. " if len(encoders) > 1 else "" for kind in encoders}
    of_encoders = (f"{begin[kind]}{sentence}" for kind, each in encoders.items() for sentence in verdicts(each))
    return [*task_sentences(audit), *code_sentences(audit), *of_encoders]


def task_sentences(audit: Mapping) -> Iterator[str]:
    """Yields what the model answers, and by what."""
    if "task" not in audit:
        return
    answers = audit["task"][TRAINED]
    seen = ", which it was trained on," if audit.get("test_seen") else ""
    more = f"; on train it answers {figure(answers[OVERFITTING])} bits more" if OVERFITTING in answers else ""
    unit, given = audit["task"]["unit"], f"the model answers {figure(answers[BITS])}"
    if EXPLAINED in answers:
        share = f"{figure(answers[EXPLAINED])} of the variance"
        yield f"Of the pretext task, {given} bits per {unit} on test{seen} ({share}){more}"
    else:
        most, right = f"{answers[ENTROPY]['mean']:.2f} bits", f"accuracy {figure(answers[ACCURACY])}"
        yield f"Of {most} of the pretext task per {unit}, {given} on test{seen} ({right}){more}"
    prefix = f"{BITS}_"
    if several := [name for name in answers if name.startswith(prefix)]:
        each = ", ".join(
            f"{figure(answers[name])} of {name.removeprefix(prefix).replace('_', ' ')}" for name in several
        )
        yield f"These are means of {len(several)} questions; the model answers {each}"
    if best := best_cue(audit):
        question = audit["cues"][best[0]].get(QUESTION)
        these = f"the model's of {question.replace('_', ' ')}" if question else "the model's answers"
        yield f"One cue alone, {best[0]}, reveals {best[1]:.0%} as many bits as {these}"
    yield from artefacts(audit)


def code_sentences(audit: Mapping) -> Iterator[str]:
    """Yields how long the labels of the pretext task were in the first epoch."""
    if "code" in audit:
        code = audit["code"]
        yield (
            f"In the first epoch ({code['samples']:,} samples), each predicted before the model was trained on it, a "
            f"label of the pretext task cost {figure(code[BITS]) or MISSING} bits; a guess costs {code['uniform']:.2f} "
            "(online code)"
        )


def artefacts(audit: Mapping) -> Iterator[str]:
    """Yields a sentence for each artefact that reveals a tenth of the answer or more; none for values."""
    if ENTROPY not in audit["task"][TRAINED]:
        return
    entropy = audit["task"][TRAINED][ENTROPY]["mean"]
    for name, each in audit["cues"].items():
        if each["role"] == ARTEFACT and mean_of(each, BITS) >= REVEALS * entropy:
            yield f"The artefact {name} reveals {figure(each[BITS])} of {entropy:.2f} bits of the pretext task"


def verdicts(each: Mapping) -> Iterator[str]:
    """Yields the metrics in which trained encoders beat random ones, and those in which they are worse; for too few
    seeds, the bits that differ on these rows."""
    label, names = each["label"], comparable(each)
    compared = {name: verdict(each[TRAINED][name], each[RANDOM][name]) for name in names}
    higher = [encoder_words(name, label) for name, answer in compared.items() if answer == 1]
    lower = [encoder_words(name, label) for name, answer in compared.items() if answer == -1]
    if higher:
        yield f"Above random encoders by more than twice the spread over seeds: {', '.join(higher)}"
    if lower:
        yield f"Below random encoders by more than twice the spread over seeds: {', '.join(lower)}"
    if not all(answer is None for answer in compared.values()):
        return
    for name, pair in each["on_these_rows"].items():
        if pair["error"] and pair["difference"] is not None and abs(pair["difference"]) > 2 * pair["error"]:
            yield (
                f"{encoder_words(name, label).capitalize()} differ on these rows from one random encoder, by "
                f"{pair['difference']:+.3f} ± {pair['error']:.3f} (standard error over rows)"
            )


def comparable(each: Mapping) -> list[str]:
    """Returns the metrics of trained encoders that may be compared with those of random ones. Equivariance falls with
    the number of channels: it is compared within one layer."""
    layers = {layer for of_who in each.get("layers", {}).values() for layer in of_who}
    return [
        name
        for name in each[TRAINED]
        if name in each.get(RANDOM, {}) and (len(layers) < 2 or parts_of(name)[0] != EQUIVARIANCE)
    ]


def verdict(ours: Mapping, other: Mapping) -> int | None:
    """Returns 1 if a metric of trained encoders is above that of random ones (see `beats`), -1 if it is below, 0 if it
    is neither, and None if there are too few seeds, or it is undefined."""
    if None not in (ours["mean"], other["mean"]) and abs(ours["mean"] - other["mean"]) < NOISE:
        return None if beats(ours, other) is None else 0
    if ours["mean"] is None or other["mean"] is None or beats(ours, other) is None:
        return None
    return int(beats(ours, other)) - int(beats(other, ours))


def limits(audit: Mapping) -> list[str]:
    """Returns what of the audit belongs to the limits of a model, as sentences with a full stop."""
    best = best_cue(audit) if audit else None
    shares = []
    if best and best[1] >= LARGE:
        shares = [f"One cue alone, {best[0]}, reveals {best[1]:.0%} as many bits of the task as the model's answers."]
    of_encoders = [limit for kind, each in audit.get("encoders", {}).items() for limit in encoder_limits(kind, each)]
    return [*shares, *(f"{sentence}." for sentence in (artefacts(audit) if "task" in audit else ())), *of_encoders]


def encoder_limits(kind: str, each: Mapping) -> Iterator[str]:
    """Yields in what an encoder is worse than random ones by more than the spread: the bits of the label, and the
    invariance to changes."""
    names = comparable(each)
    lower = [name for name in names if verdict(each[TRAINED][name], each[RANDOM][name]) == -1]
    if f"{BITS}_{each['label']}" in lower:
        yield f"The {kind} encoder knows less of the label {each['label']} than random encoders do."
    changes = [parts_of(name)[1] for name in lower if parts_of(name)[0] == INVARIANCE]
    if changes:
        yield (
            f"Features of the {kind} encoder change more than those of random encoders if an input is changed by: "
            f"{', '.join(changes)}."
        )
