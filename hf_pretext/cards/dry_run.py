"""A push without the Hub: its checks, its files with their sizes, and the head of its card.

folder -> checks -> staging folders, as of a push -> text in the terminal; no request to the Hub
"""

import os
from collections.abc import Callable
from pathlib import Path

from . import CARD
from .push import checks, describe, files_of, staged

BODY = 5  # lines of the card after its metadata
LINE = 160  # letters of a line of the card
RESULTS_IN_HEAD = "model-index:"  # begins the metrics in the metadata, which are long
PASSED, FAILED, LATER = "passed", "failed", "not checked"
UNCHECKED = "Not checked without the Hub: the token, and whether it may write there."


def dry_run(
    folder: str | os.PathLike,
    repository: str,
    private: bool | None = None,
    revision: str = "main",
    checkpoints: str = "last",
    training_state: bool = False,
    say: Callable[[str], None] = print,
) -> bool:
    """Shows what `push` with the same arguments would send. Returns whether all checks passed.

    say: called with each part of the text. Files are staged as by `push`, in a temporary folder below `folder`."""
    problems = []
    for name, check in checks(folder, repository, revision, checkpoints):
        problems += tried(name, check, say)
    if problems:
        say(f"{LATER:>11}  files: fix the above first")
    else:
        listing: list[str] = []

        def stage() -> None:
            with staged(folder, repository, revision, checkpoints, training_state) as revisions:
                listing.extend(listed(into, name, repository) for into, name, _ in revisions)

        problems += tried("files: complete, readable, finite weights, no pickles", stage, say)
        for text in listing:
            say(text)
    kind = "as private" if private else "with the default visibility of its owner"
    nothing = "\nNothing was sent."
    say(nothing if problems else f"{nothing} A push creates {repository} if it does not exist, {kind}. {UNCHECKED}")
    return not problems


def tried(name: str, check: Callable[[], object], say: Callable[[str], None]) -> list[str]:
    """Runs a check and says whether it passed. Returns its error, if any."""
    try:
        check()
    except (ValueError, OSError) as error:
        say(f"{FAILED:>11}  {name}: {error}")
        return [str(error)]
    say(f"{PASSED:>11}  {name}")
    return []


def listed(into: Path, revision: str, repository: str) -> str:
    """Returns the files of a staging folder with their sizes in bytes, and the head of its card."""
    sizes = {path.relative_to(into).as_posix(): path.stat().st_size for path in files_of(into)}
    width = max(len(f"{size:,}") for size in sizes.values())
    lines = [f"  {size:>{width},} bytes  {name}" for name, size in sizes.items()]
    title = f"\n{repository}, revision {revision}: {describe(into)}"
    return "\n".join([title, *lines, f"\n{CARD} begins:\n", *head((into / CARD).read_text(encoding="utf-8"))])


def head(card: str) -> list[str]:
    """Returns the metadata of a card without the metrics, and its first lines."""
    _, metadata, body = card.split("---\n", 2)
    shown, _, metrics = metadata.partition(RESULTS_IN_HEAD)
    more = [f"{RESULTS_IN_HEAD} ({metrics.count('value:'):,} metrics)"] if metrics else []
    first = [line for line in body.splitlines() if line.strip()][:BODY]
    cut = [line if len(line) <= LINE else f"{line[: LINE - 1]}…" for line in first]
    return [f"  {line}" for line in ["---", *shown.splitlines(), *more, "---", *cut]]
