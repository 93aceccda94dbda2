"""results.json -> README.md of a Hub repository. No figure is typed by hand.

folder with results.json -> README.md; rows of tables
"""

import html
import json
import math
import os
from functools import cache
from pathlib import Path

from .. import registry
from ..utils.files import write_text
from ..utils.settings import field_docs

RESULTS, CARD, REPORT = "results.json", "README.md", "report.png"
KEYS = {"recipe", "folder", "objective", "encoder", "data", "modality", "seeds", "settings", "machine", "versions"}
SHAPES = {"objective": dict, "encoder": dict, "data": dict, "seeds": list, "settings": dict, "machine": dict,
          "versions": dict, "card": dict, "usage": dict, "transfer": dict, "measures": dict}  # fmt: skip
FEW = 2  # methods whose accuracies per class have room in a table, too
KINDS = {"top1": "top-1", "mean_class": "per class"}
HEADLINES = (  # of the measures, where not all have room
    "image_to_text_r1",
    "image_to_text_r10",
    "zero_shot_top1",
    "zero_shot_mean_class",
    "matching_shuffled",
    "threshold_shuffled",
    "matching_hard",
    "threshold_hard",
    "masked_text_own",
    "masked_text_gain",
    "text_probe",
)
MEASURES = {
    "matching_shuffled": "matching, any captions",
    "matching_hard": "matching, captions of one class",
    "threshold_shuffled": "matching by cosine, any captions",
    "threshold_hard": "matching by cosine, captions of one class",
    "matching_gain_shuffled": "matching's gain over cosine, any captions",
    "matching_gain_hard": "matching's gain over cosine, captions of one class",
    "masked_text_own": "hidden words, with the picture",
    "masked_text_other": "hidden words, with another picture",
    "masked_text_none": "hidden words, without a picture",
    "masked_text_gain": "hidden words, gain by the picture",
    "text_probe": "linear probe of captions",
}
BASELINES = {"pixels": "raw pixels do", "majority": "always saying the majority class does"}  # better than it
MISSING = "—"
UNSAFE = str.maketrans({"<": "&lt;", "[": "&#91;", "]": "&#93;", "|": "&#124;", "`": "'", "\n": " ", "\r": " "})
AUTHORS = str.maketrans({"<": "&lt;"})  # of what its author writes
SAID = {"license": None, "language": [], "limits": None}  # by its author, where nothing is
OUTPUT = "output"  # of the lines that load it, shown in a block of its own


def read_results(folder: str | os.PathLike) -> dict:
    """What a run measured; figures that are no numbers (NaN, infinity) as None.

    Raises `ValueError` where the folder holds no results, or a file that is none."""
    path = Path(folder) / RESULTS
    if not path.exists():
        raise ValueError(f"{folder} holds no {RESULTS}: a recipe writes it at its end. Give the --output_dir of a run.")
    try:
        results = json.loads(path.read_text(), parse_constant=lambda name: None, parse_float=finite)
        if not isinstance(results, dict) or not results.keys() >= KEYS:
            raise ValueError("it lacks what a run writes")
        wrong = [name for name, kind in SHAPES.items() if not isinstance(results.get(name, kind()), kind)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} in it are not of the kind that a run writes")
    except ValueError as error:  # of JSON, too
        raise ValueError(f"{path} is no record of a run: {error}. Run the recipe again, or evaluate anew.") from error
    return results


def expanded(path: str) -> str:
    """A path of this machine, as `relative` has shortened it."""
    from huggingface_hub import constants

    return os.path.expanduser(path.replace("$HF_HOME", str(constants.HF_HOME), 1))


def finite(text: str) -> float | None:
    """A number; None for one that is too large to be one."""
    return float(text) if math.isfinite(float(text)) else None


@cache
def environment():
    """The templates, and how they write figures and names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("hf_pretext", "cards"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {"figure": figure, "words": words, "measure_words": measure_words, "shown": shown}
    found.filters |= {"hours": hours, "epochs": epochs, "code": code_span}
    return found


def render(results: dict, has_report: bool = False, where: str | None = None) -> str:
    """The card's text: a head for the Hub, then what a reader wants first. What is not known is left out.

    has_report: whether report.png lies beside it. where: the folder or Hub repository that its lines load.
    Raises `ValueError` for an unknown objective, and for results that lack what a card tells of."""
    from jinja2 import UndefinedError

    try:
        return written({**results, "card": {**SAID, **results.get("card", {})}}, has_report, where)
    except (KeyError, TypeError, AttributeError, IndexError, UndefinedError, ValueError) as error:
        raise ValueError(f"The results are not as a run writes them: {error}. Run the recipe again.") from error


def written(results: dict, has_report: bool, where: str | None) -> str:
    from .metadata import metadata
    from .usage import lines, wording

    code, safe = lines(results, where or expanded(results["folder"])), harmless(results)
    tried, printed = results.get("usage", {}), None
    if tried.get("lines") == lines(results, results["folder"]):  # or others were tried
        printed = safe["usage"][OUTPUT]
    own, template = wording(safe), environment().get_template("card.md.jinja")
    text = template.render(
        safe,
        own=own,
        code=code,
        printed=printed,
        head=["encoder", *map(" ".join, columns(safe).values())] if "transfer" in safe else [],
        rows=table(safe),
        measured=measured(safe),
        verdicts=verdict(safe) if "transfer" in safe else [],
        unshown=unshown(safe),
        worse=unshown(safe, worse=True),
        shortcomings=shortcomings(safe),
        has_report=has_report,
        **worded(safe["objective"]),
    )
    yaml = metadata(results, own.pipeline_tag()).to_yaml()
    return f"---\n{yaml}\n---\n\n{text.strip()}\n"


def unfinished(name: str, objective: str, state: str, card: dict | None = None) -> str:
    """The card of a checkpoint of which nothing was measured. state: which one it is; card: what its author said."""
    from huggingface_hub import ModelCardData

    from .metadata import LIBRARY, TAGS

    said, tags = {**SAID, **(card or {})}, [*TAGS, objective]
    head = ModelCardData(language=said["language"] or None, license=said["license"], library_name=LIBRARY, tags=tags)
    name, state = harmless(name), harmless(state)
    return (
        f"---\n{head.to_yaml()}\n---\n\n# {name}, {state}\n\nA checkpoint of a training by hf_pretext's objective "
        f"*{harmless(objective)}*: nothing was measured of it.\n"
    )


def worded(objective: dict) -> dict:
    """What an objective's file says of it, and of its settings: names, values and words of those that share them."""
    model_class = registry.objective_class(objective["name"])
    docs = field_docs(model_class.task_class)
    settings = []
    for name, value in objective.items():
        if name == "name":
            continue
        if settings and docs.get(name) and settings[-1][2] == docs[name]:
            settings[-1][0].append(name)
            settings[-1][1].append(value)
        else:
            settings.append(([name], [value], docs.get(name, "")))
    return {
        "words": registry.described(objective["name"]),
        "formula": model_class.formula,
        "known_limits": model_class.limits,
        "task": settings,
    }


def harmless(value, name: str = ""):
    """Results whose strings are no more than text in a card: names and labels come from anybody's data."""
    if isinstance(value, dict):
        return {harmless(key): harmless(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [harmless(part) for part in value]
    if name == "limits" and isinstance(value, str):
        return value.translate(AUTHORS)
    if name == OUTPUT and isinstance(value, str):
        return value.replace("```", "'''")
    return value.translate(UNSAFE) if isinstance(value, str) else value


def publish(folder: str | os.PathLike, where: str | None = None) -> Path:
    """Writes the card of a run from its results, and returns where. Arguments as of `render`."""
    path = Path(folder) / CARD
    write_text(path, render(read_results(folder), (Path(folder) / REPORT).exists(), where))
    return path


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
    parts = [value for name, value in run["history"][-1].items() if name.startswith("epoch_of_source")]
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


def columns(results: dict) -> dict[str, tuple[str, str]]:
    """Columns of the transfer table: names of figures, with the method and the kind of accuracy in words."""
    methods = results["transfer"]["methods"]
    kinds = list(KINDS) if len(methods) <= FEW else ["top1"]
    return {f"{method}_{kind}": (words(method), KINDS[kind]) for method in methods for kind in kinds}


def measure_words(name: str) -> str:
    """A measure's name in words: "image_to_text_r10" as "picture to caption, R@10"."""
    if name in MEASURES:
        return MEASURES[name]
    name = name.replace("image_to_text_", "picture to caption, ").replace("text_to_image_", "caption to picture, ")
    name = name.replace("zero_shot_", "zero-shot, ").replace("mean_class", "per class").replace("top", "top-")
    return name.replace(" r1", " R@1").replace(" r5", " R@5").replace("_", " ")


def measured(results: dict) -> list[list[str]]:
    """Rows of the table of measures: what is measured, then the trained model's, the random one's and chance's."""
    by_who = results.get("measures", {})
    names = next(iter(by_who.values()), {})
    return [[measure_words(name), *(figure(by_who[who][name]) for who in by_who)] for name in names]


def headlines(results: dict) -> list[str]:
    """Those of `HEADLINES` that were measured."""
    return [name for name in HEADLINES if name in results.get("measures", {}).get("trained", {})]


def unshown(results: dict, worse: bool = False) -> list[str] | None:
    """Measures by which the trained model does not beat the random one, by name; None where seeds are too few to say.
    Of a rank, less is better. worse: only those by which the random one beats it."""
    from ..evaluation.transfer import beats

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


def hardware(machine: dict) -> str:
    """What trained, in words: the accelerator where there was one, or the cores."""
    return machine.get("accelerator") or f"{machine['cores']} cores of {machine['processor']}"


def table(results: dict) -> list[list[str]]:
    """Rows of the transfer table: who, then the figures of `columns`."""
    if "transfer" not in results:
        return []
    names = {"trained": f"trained ({results['objective']['name']})"}
    return [
        [names.get(who, who), *(figure(figures[column]) for column in columns(results))]
        for who, figures in results["transfer"]["figures"].items()
    ]


def verdict(results: dict) -> list[str]:
    """One sentence for each method: whether the trained encoder beats the random one, and who is ahead of it."""
    sentences, transfer = [], results["transfer"]
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
        ahead = [f"{told} better, by {by:.3f}" for told, by in ahead_of_it(results, method)]
        sentences.append("; ".join([f"{gain}, {reason}", *ahead]))
    return sentences


def ahead_of_it(results: dict, method: str) -> list[tuple[str, float]]:
    """Baselines that need no encoder and do better than the trained one by this method: in words, and by how much."""
    means = {who: figures[f"{method}_top1"]["mean"] for who, figures in results["transfer"]["figures"].items()}
    if means["trained"] is None:
        return []
    return [
        (BASELINES.get(who, f"{who} does"), mean - means["trained"])
        for who, mean in means.items()
        if who not in ("trained", "random") and mean is not None and mean > means["trained"]
    ]


def shortcomings(results: dict) -> list[str]:
    """What the figures themselves say against the model, in sentences for its limits."""
    if "transfer" not in results:
        return []
    found, transfer = [], results["transfer"]
    for method in transfer["methods"]:
        for told, by in ahead_of_it(results, method):
            found.append(
                f"For {code_span(transfer['label'])} by {words(method)}, {told} better than its features, by {by:.3f}."
            )
    if "zero_shot_top1" in (unshown(results) or ()):
        found.append("Zero-shot classification: nothing shows that it is better than an untrained model's.")
    return found
