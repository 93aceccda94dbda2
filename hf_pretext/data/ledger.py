"""What was consumed: a digest of the samples, the bad ones and why, and on request every key.

batches as they are trained on -> bad_samples.jsonl, samples-rank0.jsonl, and figures for the checkpoint
"""

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..files import write_text

BAD_SAMPLES, SAMPLES = "bad_samples.jsonl", "samples-rank{}.jsonl"
LAST = 1000  # samples of all ranks that `max_bad_fraction` looks at
SHOWN = 5
DIGEST_RANGE = 2**64


class TooManyBadSamples(ValueError):
    """More samples than allowed could not be used."""


class Ledger:
    """One rank's account of its samples.

    digest: a sum of hashes, one for each sample's number and key; so that of all ranks together is the same for any
    number of ranks. reasons: how many samples could not be used, and why. Files hold a line for each bad row when it is
    first met, and for each step where `record` is set.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None = None,
        rank: int = 0,
        rows: int | None = None,
        max_bad_fraction: float = 1.0,
        record: bool = False,
    ):
        """folder: where files go; None for none. rows: of the source, where known."""
        self.folder = None if folder is None else Path(folder)
        self.rank, self.max_bad_fraction, self.record = rank, max_bad_fraction, record and folder is not None
        self.digest, self.reasons = 0, Counter()
        self._watched: deque[str | None] = deque(maxlen=min(LAST, rows or LAST))
        self._examples: deque[str] = deque(maxlen=SHOWN)
        self._keys: list[str] = []
        self._told: set[tuple[str, int]] | None = None  # rows in bad_samples.jsonl

    def note(
        self, numbers: Sequence[int], keys: Sequence[str], bad: Sequence[dict] = (), replaced: Sequence[str] = ()
    ) -> None:
        """A batch: its sample numbers and keys, all rows that could not be used (`{"key", "path", "reason"}`), and the
        keys of those that it was to hold.

        Raises `TooManyBadSamples`."""
        for number, key in zip(numbers, keys, strict=True):
            content = f"{number}:{key}".encode()
            self.digest += int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        self.digest %= DIGEST_RANGE
        if self.record:
            self._keys += keys
        self._watched += [*replaced, *[None] * (len(keys) - len(replaced))]
        if bad:
            self._write_down(bad)
            self._check()

    def step(self, number: int) -> None:
        """The step that all batches since the last one belong to."""
        if self.record:
            append(self.folder / SAMPLES.format(self.rank), [{"step": number, "keys": self._keys}])
            self._keys = []

    def _write_down(self, bad: Iterable[dict]) -> None:
        new = []
        for sample in bad:
            self.reasons[kind(sample["reason"])] += 1
            self._examples.append(f"{sample.get('path') or sample['key']}: {sample['reason']}")
            shard, _, row = sample["key"].rpartition(":")
            more = {"path": sample["path"]} if sample.get("path") else {}
            new.append({"shard": shard, "row": int(row), **more, "reason": sample["reason"]})
        if self.folder is None:
            return
        path = self.folder / BAD_SAMPLES
        if self._told is None:
            self._told = {(line["shard"], line["row"]) for line in read_lines(path)}
        new = {(line["shard"], line["row"]): line for line in new if (line["shard"], line["row"]) not in self._told}
        self._told.update(new)
        append(path, list(new.values()))

    def _check(self) -> None:
        seen = len(self._watched)
        bad = [key for key in self._watched if key is not None]
        bad = len(set(bad) if seen < LAST else bad)  # a row of a small set may come twice, at an epoch's edge
        if seen == self._watched.maxlen and bad > self.max_bad_fraction * seen:
            raise TooManyBadSamples(
                f"{bad} of the last {seen:,} samples could not be used, more than --max_bad_fraction "
                f"{self.max_bad_fraction} allows. Mend the data, or raise it. See {BAD_SAMPLES}; the last ones:\n"
                + "\n".join(f"  {example}" for example in self._examples)
            )


def kind(reason: str) -> str:
    """What bad samples are counted by: a reason without its particulars."""
    return reason.partition(":")[0].lstrip("0123456789x ")


def append(path: Path, lines: Sequence[dict]) -> None:
    """Adds lines of JSON to a file, each written at once, so that processes may share it."""
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict]:
    """The lines of such a file; a last one that a killed process left half-written is left out."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def forget_after(folder: str | os.PathLike, step: int) -> None:
    """Takes from the records of samples what came after a step, since a run that goes on there sees it again; and from
    all such files a line that a killed run left half-written, which the next would be added to."""
    for path in [*Path(folder).glob(SAMPLES.format("*")), *Path(folder).glob(BAD_SAMPLES)]:
        kept = [line for line in read_lines(path) if line.get("step", 0) <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
