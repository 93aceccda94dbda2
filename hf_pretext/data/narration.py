"""Narrations of films: texts with their times, from lists or from subtitles (SubRip .srt, WebVTT .vtt).

row {"text": [...], "start": [...], "end": [...]} or {"subtitles": "1\\n00:00:01,000 --> ..."} -> Narrations by time
"""

import heapq
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .decoding import is_text
from .limits import BadSample

TIME = r"(-?)(?:(\d{1,6}):)?(\d{1,6}):(\d{1,6}(?:[.,]\d*)?)"  # sign, hours if not 0, minutes, seconds
TIMES = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")  # settings of a cue follow
AS_TIMES = re.compile(r"[\s-]*\d[\d\s:.,]*-->|.*-->[\s-]*\d+:")  # damaged or not; "A --> B" may be spoken
MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")  # <i>, </c>, <00:00:01.000>, {\an8}
LATEST = 1e9  # seconds
PAUSE = 0.05  # seconds between two cues that follow each other without pause
NEW_LINE = re.compile(r"\r\n?|\n")
NO_CUES = re.compile(r"(NOTE|STYLE|REGION)\b")  # beginnings of the blocks of WebVTT that are no cues


class Narration(NamedTuple):
    """A text that is spoken or shown during some seconds of a film. start, end: seconds from the film's start."""

    text: str
    start: float
    end: float


def narrations_in(row: Mapping) -> list[Narration] | None:
    """Returns the narrations of a row, sorted by time; None for a text without times (see `Source`).

    Raises `BadSample` for a row without a narration, and like `parsed` and `listed`."""
    if row.get("text") is None and "subtitles" in row:
        narrations = parsed(row["subtitles"])
    elif "start" in row and isinstance(row.get("text"), (list, tuple)):
        narrations = listed(row["text"], row["start"], row["end"])
    else:
        return None
    if not narrations:
        raise BadSample("no narration: the film has no text with times")
    return narrations


def parsed(content: str | None) -> list[Narration]:
    """Returns the narrations of SubRip or WebVTT subtitles, sorted by start, then end; `[]` for a film without them.

    A text is without markup and in one line. Cues without a text are left out. An end before its start is the start.
    Times may be after the end of the film. Lines that a cue repeats from the one before are left out: see `unrolled`.
    Raises `BadSample` for content of another format, and for times that can't be read."""
    if not isinstance(content, (str, type(None))):
        raise BadSample(f"subtitles are {type(content).__name__}, not a string")
    lines = NEW_LINE.split((content or "").removeprefix("\ufeff"))
    is_vtt, cues = next(filter(str.strip, lines), "").startswith("WEBVTT"), []
    for number, line in in_cues(lines) if is_vtt else enumerate(lines, 1):
        if AS_TIMES.match(line):
            if cues and not is_vtt and cues[-1][1] and cues[-1][1][-1].strip().isdecimal():
                cues[-1][1].pop()  # the number of this cue
            cues.append((times_of(line, number), []))
        elif cues:
            cues[-1][1].append(line)
    if not cues and not is_vtt and any(map(str.strip, lines)):
        raise BadSample("not subtitles: no line with times, like 00:00:01,000 --> 00:00:02,500")
    return unrolled([(times, [line for line in text if plain(line)]) for times, text in cues])


def unrolled(cues: Sequence[tuple[tuple[float, float], list[str]]]) -> list[Narration]:
    """Returns the narrations of cues, sorted by start, then end: (start and end in seconds, lines of text).

    Automatic captions roll: a cue begins with the last lines of the one before, which stay on the screen while the next
    line is spoken. A cue without pause after the one before has only its further lines here; if it has none, the one
    before lasts until its end. A text that comes again after a pause stays."""
    made: list[tuple[str, float, float]] = []
    shown, ended = [], -LATEST  # lines on the screen, and the time until which they are
    for (start, end), lines in sorted(cues, key=lambda cue: cue[0]):
        words = [plain(line) for line in lines]
        longest = min(len(shown), len(words)) if start <= ended + PAUSE else 0
        kept = next((n for n in range(longest, 0, -1) if shown[-n:] == words[:n]), 0)
        if lines[kept:]:
            made.append((plain(" ".join(lines[kept:])), start, end))
        elif kept:
            text, first, last = made.pop()
            made.append((text, first, max(last, end)))
        if lines:
            shown, ended = words, max(start, end)
    return sorted_by_time(made)


def in_cues(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields the lines of the cues of WebVTT with their numbers, without names of cues and other blocks."""
    first, is_cue = True, False  # first: the next line begins a block
    for number, line in enumerate(lines, 1):
        if first:
            ignored, is_cue = NO_CUES.match(line) is not None, False
        is_cue = not ignored and (is_cue or AS_TIMES.match(line) is not None)
        if is_cue:
            yield number, line
        first = not line  # a line of one space, as in automatic captions, is a part of the cue


def times_of(line: str, number: int) -> tuple[float, float]:
    """Returns start and end of a cue in seconds. Raises `BadSample` for a line that is not like `TIMES`."""
    match = TIMES.fullmatch(line)
    if match is None:
        raise BadSample(f"damaged subtitles: no times in line {number:,}: {line.strip()[:100]}")
    return seconds_of(*match.groups()[:4]), seconds_of(*match.groups()[4:])


def seconds_of(sign: str, hours: str | None, minutes: str, seconds: str) -> float:
    """Returns a time in seconds."""
    time = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
    return -time if sign else time


def plain(text: str) -> str:
    """Returns the text of a cue without markup, with one space between words."""
    return " ".join(html.unescape(MARKUP.sub("", text)).split())


def listed(texts: Sequence, starts: Sequence | None, ends: Sequence | None) -> list[Narration]:
    """Returns narrations from lists of texts and times, sorted by start, then end. Blank and missing texts are left
    out. An end before its start is the start.

    Raises `BadSample` for lists of different lengths, and for times that are no numbers."""
    check_lengths(text=texts, start=starts, end=ends)
    rows = [row for row in zip(texts, starts, ends, strict=True) if is_text(row[0])]
    for row in rows:
        if not all(isinstance(time, (int, float)) and -LATEST < time < LATEST for time in row[1:]):
            raise BadSample(f"times of a narration that are no numbers of seconds: {str(row[1:])[:100]}")
    return sorted_by_time(rows)


def check_lengths(**lists: Sequence | None) -> None:
    """Raises `BadSample` for lists of different lengths, and for values that are no lists."""
    lengths = [len(values) if isinstance(values, (list, tuple)) else None for values in lists.values()]
    if len(set(lengths)) > 1 or None in lengths:
        names, counts = list(lists), [str(length or "no") for length in lengths]
        texts = (f"{', '.join(some[:-1])} and {some[-1]}" for some in (names, counts))
        raise BadSample("{} have {} values".format(*texts))


def sorted_by_time(rows: Iterable[tuple[str, float, float]]) -> list[Narration]:
    """Returns narrations with a text, sorted by start, then end."""
    narrations = [Narration(text, float(start), float(max(start, end))) for text, start, end in rows if is_text(text)]
    return sorted(narrations, key=lambda narration: narration[1:])


def nearest(narrations: Sequence[Narration], start: float, end: float, count: int) -> list[Narration]:
    """Returns the narrations nearest in time to a clip, the nearest first; at most `count`.

    start, end: of the clip, in seconds of the film. The distance is that of the two intervals, 0 where they overlap.
    Of equal distances, that of the middles decides, then the order."""

    def distance(narration: Narration) -> tuple[float, float]:
        gap = max(narration.start - end, start - narration.end, 0.0)
        return gap, abs(narration.start + narration.end - start - end)

    return heapq.nsmallest(count, narrations, key=distance)
