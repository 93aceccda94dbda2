"""results.json -> README.md of a Hub repository. No metric is typed by hand.

folder with results.json -> README.md
"""

import os
from pathlib import Path

from .. import registry
from ..utils.files import write_text
from ..utils.settings import field_docs
from . import tables, wording
from .results import CARD, REPORT, RESULTS, expanded, read_results, transfers
from .template import environment

UNSAFE = str.maketrans({"<": "&lt;", "[": "&#91;", "]": "&#93;", "|": "&#124;", "`": "'", "\n": " ", "\r": " "})
AUTHORS = str.maketrans({"<": "&lt;"})  # of what its author writes
AUTHOR = {"license": None, "language": [], "limits": None}  # what its author says, where nothing is given
OUTPUT = "output"  # of the lines that load it, shown in a block of its own

__all__ = ["CARD", "REPORT", "RESULTS", "publish", "read_results", "render", "unfinished"]


def render(results: dict, has_report: bool = False, where: str | None = None) -> str:
    """The card's text: a head for the Hub, then what a reader wants first. What is not known is left out.

    has_report: whether report.png lies next to it. where: the folder or Hub repository that its lines load.
    Raises `ValueError` for an unknown objective, and for results that lack what a card shows."""
    from jinja2 import UndefinedError

    try:
        return written({**results, "card": {**AUTHOR, **results.get("card", {})}}, has_report, where)
    except (KeyError, TypeError, AttributeError, IndexError, UndefinedError, ValueError) as error:
        raise ValueError(f"The results are not as a run writes them: {error}. Run the recipe once more.") from error


def written(results: dict, has_report: bool, where: str | None) -> str:
    from .metadata import metadata
    from .usage import lines, packages

    code, safe = lines(results, where or expanded(results["folder"])), harmless(results)
    tried, printed = results.get("usage", {}), None
    if tried.get("lines") == lines(results, results["folder"]):  # or others were tried
        printed = safe["usage"][OUTPUT]
    text = environment().get_template("card.md.jinja").render(
        safe,
        introduction=wording.about(safe, packages(results)),
        code=code,
        printed=printed,
        transfers=[transfer_part(safe, transfer) for transfer in transfers(safe)],
        measure_protocol=wording.measured(safe),
        measured=tables.measured(safe),
        unshown=tables.unshown(safe),
        worse=tables.unshown(safe, worse=True),
        tested=wording.tested(safe),
        preparation=wording.prepared(safe),
        data_limits=wording.limits(safe),
        shortcomings=tables.shortcomings(safe),
        has_report=has_report,
        pair_label=safe.get("pair_label"),
        **worded(safe["objective"]),
    )  # fmt: skip
    yaml = metadata(results).to_yaml()
    return f"---\n{yaml}\n---\n\n{text.strip()}\n"


def transfer_part(results: dict, transfer: dict) -> dict:
    """What the template shows of one encoder's transfer."""
    return {
        **transfer,
        "kind": transfer.get("kind", results["inputs"][0]),
        "head": ["encoder", *map(" ".join, tables.columns(transfer).values())],
        "rows_of_table": tables.table(results, transfer),
        "verdicts": tables.verdict(transfer),
        "protocol": wording.protocol(results, transfer),
    }


def unfinished(name: str, objective: str, state: str, card: dict | None = None) -> str:
    """The card of a checkpoint of which nothing was measured. state: which one it is; card: what its author said."""
    from huggingface_hub import ModelCardData

    from .metadata import LIBRARY, TAGS

    author, tags = {**AUTHOR, **(card or {})}, [*TAGS, objective]
    head = ModelCardData(
        language=author["language"] or None, license=author["license"], library_name=LIBRARY, tags=tags
    )
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
        "described": registry.described(objective["name"]),
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
