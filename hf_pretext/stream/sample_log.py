"""Log of the consumed samples: a digest, the bad samples with their reasons, and optionally the key of every sample.

batches of training -> bad_samples.jsonl, samples-rank0.jsonl, digest and counts for the checkpoint
"""

import hashlib
import itertools
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..utils.files import write_text
from ..utils.paths import hashed

BAD_SAMPLES, SAMPLES = "bad_samples.jsonl", "samples-rank{}.jsonl"
LAST = 1000  # `max_bad_fraction` is a share of so many samples, the last ones of all ranks
SHOWN = 5  # bad samples in an error message
DIGEST_RANGE = 2**64


class TooManyBadSamples(ValueError):
    """The share of bad samples exceeds `max_bad_fraction`."""


class SampleLog:
    """Log of the samples of one rank.

    digest: sum of one hash for each sample, of its number and key. The sum over all ranks does not depend on the number
    of ranks. reasons: counts of bad samples by reason. `bad_samples.jsonl` gets a line for each bad row, when it is
    first met. With `record`, `samples-rank*.jsonl` gets a line for each step.

    `max_bad_fraction` is a share of the samples of all ranks. A single rank stops at once. With several ranks, each
    rank returns its new bad samples (`pop_pending`) and counts those of all ranks (`merge`). So all ranks stop at the
    same step.
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
        """folder: of the files; None writes no files. rows: of the data, if known. start: samples seen so far. watched:
        the return value of `watched()` at the checkpoint of a resumed run."""
        self.folder = None if folder is None else Path(folder)
        self.rank, self.ranks, self.max_bad_fraction = rank, ranks, max_bad_fraction
        self.record = record and folder is not None
        self.digest, self.reasons = 0, Counter()
        self._most = min(LAST, rows or LAST)
        self._first = start if watched is None else watched["first"]  # the first sample that is counted
        bad = watched["bad"] if watched else ()
        self._bad: deque[tuple[int, str]] = deque((number, hashed(key)) for number, key in bad)
        self._pending: list[tuple[int, str, str]] = []  # number, key, description
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
        """Logs a batch. numbers, keys: of its samples. bad: all bad rows that were met, substitutes included
        (`{"key", "path", "reason"}`). replaced: bad samples of the batch that were replaced, by sample number.

        With one rank, raises `TooManyBadSamples`."""
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
        """Returns the replaced bad samples of this rank since the last call: number, key, description."""
        pending, self._pending = self._pending, []
        return pending

    def merge(self, pending: Iterable[list[tuple[int, str, str]]]) -> None:
        """Adds the new bad samples of all ranks to the counts. All ranks call it at the same step, with the same lists.

        pending: for each rank, the result of `pop_pending`. Raises `TooManyBadSamples`, on all ranks or none."""
        for number, key, example in sorted(itertools.chain(*pending)):
            self._bad.append((number, hashed(key)))
            self._examples.append(example)
            self._check(number)

    def watched(self) -> dict:
        """Returns the counts of bad samples that a resumed run continues with, for JSON."""
        return {"first": self._first, "bad": list(self._bad)}

    def step(self, number: int) -> None:
        """Records that all batches since the last call belong to step `number`."""
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
        """Raises `TooManyBadSamples` if the share of bad samples up to this sample is too large."""
        while self._bad[0][0] <= number - self._most:
            self._bad.popleft()
        if number - self._first + 1 < self._most:
            return
        # the last samples of a small set may contain a row twice, at the end of an epoch
        bad = len(self._bad if self._most == LAST else {key for _, key in self._bad})
        if bad > self.max_bad_fraction * self._most:
            raise TooManyBadSamples(
                f"{bad} of the last {self._most:,} samples are bad: more than --max_bad_fraction "
                f"{self.max_bad_fraction}. Fix the data, or raise the option. All are in {BAD_SAMPLES}; the last are:\n"
                + "\n".join(f"  {example}" for example in self._examples)
            )


def describe(sample: dict) -> str:
    """Describes a bad sample: "path or key: reason"."""
    return f"{sample.get('path') or sample['key']}: {sample['reason']}"


def kind(reason: str) -> str:
    """Kind of a reason, by which bad samples are counted: the text before the first colon, without numbers at its
    start."""
    return reason.partition(":")[0].lstrip("0123456789x ")


def append(path: Path, lines: Sequence[dict]) -> None:
    """Appends lines of JSON to a file in one write, so that processes can share the file."""
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict]:
    """Reads a file of lines of JSON, without duplicates. Skips lines that are no JSON: a killed process may leave an
    incomplete line, which another process continues."""
    records = []
    for line in dict.fromkeys(path.read_text(encoding="utf-8").splitlines()) if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def sizes_of_records(folder: str | os.PathLike) -> dict[str, int]:
    """Sizes of the files `samples-rank*.jsonl` in bytes, by file name."""
    return {path.name: path.stat().st_size for path in Path(folder).glob(SAMPLES.format("*"))}


def forget_after(folder: str | os.PathLike, step: int, sizes: Mapping[str, int] | None = None) -> None:
    """Removes all steps after `step` from the records of samples: a run that resumes there logs them again. Also
    removes incomplete lines from the list of bad samples.

    sizes: the return value of `sizes_of_records` at that step. Files are truncated to these sizes without being read,
    since they may be large."""
    for path in Path(folder).glob(SAMPLES.format("*")):
        size = 0 if step == 0 else (sizes or {}).get(path.name, 0 if sizes is not None else None)
        if size is not None and size <= path.stat().st_size:
            os.truncate(path, size)
        else:  # the checkpoint has no size of this file, or the file is shorter
            rewrite(path, [line for line in read_lines(path) if line.get("step", 0) <= step])
    bad_samples = Path(folder) / BAD_SAMPLES
    if bad_samples.exists():
        rewrite(bad_samples, read_lines(bad_samples))


def rewrite(path: Path, lines: Sequence[dict]) -> None:
    """Replaces a file by lines of JSON."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
