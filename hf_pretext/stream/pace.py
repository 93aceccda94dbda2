"""Speed of a run in samples per second, and the time that steps wait for data.

time, samples, waits -> {"samples_per_second", "data_wait", "epoch_of_source"} at each log
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback
from transformers.utils import logging

from ..utils.machine import cores
from ..utils.paths import relative
from .mixture import Mixture
from .order import MixedOrder
from .reader import Reader

LONG_WAIT = 0.2  # share of the time that steps wait for data, above which a warning is logged
log = logging.get_logger(__name__)


class Pace(TrainerCallback):
    """Callback that measures the speed of a run. Warns once if steps wait long for data in two logs in a row.

    waited: seconds that steps have waited for data.
    """

    def __init__(self):
        self.waited = 0.0
        self._seconds, self._started = 0.0, None
        self._last: dict[str, float] | None = None  # values at the last log
        self._reading_is_slow = False
        self._long_waits = 0  # logs in a row

    @property
    def seconds(self) -> float:
        """Seconds of training, over all resumed parts of the run."""
        return self._seconds + (0.0 if self._started is None else time.perf_counter() - self._started)

    @contextmanager
    def running(self, seconds_before: float | None = None) -> Iterator[None]:
        """Counts the time inside the context as training. seconds_before: training time of the run before it was
        resumed."""
        if seconds_before is not None:
            self._seconds = seconds_before
        self._started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds, self._started = self.seconds, None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside the context as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def measure(self, samples_seen: int, data: Mixture, reader: Reader) -> dict[str, float]:
        """Returns `samples_seen` and the epochs of each source. From the second log on, also `samples_per_second` and
        `data_wait` since the last log: the share of the time that steps waited for data, 0..1."""
        now = {"time": time.perf_counter(), "samples": samples_seen, "waited": self.waited, "read": reader.waited}
        pace = {"samples_seen": samples_seen, **epochs_of_sources(data, reader.order, samples_seen)}
        if self._last is not None and now["time"] > self._last["time"]:
            passed = {name: value - self._last[name] for name, value in now.items()}
            pace["samples_per_second"] = round(passed["samples"] / passed["time"], 1)
            pace["data_wait"] = round(passed["waited"] / passed["time"], 4)
            self._reading_is_slow = passed["read"] > passed["waited"] / 2  # reading rows is slow, not decoding them
        self._last = now
        return pace

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Warns at the second log in a row with a long wait for data."""
        if "data_wait" not in (logs or {}):
            return
        self._long_waits = self._long_waits + 1 if logs["data_wait"] > LONG_WAIT else 0
        if self._long_waits == 2 and state.is_world_process_zero:
            fix = how_to_wait_less(self._reading_is_slow, args.dataloader_num_workers)
            log.warning(f"Steps wait {logs['data_wait']:.0%} of the time for data: {fix}.")


def epochs_of_sources(data: Mixture, order: MixedOrder, samples_seen: int) -> dict[str, float]:
    """Returns the number of epochs (float) read so far from each source of known length: `{"epoch_of_source": ...}`, or
    `{"epoch_of_source/<name>": ...}` for several sources."""
    several = len(data.sources) > 1
    names = [f"/{source.prefix}{relative(source.name)}" if several else "" for source in data.sources]
    if len(set(names)) < len(names):  # folders of the same name
        names = [f"/{number}{name}" for number, name in enumerate(names)]
    return {
        f"epoch_of_source{name}": count / len(source)
        for name, source, count in zip(names, data.sources, order.drawn(samples_seen), strict=True)
        if not source.endless
    }


def how_to_wait_less(reading_is_slow: bool, workers: int) -> str:
    """Returns the slow part of the data loading and its fix, as a sentence. workers: processes that decode."""
    if reading_is_slow:
        return "reading is slow. Copy the data to a local disk, or write it in smaller pieces (Parquet row groups)"
    if workers < cores() - 1:
        return f"decoding is slow. Use more worker processes: --dataloader_num_workers {max(cores() - 1, workers + 1)}"
    return "decoding is slow. Store smaller images or shorter sounds, close to the input size of the encoder"
