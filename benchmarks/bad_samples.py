"""Measures the time to choose the substitute of one bad sample, by the size of the global batch.

    python benchmarks/bad_samples.py              # a few seconds

A substitute must not be a row of the global batch. Our reader inverts the order of the samples to find out; the usual
way is to list the keys of the batch. Prints the medians of both and their ratio.
"""

import statistics
import time
from collections.abc import Callable

from hf_pretext.data.sources import open_source
from hf_pretext.stream.order import RowsOf
from hf_pretext.stream.reader import Reader, make_order
from hf_pretext.stream.settings import StreamSettings

ROWS, TURNS, BATCHES = 1_000_000, 11, (64, 1024, 32_768)


class Rows:
    """A million short texts, made when they are read."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> dict[str, str]:
        return {"text": f"row {i}"}


def milliseconds(act: Callable[[Reader, range], object], reader: Reader, batch: int) -> float:
    """Returns the median time of `act(reader, numbers of a global batch)`, over several batches."""
    times = []
    for first in range(0, TURNS * batch, batch):
        start = time.perf_counter()
        act(reader, range(first, first + batch))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def substitute(reader: Reader, numbers: range) -> dict:
    """Returns the substitute of the first sample of a batch."""
    return next(reader.substitutes(numbers[0], len(numbers), RowsOf(reader.order, numbers)))


def keys(reader: Reader, numbers: range) -> set[str]:
    """Returns the keys of a batch."""
    return {reader.key(g) for g in numbers}


def main() -> None:
    source = open_source(Rows(), needed=("text",))
    reader = Reader([source], make_order([source], None, StreamSettings(), 0), 2**30)
    for batch in BATCHES:
        ours, listed = (milliseconds(act, reader, batch) for act in (substitute, keys))
        print(f"global batch {batch:>6,}: {ours:.2f} ms, list of the keys {listed:.2f} ms ({listed / ours:.0f} times)")


if __name__ == "__main__":
    main()
