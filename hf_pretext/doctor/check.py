"""A line of the check-up."""

from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "lacking", "broken"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. detail: what it is like. mend: what to do about it; empty where it is fine."""

    name: str
    state: State
    detail: str
    mend: str = ""


def summary(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(str(error))}".removesuffix(": ")


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
