"""What needs no encoder, as a linear probe of raw pixels: one file of this package for each such baseline.

labelled set -> transfer, as of an encoder

A file that ends with `BASELINE = Baseline(...)` is a baseline of one kind of data. No list is edited.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from .labelled_set import LabelledSet
from .measure import modules_with
from .transfer import Method


@dataclass(frozen=True)
class Baseline:
    """One baseline. kind: of data. name: in tables. words: in a sentence: "raw pixels do" better. protocol: how it is
    measured, in a sentence for a card. transfer: (labelled set, methods by name) -> what `transfer` returns, for the
    methods that it has an answer to."""

    kind: str
    name: str
    words: str
    protocol: str
    transfer: Callable[[LabelledSet, Mapping[str, Method]], dict]


@cache
def baselines() -> list[Baseline]:
    """All baselines, by their files' names."""
    return [vars(module)["BASELINE"] for module in modules_with("BASELINE")]


def baseline_transfer(kind: str, labelled: LabelledSet, methods: Mapping[str, Method]) -> dict[str, dict]:
    """Transfer of each baseline of a kind of data, by its name."""
    return {each.name: each.transfer(labelled, methods) for each in baselines() if each.kind == kind}
