"""Several sources as one, with weights.

Source, Source, ... -> Mixture
"""

import copy
from collections.abc import Sequence

from ..data.sources import Source
from .order import BLOCK, CYCLE, can_be_met


class Mixture:
    """What is trained on: one source, or several with weights."""

    def __init__(
        self,
        sources: Source | Sequence[Source],
        weights: Sequence[float] | None = None,
        one_source_a_step: bool = False,
    ):
        """weights: shares of the samples, in any scale; by the sources' rows where None. one_source_a_step: whether all
        samples of a step, on all ranks, are of one source: of kinds that can't share a batch.

        Raises `ValueError` for weights that do not fit the sources."""
        self.sources = [sources] if isinstance(sources, Source) else list(sources)
        self.one_source_a_step = one_source_a_step and len(self.sources) > 1
        block, share = (CYCLE, "a twentieth") if self.one_source_a_step else (BLOCK, "a thousandth")
        names = [name for source in self.sources for name in {name for name, _ in source.rows.places}]
        if len(set(names)) < len(names):  # or two rows would have one key
            self.sources = [copy.copy(source) for source in self.sources]
            for number, source in enumerate(self.sources):
                source.prefix = f"{number}/"
        self.weights = None if weights is None else list(weights)
        if weights is not None and (len(weights) != len(self.sources) or min(weights) <= 0):
            raise ValueError(
                f"--mixture_weights {' '.join(map(str, weights))}: give a positive number for each of the "
                f"{len(self.sources)} datasets."
            )
        if weights is None and len(self.sources) > 1 and self.endless:
            raise ValueError("A mixture with an iterable of unknown length needs --mixture_weights.")
        if weights is not None and not can_be_met(weights, block):
            raise ValueError(
                f"--mixture_weights {' '.join(map(str, weights))}: each must be at least {share} of their sum."
            )
        if weights is None and len(self.sources) > 1 and not can_be_met(list(map(len, self.sources)), block):
            smallest = min(self.sources, key=len)
            raise ValueError(
                f"{smallest.name} has {len(smallest):,} of {len(self):,} rows, less than {share}. Leave it out, "
                "or say with --mixture_weights how often it is to come."
            )

    @property
    def name(self) -> str:
        return " + ".join(source.name for source in self.sources)

    @property
    def endless(self) -> bool:
        """Whether nobody knows how many rows there are."""
        return any(source.endless for source in self.sources)

    def __len__(self) -> int:
        """Rows of all sources. Raises `TypeError` where nobody knows."""
        return sum(map(len, self.sources))

    def fingerprint(self) -> list[dict]:
        """What tells this data from other data, source by source; for JSON."""
        return [{"name": source.name, **source.rows.fingerprint()} for source in self.sources]
