"""Model cards: the README.md of a Hub repository, rendered from results.json. No metric is typed by hand.

folder with results.json -> README.md
"""

import os
from pathlib import Path

from .. import registry
from ..utils.files import write_text
from ..utils.settings import field_docs
from . import audit, tables, wording
from .results import CARD, REPORT, RESULTS, expanded, read_results, transfers
from .template import environment

UNSAFE = str.maketrans({"<": "&lt;", "[": "&#91;", "]": "&#93;", "|": "&#124;", "`": "'", "\n": " ", "\r": " "})
AUTHORS = str.maketrans({"<": "&lt;"})  # for the text that the author writes
AUTHOR = {"license": None, "language": [], "limits": None}  # defaults of the author's entries
OUTPUT = "output"  # of the lines that load the model; shown in a code block

__all__ = ["CARD", "REPORT", "RESULTS", "publish", "read_results", "render", "unfinished"]


def render(results: dict, has_report: bool = False, where: str | None = None) -> str:
    """Returns the text of a card: the YAML head for the Hub, usage, results, settings, limits. Omits unknown values.

    results: content of results.json. has_report: whether report.png is stored next to the card. where: folder or Hub
    repository in the lines that load the model; default: the run's folder.
    Raises `ValueError` for an unknown objective and for results that lack an entry that the card needs."""
    from jinja2 import UndefinedError

    try:
        return written({**results, "card": {**AUTHOR, **results.get("card", {})}}, has_report, where)
    except (KeyError, TypeError, AttributeError, IndexError, UndefinedError, ValueError) as error:
        raise ValueError(f"The results are incomplete or damaged: {error}. Run the recipe again.") from error


def written(results: dict, has_report: bool, where: str | None) -> str:
    """Renders the card. Arguments as in `render`; `results["card"]` has all keys of `AUTHOR`."""
    from .metadata import metadata
    from .usage import lines, packages

    code, safe = lines(results, where or expanded(results["folder"])), harmless(results)
    tried, printed = results.get("usage", {}), None
    if tried.get("lines") == lines(results, results["folder"]):  # the output belongs to these lines only
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
        at_chance=tables.unshown(safe, who="chance"),
        tested=wording.tested(safe),
        health_protocol=wording.health(safe),
        health_head=tables.health_head(safe),
        health_table=tables.health(safe),
        audit_protocol=audit.protocol(safe.get("audit", {})),
        audit_head=audit.cue_head(safe.get("audit", {})),
        cue_rows=audit.cue_rows(safe.get("audit", {})),
        encoder_tables=audit.encoder_tables(safe.get("audit", {})),
        audit_sentences=audit.sentences(safe.get("audit", {})),
        preparation=wording.prepared(safe),
        data_limits=wording.limits(safe),
        shortcomings=[*tables.shortcomings(safe), *audit.limits(safe.get("audit", {}))],
        has_report=has_report,
        pair_label=safe.get("pair_label"),
        **worded(safe["objective"]),
    )  # fmt: skip
    yaml = metadata(results).to_yaml()
    return f"---\n{yaml}\n---\n\n{text.strip()}\n"


def transfer_part(results: dict, transfer: dict) -> dict:
    """Returns the template's variables for the transfer evaluation of one encoder."""
    return {
        **transfer,
        "kind": transfer.get("kind", results["inputs"][0]),
        "head": ["encoder", *map(" ".join, tables.columns(transfer).values())],
        "rows_of_table": tables.table(results, transfer),
        "verdicts": tables.verdict(transfer),
        "protocol": wording.protocol(results, transfer),
        "first_seed": tables.first_seed(transfer),
        "chosen_layers": tables.chosen_layers(transfer),
    }


def unfinished(name: str, objective: str, state: str, card: dict | None = None) -> str:
    """Returns the card of a checkpoint without an evaluation.

    state: which checkpoint it is, in words. card: the author's entries, with the keys of `AUTHOR`."""
    from huggingface_hub import ModelCardData

    from .metadata import LIBRARY, TAGS

    author, tags = {**AUTHOR, **(card or {})}, [*TAGS, objective]
    head = ModelCardData(
        language=author["language"] or None, license=author["license"], library_name=LIBRARY, tags=tags
    )
    name, state = harmless(name), harmless(state)
    return (
        f"---\n{head.to_yaml()}\n---\n\n# {name}, {state}\n\nA checkpoint from pretraining with hf_pretext's objective "
        f"*{harmless(objective)}*. It was not evaluated.\n"
    )


def worded(objective: dict) -> dict:
    """Returns the template's variables for the objective: description, formula, limits, and rows of its settings.

    objective: its name and its settings. Settings that share one description share one row (names, values, words)."""
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
    """Escapes all strings of the results, which may come from untrusted data: they show as plain text in a card.

    name: the key of `value`. The author's `limits` keep their Markdown but lose HTML. The printed output,
    shown in a code block, loses only code fences."""
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
    """Writes README.md into a run's folder from its results.json and returns its path.

    where: see `render`. Raises `ValueError` if there are no valid results."""
    path = Path(folder) / CARD
    write_text(path, render(read_results(folder), (Path(folder) / REPORT).exists(), where))
    return path
