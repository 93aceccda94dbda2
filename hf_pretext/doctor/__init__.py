"""The checks of `hf-pretext doctor`: tests whether this machine can train, and names a fix for each problem.

packages, machine, Hub -> examine() -> checks -> show() -> a table on the screen and an exit status
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..utils.tokens import known_tokens, safe
from .check import Check, State, summary
from .hardware import devices, disks, distributed, shared_memory
from .network import hub
from .packages import extras, ffmpeg, hub_package, packages, pair, python

SIGNS = {"fine": ("✓", "+", "green"), "lacking": ("!", "!", "yellow"), "broken": ("✗", "x", "red")}

# Name and state of the line that reports an exception in a check function, and the function.
LOOKS: tuple[tuple[str, State, Callable[[], Iterator[Check]]], ...] = (
    ("Python", "lacking", python),
    ("packages", "lacking", packages),
    ("huggingface_hub", "broken", hub_package),
    ("torch pair", "broken", pair),
    ("device", "broken", devices),
    ("distributed", "lacking", distributed),
    ("disk", "lacking", disks),
    ("shared memory", "lacking", shared_memory),
    ("Hub", "lacking", hub),
    ("extras", "lacking", extras),
    ("FFmpeg", "lacking", ffmpeg),
)


def examine() -> list[Check]:
    """Runs all checks and returns their results. An unexpected exception in a check becomes a result too.

    Never raises an exception. Removes Hub access tokens from the texts."""
    secrets, checks = known_tokens(), []
    for name, state, look in LOOKS:
        try:
            for check in look():
                checks.append(check)
        except Exception as error:
            checks.append(Check(name, state, f"this check failed: {summary(error)}"))
    return [replace(check, detail=safe(check.detail, secrets), fix=safe(check.fix, secrets)) for check in checks]


def show(checks: list[Check]) -> int:
    """Prints the checks and whether training is possible. Returns the exit status: 0 if it is possible, else 1."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    encoding = console.encoding
    plain = not encoding.lower().startswith("utf")  # other encodings have no ✓
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        *signs, color = SIGNS[check.state]
        # Text does not read [audio] as markup
        text = Text(check.detail.encode(encoding, "replace").decode(encoding))
        if check.fix:
            text.append(f"\nfix: {check.fix}", style="bold")
        table.add_row(Text(signs[plain], style=color), Text(check.name), text)
    console.print(table)
    states = [check.state for check in checks]
    if "broken" in states:
        sign = SIGNS["broken"][plain]
        console.print(f"Training is not possible here. Fix the checks marked {sign}.", soft_wrap=True)
        return 1
    sign = SIGNS["lacking"][plain]
    lacking = f" {sign} marks features with problems." if "lacking" in states else ""
    console.print(f"Training is possible here.{lacking}", soft_wrap=True)
    return 0
