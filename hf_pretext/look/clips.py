"""What is known of one film or sound, and of all of them.

{"bytes", "path"} -> ClipFacts: length, frame rate, sampling rate, a hash, a frame or spectrogram -> summary
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from ..data.clips import opened, to_clip
from ..data.decoding import content_of, guarded
from ..data.films import Film
from ..data.limits import LIMITS
from .images import TILE, tile_of
from .numbers import digest, spread

SECONDS, FRAMES, RATE = 2.0, 16, 16_000  # of a clip: the defaults of training
WINDOW = 512  # samples of a column of a spectrogram
DEEPEST = 80.0  # dB below the loudest, which is black


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """A film or sound. seconds: its length. rate: sampling rate of its sound in Hz; None for a film without sound.
    height, width, fps, frames: of a film. digest: of the bytes. tile: a small JPEG."""

    seconds: float
    rate: int | None
    channels: int | None
    digest: bytes
    tile: bytes
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    frames: int | None = None


def look_at_film(value, clock) -> ClipFacts:
    """Decodes the frames of a clip in the middle of a film. clock: gets the seconds. Raises `BadSample` for a film that
    can't be used."""
    with clock():
        content = content_of(value, "video")
        clip = to_clip(content, SECONDS, frames=FRAMES, at=0.5)
    with guarded("video"):
        film = opened(content, True, False, LIMITS)
        try:
            image, sound = film.streams["video"], film.streams.get("audio")
            fps, frames, seconds = float(image.average_rate or 0), film.frames, film.seconds
            rate, channels = (sound.rate, sound.channels) if sound else (None, None)
        finally:
            film.close()
    pixels = clip.frames[FRAMES // 2]
    tile = tile_of(PIL.Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())))
    return ClipFacts(seconds, rate, channels, digest(content), tile, *pixels.shape[1:], fps, frames)


def look_at_sound(value, clock) -> ClipFacts:
    """Decodes a clip in the middle of a sound. clock: gets the seconds. Raises `BadSample` for a sound that can't be
    used."""
    with clock():
        content = content_of(value, "sound")
        clip = to_clip(content, SECONDS, sampling_rate=RATE, at=0.5)
    with guarded("sound"):
        file = opened(content, False, True, LIMITS)
        try:
            stream = file.streams["audio"] if isinstance(file, Film) else None
            rate = stream.rate if stream else file.rate
            channels = stream.channels if stream else file.file.channels
            seconds = file.seconds
        finally:
            file.close()
    return ClipFacts(seconds, rate, channels, digest(content), tile_of(spectrogram(clip.sound.numpy())))


def spectrogram(sound: np.ndarray) -> PIL.Image.Image:
    """Returns an image of the frequencies of a sound `(T,)` over time: high ones at the top, loud ones white."""
    hop = max((len(sound) - WINDOW) // TILE, 1)
    pieces = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::hop][:TILE] * np.hanning(WINDOW)
    power = np.square(np.abs(np.fft.rfft(pieces)))[:, 1:].reshape(len(pieces), TILE, -1).mean(2)
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    bright = np.clip((decibels - decibels.max()) / DEEPEST + 1, 0, 1)
    return PIL.Image.fromarray((255 * bright.T[::-1]).astype(np.uint8)).convert("RGB")


def summary(facts: Sequence[ClipFacts]) -> dict:
    """Returns lengths, sampling rates and channels of sounds, and sizes and frame rates of films."""
    films, sounds = [each for each in facts if each.fps is not None], [each for each in facts if each.rate]
    about = {
        "count": len(facts),
        "seconds": spread([each.seconds for each in facts]),
        "total_hours": sum(each.seconds for each in facts) / 3600,
        "with_sound": len(sounds),
        "sampling_rates": counted(each.rate for each in sounds),
        "channels": counted(each.channels for each in sounds),
        "shorter_than_a_clip": sum(each.seconds < SECONDS for each in facts),
    }
    if films:
        about |= {
            "frequent_sizes": counted(f"{each.width}x{each.height}" for each in films),
            "fps": spread([each.fps for each in films]),
            "frames": spread([each.frames for each in films]),
        }
    return about


def counted(values) -> dict[str, int]:
    """Returns how often each value occurs, the most frequent first, with strings as keys."""
    return {str(value): count for value, count in Counter(values).most_common()}
