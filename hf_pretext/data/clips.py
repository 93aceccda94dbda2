"""Clips of films and sounds: frames and sound of the same seconds; what can't be used raises `BadSample`.

{"bytes": ..., "path": ...} -> frames (F, 3, H, W) uint8, sound (T,) float and its mask (T,), start (s)

Times are presentation times, so that a clip of a film with a varying frame rate lasts as long as any other. Only the
clip is decoded, from the key frame before it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..utils.units import in_seconds
from .cut_files import check_complete, film_format
from .decoding import content_of, guarded
from .films import Film, upright
from .limits import LIMITS, BadSample, Limits
from .sounds import SoundFile, check_loudness, sound_at


class Clip(NamedTuple):
    """A part of a film or sound.

    frames: RGB, uint8 `(F, 3, H, W)`; None if no frames were asked for. sound: one channel in [-1, 1], float32 `(T,)`;
    None if no sound was asked for. mask: True where the file has sound, bool `(T,)`; the samples elsewhere are 0.
    start: place of the clip in the file, in seconds from its first frame (without frames in the file: from its first
    sample). seconds: length of the clip.
    """

    frames: Tensor | None
    sound: Tensor | None
    mask: Tensor | None
    start: float
    seconds: float


def to_clip(
    value: dict | bytes,
    seconds: float | None = None,
    fps: float | None = None,
    frames: int = 0,
    at: float = 0.0,
    sampling_rate: int | None = None,
    min_loudness: float | None = None,
    limits: Limits = LIMITS,
    until: float | None = None,
) -> Clip:
    """Decodes frames and sound of the same seconds of a film, or a part of a sound file.

    value: `{"bytes", "path"}` (the undecoded form in the `datasets` library) or bytes. seconds: length of the clip;
    None: `frames / fps`, or without fps the length of the film. fps: frames per second; None: the frames are spread
    over the clip. frames: number of frames; 0: no frames. at: start of the clip, from 0 (first possible) to 1 (last
    possible). sampling_rate: of the sound, in Hz; None: no sound. min_loudness: in dB, see `check_loudness`; None: any.
    until: end of the last possible clip, in seconds from the start of the file; None: the end of the file.

    Frame i is the one shown at the middle of the i-th of `frames` equal parts. The parts last `frames / fps` together,
    around the middle of the clip. Frames are upright (display matrix). Where a file is shorter than the clip, its last
    frame repeats, and the sound is padded with zeros, which `mask` shows. Sound has one channel, see `one_channel`.

    Raises `BadSample` for a file that is damaged, cut (see `cut_files`), above the limits, or without the frames or the
    sound that are asked for; for sound that is not finite or below min_loudness. Raises `ImportError` without `av` for
    films, or `soundfile` and `soxr` for sounds; `ValueError` for arguments that do not fit together.
    """
    check_arguments(seconds, fps, frames, at, sampling_rate)
    if seconds is None and fps is not None:
        seconds = frames / fps
    content = content_of(value, "video" if frames else "sound", limits)
    with guarded("video" if frames else "sound"):
        check_complete(content)
        file = opened(content, bool(frames), sampling_rate is not None, limits)
        try:
            seconds = file.seconds if seconds is None else seconds
            last = file.seconds if until is None else min(file.seconds, until)
            start = at * max(last - seconds, 0.0)
            first, images, sound, mask = file.begin + start, None, None, None
            if frames:
                images = frames_of(file, frame_times(first, seconds, fps, frames), limits)
            if sampling_rate is not None:
                sound, mask = sound_at(file, first, seconds, sampling_rate)
                if min_loudness is not None:
                    check_loudness(sound, mask, min_loudness)
                sound, mask = torch.from_numpy(sound), torch.from_numpy(mask)
            return Clip(images, sound, mask, start, seconds)
        finally:
            file.close()


def length_of(value: dict | bytes, frames: int = 0, sampling_rate: int | None = None, limits: Limits = LIMITS) -> float:
    """Returns the length of a film or sound in seconds, which `to_clip` would decode with these arguments.

    Raises `BadSample`, `ImportError` and `ValueError` like `to_clip`."""
    content = content_of(value, "video" if frames else "sound", limits)
    with guarded("video" if frames else "sound"):
        file = opened(content, bool(frames), sampling_rate is not None, limits)
        try:
            return file.seconds
        finally:
            file.close()


def check_arguments(
    seconds: float | None, fps: float | None, frames: int, at: float, sampling_rate: int | None
) -> None:
    """Raises `ValueError` for arguments of `to_clip` that do not fit together."""
    if not frames and sampling_rate is None:
        raise ValueError("Neither frames nor sound are asked for. Give frames, sampling_rate or both.")
    if not 0 <= at <= 1:
        raise ValueError(f"at must be from 0 to 1, but is {at}.")
    for name, number in (("seconds", seconds), ("fps", fps), ("sampling_rate", sampling_rate)):
        if number is not None and not 0 < number < float("inf"):
            raise ValueError(f"{name} must be above 0, but is {number}.")
    if seconds is None and sampling_rate is not None and not (fps and frames):
        raise ValueError("Sound needs the length of the clip. Give seconds, or frames and fps.")
    if seconds is not None and fps is not None and frames / fps > seconds * (1 + 1e-6):
        raise ValueError(
            f"{frames} frames at {fps:g} a second take {in_seconds(frames / fps)}, more than the clip, {seconds:g}. "
            "Give fewer frames, a higher fps or more seconds."
        )


def opened(content: bytes, frames: bool, sound: bool, limits: Limits) -> Film | SoundFile:
    """Opens a film, or a sound where no frames are asked for. The caller closes it.

    Raises `BadSample` for a file without what is asked for, or above the limits."""
    kind = film_format(content)
    if not frames and kind in (None, "ogg"):
        try:
            return SoundFile(content, limits)
        except RuntimeError:  # not a format that soundfile knows
            if kind is None:
                raise
    film = Film(content, limits)
    try:
        if frames and "video" not in film.streams:
            raise BadSample("file without video")
        if sound and "audio" not in film.streams:
            raise BadSample("video without sound")
        if frames:
            limits.check_frames(film.frames)
        if sound:
            limits.check_seconds(film.seconds)
    except BadSample:
        film.close()
        raise
    return film


def frame_times(first: float, seconds: float, fps: float | None, frames: int) -> list[float]:
    """Returns the times of a clip's frames, in seconds of the clock of `first`: the middles of equal parts.

    A middle is not the border of two frames, so that rounded times change no frame."""
    apart = seconds / frames if fps is None else 1 / fps
    middle = first + seconds / 2
    return [middle + (i + 0.5 - frames / 2) * apart for i in range(frames)]


def frames_of(film: Film, times: Sequence[float], limits: Limits) -> Tensor:
    """Returns the frames shown at some times, RGB uint8 `(F, 3, H, W)`.

    Raises `BadSample` for frames of several sizes, or too many pixels together."""
    shown = distinct_frames(film, times, limits, len(times))
    return together([pixels for pixels, count in shown for _ in range(count)])


def together(frames: Sequence[Tensor]) -> Tensor:
    """Stacks frames `(3, H, W)`. Raises `BadSample` for frames of several sizes."""
    if len({frame.shape for frame in frames}) > 1:
        raise BadSample("damaged video: its frames have several sizes")
    return torch.stack(list(frames))


def distinct_frames(film: Film, times: Sequence[float], limits: Limits, most: int) -> Iterator[tuple[Tensor, int]]:
    """Yields each frame that is shown at some of ascending times, RGB uint8 `(3, H, W)`, and at how many.

    times: in seconds of the film's clock. most: frames in memory at the same time. Raises `BadSample` if these have too
    many pixels."""
    last, pixels, count = None, None, 0
    for frame in film.frames_at(times):
        if frame is not last:
            if count:
                yield pixels, count
            limits.check_clip(most, frame.width, frame.height)
            image = frame.to_ndarray(format="rgb24", threads=1)  # the workers of the loader are the threads
            pixels, count = torch.from_numpy(np.ascontiguousarray(upright(image, frame))).permute(2, 0, 1), 0
        last, count = frame, count + 1
    yield pixels, count


def frames_at(
    value: dict | bytes, times: Sequence[float], limits: Limits = LIMITS, most: int = 1
) -> Iterator[tuple[Tensor, int]]:
    """Yields each frame of a film that is shown at some of ascending times, and at how many, see `distinct_frames`.

    Decodes a film once, in the order of its times. times: in seconds from the first frame; before it, it is shown, and
    after the end the last one. Raises `BadSample` and `ImportError` like `to_clip`."""
    content = content_of(value, "video", limits)
    with guarded("video"):
        check_complete(content)
        film = opened(content, True, False, limits)
        try:
            yield from distinct_frames(film, [film.begin + time for time in times], limits, most)
        finally:
            film.close()
