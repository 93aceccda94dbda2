"""Regenerates the card of a finished run, with the author's entries or after a change of the template.

folder with results.json -> runs the lines that load the model again -> results.json, README.md
"""

import os
from pathlib import Path

from ..audit.entry import OF_TASK
from ..utils.files import write_json
from ..utils.finite import check_finite_weights
from ..utils.paths import relative
from . import AUTHOR, RESULTS, publish, read_results, render
from .licenses import check_language, check_license
from .staging import CONFIG
from .usage import tried


def refresh_card(
    folder: str | os.PathLike,
    license: str | None = None,
    language: list[str] | None = None,
    limits: str | None = None,
) -> Path:
    """Writes a run's card again and returns its path.

    license: a licence name of the Hub. language: language codes. limits: text for the card's limits. They are stored
    in results.json; None keeps the stored value.
    Raises `ValueError` for an unknown licence or language code, for missing or damaged results, and for weights that
    are not finite, before it changes any file."""
    check_license(license)
    check_language(language or [])
    results = read_results(folder)
    given = {"license": license, "language": language, "limits": limits}
    author = {name: value for name, value in given.items() if value is not None}
    results["card"] = {**AUTHOR, **results.get("card", {}), **author}
    check_finite_weights(folder)
    render(results)  # raises before any file changes
    if (Path(folder) / CONFIG).exists():
        results["folder"] = relative(str(Path(folder).absolute()))  # the folder may have moved
        results["usage"] = tried(results, folder)
    write_json(Path(folder) / RESULTS, results)
    return publish(folder)


def refresh_audit(folder: str | os.PathLike, entry: dict) -> Path | None:
    """Writes an audit into the results of a run, and its card again; report.png stays as it is. Returns the path of the
    card; None if the folder has no results.

    An audit of some parts, on the same rows, replaces these parts only. Raises `ValueError` for one on other rows."""
    if not (Path(folder) / RESULTS).exists():
        return None
    results = read_results(folder)
    before = results.get("audit", {"dataset": entry["dataset"], "rows": entry["rows"]})
    if any(before[name] != entry[name] for name in ("dataset", "rows")):
        raise ValueError(
            f"{folder} has an audit of {before['dataset']} with the rows {before['rows']}, and is not changed. Audit "
            "the same rows, or write this audit to a file with --output."
        )
    encoders = {kind: joined(before.get("encoders", {}).get(kind), each) for kind, each in entry["encoders"].items()}
    results["audit"] = {
        **before,
        **entry,
        "encoders": {**before.get("encoders", {}), **encoders},
        "warnings": warnings_of(before, entry),
    }
    render(results)  # raises before any file changes
    write_json(Path(folder) / RESULTS, results)
    return publish(folder)


def warnings_of(before: dict, entry: dict) -> list[str]:
    """Returns the warnings of an audit, and those of the parts that only the audit before it measured."""
    old, new = (audit.get("warnings", []) for audit in (before, entry))
    of_task = old if "cues" in before and "cues" not in entry else new  # what can't be measured again stays as it was
    of_encoders = old if before.get("encoders") and not entry["encoders"] else new
    return [
        *(text for text in of_encoders if not text.startswith(OF_TASK)),
        *(text for text in of_task if text.startswith(OF_TASK)),
    ]


def joined(before: dict | None, after: dict) -> dict:
    """Returns the metrics of an encoder with those of a further audit of it."""
    if before is None:
        return after
    deep = {name: {**before.get(name, {}), **value} for name, value in after.items() if isinstance(value, dict)}
    return {**before, **after, **deep}
