"""Summary of a folder or Hub repository: encoder, objective, training data, training time and metrics.

folder or user/name -> its config.json and results.json -> lines on the screen
"""

import os

from ..modeling import NO_SETTINGS
from ..utils.foreign import CONFIG, read_config
from ..utils.hub import brought
from .results import RESULTS, read_results, transfers
from .tables import figure, shown, words
from .terminal import console
from .wording import headlines, measure_words


def show_info(source: str | os.PathLike, revision: str | None = None) -> None:
    """Prints the summary of a folder or Hub repository.

    revision: branch, tag or commit of a repository. Raises `ValueError` as `read_config_and_results`, and for results
    that lack entries."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    config, results = read_config_and_results(source, revision)
    try:
        lines = [(name, visible(value)) for name, value in summary(config, results)]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:  # values of any type
        raise ValueError(
            f"The {RESULTS} of {source} is incomplete or damaged: {type(error).__name__}: {error}. Run the recipe "
            "again."
        ) from error
    for name, value in lines:
        table.add_row(Text(name), Text(value))  # plain text: names may contain rich markup
    screen = console()
    screen.print(Text(str(source), "bold"), f"({revision})" if revision else "", soft_wrap=True)
    screen.print(table)


def read_config_and_results(source: str | os.PathLike, revision: str | None = None) -> tuple[dict, dict | None]:
    """Returns the config of a folder or Hub repository, and its results; None if it has no results.

    Raises `ValueError` if it has neither, if one of them is damaged, or if the Hub can't be reached."""
    folder = brought(source, revision, [CONFIG, RESULTS])
    config, has_results = folder / CONFIG, (folder / RESULTS).exists()
    if not config.exists() and not has_results:
        raise ValueError(
            f"{source} contains neither {CONFIG} nor {RESULTS}. Give the folder or repository of an encoder or a run."
        )
    content = read_config(config) if config.exists() else {}
    return content, read_results(folder) if has_results else None


def summary(config: dict, results: dict | None) -> list[tuple[str, str]]:
    """Returns the lines of the summary as (name, value)."""
    lines = []
    if config:
        pretext, classes = config.get("pretext"), config.get("architectures")
        classes = ", ".join(map(str, classes)) if isinstance(classes, list) else "?"
        lines.append(("encoder", f"{classes} ({config.get('model_type')})"))
        if isinstance(pretext, dict) and "objective" in pretext:
            settings = ", ".join(f"{name} {value}" for name, value in pretext.items() if name not in NO_SETTINGS)
            lines.append(("objective", f"{pretext['objective']}: {settings}"))
        else:
            lines.append(("objective", "none: a plain checkpoint"))
    else:
        lines.append(("encoder", f"{results['encoder']['class']} (without its weights)"))
        lines.append(("objective", results["objective"]["name"]))
    if results is None:
        return [*lines, ("results", f"none: no {RESULTS}")]
    if results.get("smoke"):
        lines.append(("smoke", "a few steps that check that everything works; the metrics mean nothing"))
    lines.append(("data", results["data"]["dataset"]))
    for run in results["seeds"]:
        took = shown(run["seconds"] and run["seconds"] / 60, "{:,.1f}")
        seen = f"{shown(run['samples_seen'])} samples in {shown(run['steps'])} steps, {took} minutes"
        lines.append((f"seed {run['seed']}", seen))
    return [*lines, *figures(results)]


def visible(text: str) -> str:
    """Replaces control characters, which could change what the terminal shows."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def figures(results: dict) -> list[tuple[str, str]]:
    """Returns the measured metrics, trained and random, as (name, value)."""
    lines = []
    for transfer in transfers(results):
        pair = [transfer["figures"][who] for who in ("trained", "random")]
        for method in transfer["methods"]:
            trained, random = (figure(metrics[f"{method}_top1"]) for metrics in pair)
            value = f"{trained} (random {random}), `{transfer['label']}` of {transfer['dataset']}"
            lines.append((words(method, transfer), value))
    for name in headlines(results):
        trained, random = (figure(results["measures"][who][name]) for who in ("trained", "random"))
        lines.append((measure_words(name), f"{trained} (random {random})"))
    return lines
