"""What was consumed: a digest of the samples, the bad ones and why, and on request every key.

batches as they are trained on -> bad_samples.jsonl, samples-rank0.jsonl, and figures for the checkpoint
"""

import hashlib
import itertools
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..utils.files import write_text

BAD_SAMPLES, SAMPLES = "bad_samples.jsonl", "samples-rank{}.jsonl"
LAST = 1000  # samples of all ranks that `max_bad_fraction` looks at
SHOWN = 5
DIGEST_RANGE = 2**64


class TooManyBadSamples(ValueError):
    """More samples than allowed could not be used."""


class SampleLog:
    """One rank's account of its samples.

    digest: a sum of hashes, one for each sample's number and key; so that of all ranks together is the same for any
    number of ranks. reasons: how many samples could not be used, and why. Files hold a line for each bad row when it is
    first met, and for each step where `record` is set.

    `max_bad_fraction` is of the samples of all ranks. One rank alone stops at once; of several, each hands out its
    pending bad samples (`pop_pending`) and counts those of all (`merge`), so that all stop together and none waits.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None = None,
        rank: int = 0,
        ranks: int = 1,
        rows: int | None = None,
        max_bad_fraction: float = 1.0,
        record: bool = False,
        start: int = 0,
        watched: dict | None = None,
    ):
        """folder: where files go; None for none. rows: of the source, where known. start: samples seen so far. watched:
        what `watched()` gave in the part of the run that ended there."""
        self.folder = None if folder is None else Path(folder)
        self.rank, self.ranks, self.max_bad_fraction = rank, ranks, max_bad_fraction
        self.record = record and folder is not None
        self.digest, self.reasons = 0, Counter()
        self._most = min(LAST, rows or LAST)
        self._first = start if watched is None else watched["first"]  # the first sample that is counted
        self._bad: deque[tuple[int, str]] = deque(map(tuple, watched["bad"]) if watched else ())  # number and key
        self._pending: list[tuple[int, str, str]] = []  # number, key, and what is wrong with it
        self._examples: deque[str] = deque(maxlen=SHOWN)
        self._keys: list[str] = []
        self._written: set[tuple[str, int]] | None = None  # rows in bad_samples.jsonl

    def note(
        self,
        numbers: Sequence[int],
        keys: Sequence[str],
        bad: Sequence[dict] = (),
        replaced: Mapping[int, dict] | None = None,
    ) -> None:
        """A batch: its sample numbers and keys, all rows that could not be used (`{"key", "path", "reason"}`), and
        those of them that it was to hold, by their numbers.

        Raises `TooManyBadSamples` where there is one rank."""
        for number, key in zip(numbers, keys, strict=True):
            content = f"{number}:{key}".encode()
            self.digest += int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        self.digest %= DIGEST_RANGE
        if self.record:
            self._keys += keys
        if bad:
            self._write_down(bad)
        self._pending += [(number, sample["key"], describe(sample)) for number, sample in (replaced or {}).items()]
        if self.ranks == 1:
            self.merge([self.pop_pending()])

    def pop_pending(self) -> list[tuple[int, str, str]]:
        """Returns the bad samples that this rank was to train on since the last call."""
        pending, self._pending = self._pending, []
        return pending

    def merge(self, pending: Iterable[list[tuple[int, str, str]]]) -> None:
        """Counts all ranks' bad samples, up to the same step of each. Raises `TooManyBadSamples`, on all or none."""
        for number, key, example in sorted(itertools.chain(*pending)):
            self._bad.append((number, key))
            self._examples.append(example)
            self._check(number)

    def watched(self) -> dict:
        """Of what was merged, what a resumed run has to count further; for JSON."""
        return {"first": self._first, "bad": list(self._bad)}

    def step(self, number: int) -> None:
        """The step that all batches since the last one belong to."""
        if self.record:
            append(self.folder / SAMPLES.format(self.rank), [{"step": number, "keys": self._keys}])
            self._keys = []

    def _write_down(self, bad: Iterable[dict]) -> None:
        new = []
        for sample in bad:
            self.reasons[kind(sample["reason"])] += 1
            shard, _, row = sample["key"].rpartition(":")
            more = {"path": sample["path"]} if sample.get("path") else {}
            new.append({"shard": shard, "row": int(row), **more, "reason": sample["reason"]})
        if self.folder is None:
            return
        path = self.folder / BAD_SAMPLES
        if self._written is None:
            self._written = {(line["shard"], line["row"]) for line in read_lines(path)}
        new = {(line["shard"], line["row"]): line for line in new if (line["shard"], line["row"]) not in self._written}
        self._written.update(new)
        append(path, list(new.values()))

    def _check(self, number: int) -> None:
        """Whether too many were bad up to this sample."""
        while self._bad[0][0] <= number - self._most:
            self._bad.popleft()
        if number - self._first + 1 < self._most:
            return
        # a row of a small set may come twice, at an epoch's edge
        bad = len(self._bad if self._most == LAST else {key for _, key in self._bad})
        if bad > self.max_bad_fraction * self._most:
            raise TooManyBadSamples(
                f"{bad} of the last {self._most:,} samples could not be used, more than --max_bad_fraction "
                f"{self.max_bad_fraction} allows. Mend the data, or raise it. See {BAD_SAMPLES}; the last ones:\n"
                + "\n".join(f"  {example}" for example in self._examples)
            )


def describe(sample: dict) -> str:
    """Where a bad sample lies and what is wrong with it."""
    return f"{sample.get('path') or sample['key']}: {sample['reason']}"


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
    """The lines of such a file, each once. What is no JSON is left out: a killed process left it half-written, and
    another may have written on in the same line."""
    records = []
    for line in dict.fromkeys(path.read_text(encoding="utf-8").splitlines()) if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def sizes_of_records(folder: str | os.PathLike) -> dict[str, int]:
    """Bytes of each record of samples, by its file's name."""
    return {path.name: path.stat().st_size for path in Path(folder).glob(SAMPLES.format("*"))}


def forget_after(folder: str | os.PathLike, step: int, sizes: Mapping[str, int] | None = None) -> None:
    """Takes from the records of samples what came after a step, since a run that goes on there sees it again; and from
    the list of bad samples what a killed run left half-written.

    sizes: what `sizes_of_records` gave at that step. A record is cut there without being read, for it may be large."""
    for path in Path(folder).glob(SAMPLES.format("*")):
        size = 0 if step == 0 else (sizes or {}).get(path.name, 0 if sizes is not None else None)
        if size is not None and size <= path.stat().st_size:
            os.truncate(path, size)
        else:  # a checkpoint that does not say, or a record that was changed
            rewrite(path, [line for line in read_lines(path) if line.get("step", 0) <= step])
    bad_samples = Path(folder) / BAD_SAMPLES
    if bad_samples.exists():
        rewrite(bad_samples, read_lines(bad_samples))


def rewrite(path: Path, lines: Sequence[dict]) -> None:
    """Replaces a file of lines of JSON."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
