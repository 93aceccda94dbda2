"""Baselines without an encoder, for example a linear probe of raw pixels. Each baseline is one file of this package.

labelled set -> metrics, in the format of `transfer`

A file that defines `BASELINE = Baseline(...)` is a baseline of one kind of data. Files are found automatically.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from .labelled_set import LabelledSet
from .measure import modules_with
from .transfer import Method


@dataclass(frozen=True)
class Baseline:
    """One baseline.

    kind: kind of data, for example "image". name: name in tables. words: subject and verb before "better" in a
    sentence, for example "raw pixels do". protocol: sentence about the protocol, for model cards. transfer: (labelled
    set, methods by name) -> metrics, as `transfer` returns them, of the methods that the baseline supports; None if the
    set does not have its features.
    """

    kind: str
    name: str
    words: str
    protocol: str
    transfer: Callable[[LabelledSet, Mapping[str, Method]], dict | None]


@cache
def baselines() -> list[Baseline]:
    """Returns all baselines, in the order of their file names."""
    return [vars(module)["BASELINE"] for module in modules_with("BASELINE")]


def baseline_transfer(labelled: LabelledSet, kind: str, methods: Mapping[str, Method], **options) -> dict[str, dict]:
    """Measures each baseline of a kind of data. Returns `{name: metrics}`. options: ignored; those of encoders."""
    measured = {each.name: each.transfer(labelled, methods) for each in baselines() if each.kind == kind}
    return {name: metrics for name, metrics in measured.items() if metrics is not None}
