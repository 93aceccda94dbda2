"""Mixture of several sources, with weights.

Source, Source, ... -> Mixture
"""

import copy
from collections.abc import Sequence

from ..data.sources import Source
from .order import BLOCK, CYCLE, can_be_met


class Mixture:
    """Training data: one source, or several sources with weights."""

    def __init__(
        self,
        sources: Source | Sequence[Source],
        weights: Sequence[float] | None = None,
        one_source_a_step: bool = False,
    ):
        """weights: shares of the samples, in any scale; default: the rows of each source. one_source_a_step: takes all
        samples of a step, on all ranks, from one source. Needed if the sources contain kinds of data that can't share a
        batch.

        Raises `ValueError` if the weights do not fit the sources: one positive number for each source, none too small,
        and no default if the length of a source is unknown."""
        self.sources = [sources] if isinstance(sources, Source) else list(sources)
        self.one_source_a_step = one_source_a_step and len(self.sources) > 1
        block, share = (CYCLE, "a twentieth") if self.one_source_a_step else (BLOCK, "a thousandth")
        names = [name for source in self.sources for name in {name for name, _ in source.rows.places}]
        if len(set(names)) < len(names):  # the prefix keeps keys of rows unique
            self.sources = [copy.copy(source) for source in self.sources]
            for number, source in enumerate(self.sources):
                source.prefix = f"{number}/"
        self.weights = None if weights is None else list(weights)
        if weights is not None and (len(weights) != len(self.sources) or min(weights) <= 0):
            raise ValueError(
                f"--mixture_weights {' '.join(map(str, weights))} does not fit the data: give a positive number for "
                f"each of the {len(self.sources)} datasets."
            )
        if weights is None and len(self.sources) > 1 and self.endless:
            raise ValueError(
                "A dataset of the mixture has no known length, so its share of the samples is unknown. Give "
                "--mixture_weights."
            )
        if weights is not None and not can_be_met(weights, block):
            raise ValueError(
                f"--mixture_weights {' '.join(map(str, weights))} has a weight that is too small: each must be at "
                f"least {share} of their sum."
            )
        if weights is None and len(self.sources) > 1 and not can_be_met(list(map(len, self.sources)), block):
            smallest = min(self.sources, key=len)
            raise ValueError(
                f"{smallest.name} has {len(smallest):,} of {len(self):,} rows, less than {share}. Leave it out, "
                "or give its share of the samples with --mixture_weights."
            )

    @property
    def name(self) -> str:
        """Names of the sources, joined with " + "."""
        return " + ".join(source.name for source in self.sources)

    @property
    def endless(self) -> bool:
        """True if the number of rows of a source is unknown."""
        return any(source.endless for source in self.sources)

    def __len__(self) -> int:
        """Rows of all sources. Raises `TypeError` if the number is unknown."""
        return sum(map(len, self.sources))

    def fingerprint(self) -> list[dict]:
        """Returns the name and the fingerprint of each source, for JSON. Other data has another fingerprint."""
        return [{"name": source.name, **source.rows.fingerprint()} for source in self.sources]

    def contents(self) -> list[dict]:
        """Returns the stamps and hashes of the files of each source, for JSON (see `Contents`)."""
        return [source.rows.contents.record() for source in self.sources]
