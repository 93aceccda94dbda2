"""Films whose sentences have known times, cut into windows of equal length.

film {"video", "text": [...], "true_start": [...], "true_end": [...]} -> times of windows (n,), sentences with their
times, frames (n, F, 3, S, S)

Each film is decoded once, and its frames stay in memory if they fit.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers.utils import logging

from ..data.captions import normalised
from ..data.clips import Clip, check_arguments, frame_times, frames_at, together
from ..data.columns import TEXTS, TIMES
from ..data.decoding import UNREADABLE, BadSample, is_text
from ..data.lines import Reading
from ..data.narration import Narration, check_lengths, listed, narrations_in
from ..data.sources import Source, open_splits
from ..modalities import MIDDLE, Batch, Inputs, Modality
from ..stream.workers import leave_objects_of_parent, started
from ..utils.progress import progress

KEPT_BYTES = 2**30  # decoded films up to this size stay in memory
AT_ONCE = 64  # windows of a batch
DECODED_AT_ONCE = 16  # frames of a film that are in memory at full size
PREFIX = "localization_"  # of the options
TRUE_TIMES = ("true_start", "true_end")  # canonical columns
UNREADABLE_FILMS, UNTIMED, UNREACHED = (
    "films that can't be read or have no sentence with a time",
    "sentences without a text or a time",
    "sentences in whose time no window has its middle",
)
log = logging.get_logger(__name__)


class Sentence(NamedTuple):
    """A sentence of a film. times: start and end of each time at which the film shows it, `(k, 2)`, in seconds: of a
    sentence that occurs several times, all. subtitle: start and end of its subtitle; None if this has no other time."""

    text: str
    times: np.ndarray
    subtitle: tuple[float, float] | None


class Plan(NamedTuple):
    """What is looked for in a film. times: middles of its windows, `(n,)`, in seconds."""

    times: np.ndarray
    sentences: list[Sentence]


class Frames(NamedTuple):
    """The frames of a film. distinct: `(m, 3, S, S)` uint8. index: those of each window, `(n, F)`."""

    distinct: Tensor
    index: Tensor


class TimedFilms:
    """The films of a dataset whose sentences have known times: of its test split, else of validation, else all.

    Windows have the length of a clip. Their middles are in the middles of steps, from the first step of the film to its
    last one. A window at an end of the film shows its first or last frame also before the first and after the last.

    plans: of each film. left_out: numbers of films and sentences that can't be used, by reason.
    """

    def __init__(
        self,
        dataset,
        inputs: Inputs,
        columns: Mapping[str, str | None] | None = None,
        seconds: float | None = None,
        step: float = 1.0,
        workers: int = 0,
        reading: Reading | None = None,
    ):
        """inputs: inputs of training, fitted to their encoders. columns: names in the data of "video", "text",
        "true_start" and "true_end"; default: detected, and the true times are those of the texts or subtitles. seconds:
        length of a window; default: that of a clip. step: seconds between the middles of two windows. workers:
        processes that decode.

        Raises `ValueError` for windows without a length or shorter than their frames last, like `open_splits`, for
        texts without times, and for films without a readable one."""
        self.video, self.step, self.workers = inputs.evaluation().by_name["video"], step, workers
        self.seconds = window_length(self.video, seconds)
        asked = {name: column for name, column in (columns or {}).items() if column is not None}
        true = TRUE_TIMES if asked.keys() & set(TRUE_TIMES) else ()
        sources = open_splits(dataset, asked, ("video", TEXTS, *true), reading, PREFIX)
        self.source = next(sources[split] for split in ("test", "validation", "train") if split in sources)
        self.name, self.revision = self.source.name, self.source.revision
        check_times(self.source, bool(true))
        self.left_out: Counter[str] = Counter()
        self.plans: list[Plan] = []
        self._frames: list[Frames] | None = []
        self._read()

    def __iter__(self) -> Iterator[tuple[Plan, Iterator[Batch]]]:
        """Iterates the films: what is looked for, and batches of windows as inputs of the video encoder, in order."""
        frames = self._decoded() if self._frames is None else self._frames
        for plan, some in zip(self.plans, frames, strict=True):
            yield plan, self._batches(some)

    def __len__(self) -> int:
        """Number of sentences."""
        return sum(len(plan.sentences) for plan in self.plans)

    @property
    def has_subtitles(self) -> bool:
        """True if all sentences have subtitles with times of their own."""
        return all(sentence.subtitle is not None for plan in self.plans for sentence in plan.sentences)

    def _batches(self, frames: Frames) -> Iterator[Batch]:
        for index in frames.index.split(AT_ONCE):
            yield self.video.finish({self.video.encoder_input: frames.distinct[index]})

    def _read(self) -> None:
        """Reads all films: keeps what is looked for, and the decoded frames if they fit in memory."""
        size = 0
        for result in self._results(progress(total=len(self.source), description="reading timed films")):
            if isinstance(result, str):
                self.left_out[UNREADABLE_FILMS] += 1
                continue
            plan, frames, untimed, unreached = result
            self.left_out.update({UNTIMED: untimed, UNREACHED: unreached})
            if not plan.sentences:
                continue
            self.plans.append(plan)
            if self._frames is not None:
                self._frames.append(frames)
                size += frames.distinct.nbytes
            if size > KEPT_BYTES:
                self._frames = None
        self.left_out = +self.left_out
        reasons = ", ".join(f"{count:,} {what}" for what, count in self.left_out.items())
        if not len(self):
            raise ValueError(
                f"{self.name} (--{PREFIX}dataset) has no film with a sentence whose time is known ({reasons}). Check "
                "its files, or leave it out."
            )
        if reasons:
            log.warning(f"{self.name}, temporal localization: {reasons} are left out.")

    def _decoded(self) -> Iterator[Frames]:
        """Decodes the films of `plans` again."""
        yield from (result[1] for result in self._results() if not isinstance(result, str) and result[0].sentences)

    def _results(self, bar=None) -> Iterator["tuple[Plan, Frames, int, int] | str"]:
        """Iterates the films of the source, see `Cutter`, decoded in the workers."""
        places = [(piece, i) for piece, count in enumerate(self.source.counts) for i in range(count)]
        loader = DataLoader(
            Cutter(self.video, self.seconds, self.step),
            sampler=self.source.take(places),
            batch_size=None,
            num_workers=self.workers,
            collate_fn=unchanged,
            worker_init_fn=leave_objects_of_parent,
            generator=torch.Generator(),
        )
        for result in started(loader):
            yield result
            if bar is not None:
                bar.update(1)
        if bar is not None:
            bar.close()


class Cutter(Dataset):
    """Decodes films, in the workers. A film becomes what is looked for in it, its frames, and the numbers of sentences
    that are `UNTIMED` and `UNREACHED`; an unreadable one, the reason."""

    def __init__(self, video: Modality, seconds: float, step: float):
        self.video, self.seconds, self.step = video, seconds, step

    def __getitem__(self, row: dict) -> tuple[Plan, Frames, int, int] | str:
        try:
            if UNREADABLE in row:
                raise BadSample(row[UNREADABLE])
            sentences, untimed = sentences_in(row)
            times = middles(self.video.part.length_of(row["video"]), self.step)
            reached = [each for each in sentences if within(times, each.times).any()]
            frames = self.frames(row["video"], times)
        except BadSample as error:
            return str(error)
        return Plan(times, reached), frames, untimed, len(sentences) - len(reached)

    def frames(self, film: dict | bytes, times: np.ndarray) -> Frames:
        """Decodes the frames of windows around `times`."""
        part = self.video.part
        of_windows = [frame_times(time - self.seconds / 2, self.seconds, part.fps, part.frames) for time in times]
        asked = np.array(of_windows)  # (n, F)
        order = np.argsort(asked, axis=None, kind="stable")
        shown, counts, buffer = [], [], []
        for pixels, count in frames_at(film, asked.ravel()[order].tolist(), part.limits, DECODED_AT_ONCE):
            buffer.append(pixels)
            counts.append(count)
            if len(buffer) == DECODED_AT_ONCE:
                shown.append(self.resized(buffer))
                buffer = []
        shown += [self.resized(buffer)] if buffer else []
        index = np.empty(asked.size, np.int64)
        index[order] = np.repeat(np.arange(len(counts)), counts)
        return Frames(torch.cat(shown), torch.from_numpy(index.reshape(asked.shape)))

    def resized(self, frames: Sequence[Tensor]) -> Tensor:
        """Returns frames as the processor resizes them, uint8 `(n, 3, S, S)`."""
        clip = Clip(together(frames), None, None, 0.0, self.seconds)
        return self.video({"video": clip}, None, MIDDLE)[self.video.encoder_input]


def sentences_in(row: Mapping) -> tuple[list[Sentence], int]:
    """Returns the sentences of a row with their times, and the number of those without a text or a time.

    Raises `BadSample` for a row without a sentence, lists of different lengths, and times that are no numbers."""
    if TRUE_TIMES[0] not in row:
        narrations = [(narration, None) for narration in narrations_in(row) or []]
        untimed = 0
    else:
        columns = {name: row[name] for name in ("text", *TRUE_TIMES, *TIMES) if name in row}
        check_lengths(**columns)
        known = [
            values
            for values in zip(*columns.values(), strict=True)
            if is_text(values[0]) and None not in (values[1], values[2])
        ]
        untimed = len(columns["text"]) - len(known)
        narrations = [
            (timed(text, start, end), timed(text, *subtitle)[1:] if subtitle else None)
            for text, start, end, *subtitle in known
        ]
    if not narrations:
        raise BadSample("no sentence with a time")
    by_text: dict[str, list[tuple[float, float]]] = {}
    for narration, _ in narrations:
        by_text.setdefault(normalised(narration.text), []).append(narration[1:])
    return [Sentence(n.text, np.array(by_text[normalised(n.text)]), subtitle) for n, subtitle in narrations], untimed


def timed(text: str, start: float, end: float) -> Narration:
    """Returns a sentence with one of its times. Raises `BadSample` for times that are no numbers."""
    return listed([text], [start], [end])[0]


def middles(length: float, step: float) -> np.ndarray:
    """Returns the middles of the steps of a film of `length` seconds; of a film shorter than half a step, its middle.

    The last step may end after the film, but its middle does not."""
    times = np.arange(step / 2, length, step)
    return times if len(times) else np.array([length / 2])


def within(times: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Returns True for times `(n,)` within one of intervals `(k, 2)`, without their ends: bool `(n,)`."""
    return ((times[:, None] >= intervals[:, 0]) & (times[:, None] < intervals[:, 1])).any(1)


def window_length(video: Modality, seconds: float | None) -> float:
    """Returns the length of a window in seconds. Raises `ValueError` if neither it nor the clip has one, and if its
    frames last longer."""
    seconds = video.part.seconds if seconds is None else seconds
    if seconds is None:
        raise ValueError(f"Clips are full videos, so that windows have no length. Give --{PREFIX}seconds.")
    check_arguments(seconds, video.part.fps, video.part.frames, 0.0, None)
    return seconds


def check_times(source: Source, true: bool) -> None:
    """Raises `ValueError` for texts without times, and for subtitles next to true times. true: whether these are
    given."""
    options = f"--{PREFIX}start_column and --{PREFIX}end_column"
    if true and "text" not in source.columns:
        raise ValueError(
            f"{source.name}: {options} are the times of a list of texts, but the texts are the subtitles in "
            f"{source.columns['subtitles']!r}. Give a list with --{PREFIX}text_column, or leave out {options}."
        )
    if not true and "subtitles" not in source.columns and "start" not in source.columns:
        raise ValueError(
            f"{source.name}: the texts in {source.columns['text']!r} have no times. Name the columns of their times in "
            f"seconds with {options}."
        )


def unchanged(result):
    """Returns its argument, in the workers."""
    return result
