"""The card of a finished run once more: with what its author has to say, or after the template has changed.

folder with results.json -> the lines that load it, run again -> results.json, README.md
"""

import os
from pathlib import Path

from ..utils.files import write_json
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
    """Writes a run's card anew, and returns where. What its author says is kept in results.json; what was said before
    stays where nothing is given. Raises `ValueError` for a licence of no name of the Hub's, and where the folder holds
    no results, or others than a run writes, before anything is touched."""
    check_license(license)
    check_language(language or [])
    results = read_results(folder)
    given = {"license": license, "language": language, "limits": limits}
    author = {name: value for name, value in given.items() if value is not None}
    results["card"] = {**AUTHOR, **results.get("card", {}), **author}
    render(results)  # or nothing is touched
    if (Path(folder) / CONFIG).exists():
        results["folder"] = relative(str(Path(folder).absolute()))  # where it lies now
        results["usage"] = tried(results, folder)
    write_json(Path(folder) / RESULTS, results)
    return publish(folder)
