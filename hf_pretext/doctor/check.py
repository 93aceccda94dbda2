"""A line of the check-up, and what may be said in it."""

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "lacking", "broken"]
HIDDEN = "***"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. mend: what to do about it; empty where it is fine."""

    name: str
    state: State
    found: str
    mend: str = ""


def safe(text: str, secrets: list[str]) -> str:
    """Text without tokens, passwords in addresses, and what would steer a terminal."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = re.sub(r"\bhf_[A-Za-z0-9]{16,}", HIDDEN, text)
    text = re.sub(r"://[^/\s]*@", f"://{HIDDEN}@", text)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def said(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(str(error))}".removesuffix(": ")


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
