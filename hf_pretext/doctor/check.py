"""The result of one check of `hf-pretext doctor`."""

from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "lacking", "broken"]


@dataclass(frozen=True)
class Check:
    """Result of one check.

    state: `fine`, `lacking` (training works, but a feature does not) or `broken` (training is not possible). detail:
    what the check found. The last field is the command or step that fixes the problem; empty if the state is `fine`.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


def summary(error: BaseException) -> str:
    """Returns the class of an error and the first line of its message."""
    return f"{type(error).__name__}: {first_line(str(error))}".removesuffix(": ")


def first_line(text: str) -> str:
    """Returns the first line of a text that is not blank; empty if there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
