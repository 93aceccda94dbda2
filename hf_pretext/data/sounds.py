"""Reads parts of sound files with soundfile; one channel, resampling with soxr, and loudness, also for films.

bytes -> samples (C, N) float32 of a part, mask, rate -> one channel -> sound (T,) at another rate, mask (T,)
"""

import io
import math

import numpy as np

from .cut_files import ENOUGH
from .decoding import needed
from .limits import BadSample, Limits

HIGHEST_RATE = 768_000  # sampling rate in Hz; resampling takes memory in proportion to it
MOST_VALUES = 8 * HIGHEST_RATE  # a second, in all channels
# Seconds on each side of a part that are resampled with it, as the filter is longer than a sample. A whole number of
# samples at all usual rates: so the samples of a part are those of the same seconds in the resampled file
MARGIN = 0.04
# Seconds that are decoded before a part where frames need earlier ones. Those of an MP3 of 8 kbit/s use up to 0.51 s
BEFORE = 0.6
BLOCK = 1 << 16  # samples; read at once where a file can't be sought


class SoundFile:
    """An open sound file. seconds: its length. begin: 0.0."""

    begin = 0.0

    def __init__(self, content: bytes, limits: Limits):
        """Raises `BadSample` for a file without sound, one that was cut, or one above the limits, `ImportError` without
        `soundfile`."""
        self.content, self.file = content, None
        self.open()
        self.rate, self.frames = check_rate(self.file.samplerate, self.file.channels), self.file.frames
        if not self.frames:
            raise BadSample("empty sound")
        limits.check_seconds(self.frames / self.rate)
        if self.file.seekable() and not self.has(self.frames - 1):
            self.frames = int(ENOUGH * self.frames)
            self.open()  # FLAC can't be sought after an error
            if not self.frames or not self.has(self.frames - 1):
                raise BadSample(f"cut sound: it lacks more than {1 - ENOUGH:.0%} of its samples")

    def open(self) -> None:
        """Opens the file at its start."""
        self.close()
        self.file = needed("soundfile", "audio").SoundFile(io.BytesIO(self.content))

    def has(self, sample: int) -> bool:
        """Returns True if a sample can be decoded."""
        try:
            self.file.seek(sample)
            return len(self.file.read(1)) == 1
        except RuntimeError:  # the error of FLAC
            return False

    def close(self) -> None:
        """Closes the file."""
        if self.file is not None:
            self.file.close()

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate

    def sound_between(self, first: float, last: float) -> tuple[np.ndarray, np.ndarray, int]:
        """Decodes the sound between two times in seconds. See `Film.sound_between`."""
        start = round(first * self.rate)
        begin, end = max(start, 0), min(start + round((last - first) * self.rate), self.frames)
        count = round((last - first) * self.rate)
        samples, mask = np.zeros((self.file.channels, count), np.float32), np.zeros(count, bool)
        before = min(begin, round(BEFORE * self.rate)) if self.file.format == "MP3" else 0
        self.go_to(begin - before)
        values = self.file.read(before + max(end - begin, 0), dtype="float32", always_2d=True).T[:, before:]
        if values.shape[1] < end - begin:
            raise BadSample(f"damaged sound: {end - begin - values.shape[1]:,} samples are missing")
        samples[:, begin - start : end - start] = values
        mask[begin - start : end - start] = True
        return samples, mask, self.rate

    def go_to(self, sample: int) -> None:
        """Goes to a sample. Some codecs in WAV, as GSM, can't be sought and are read from the start."""
        if self.file.seekable():
            self.file.seek(sample)
            return
        while sample > 0:
            got = len(self.file.read(min(sample, BLOCK), dtype="float32"))
            if not got:
                raise BadSample(f"damaged sound: {sample:,} samples are missing")
            sample -= got


def check_rate(rate: int, channels: int) -> int:
    """Returns a sampling rate in Hz. Raises `BadSample` for a rate or number of channels that takes too much memory."""
    if not 0 < rate <= HIGHEST_RATE:
        raise BadSample(f"damaged sound: a sampling rate of {rate:,} Hz")
    if not 0 < channels * rate <= MOST_VALUES:
        raise BadSample(f"damaged sound: {channels:,} channels of {rate:,} Hz")
    return rate


def sound_at(file, first: float, seconds: float, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Decodes the sound of some seconds from a time on, as one channel at a rate in Hz.

    file: a `SoundFile` or `Film`. Returns float32 `(T,)` and a mask of the samples that the file has, bool `(T,)`, T
    being `seconds * rate`. Raises `BadSample` for sound that is damaged, not finite, or missing in these seconds."""
    samples, mask, source = file.sound_between(first - MARGIN, first + seconds + MARGIN)
    if not np.isfinite(samples).all():
        raise BadSample("damaged sound: not all samples are finite")
    count, sound = round(seconds * rate), one_channel(samples)
    if source != rate:
        sound = needed("soxr", "audio").resample(sound, source, rate)
    sound = sound[round(MARGIN * rate) :][:count]
    mask = mask[np.minimum(((np.arange(count) / rate + MARGIN) * source + 1e-6).astype(int), len(mask) - 1)]
    if not mask.any():
        raise BadSample("no sound in the seconds of the clip")
    return np.where(mask, np.pad(sound, (0, count - len(sound))), np.float32(0)), mask


def check_loudness(sound: np.ndarray, mask: np.ndarray, least: float) -> None:
    """Raises `BadSample` for sound below a loudness: its power in dB, where 0 is a square wave of full range."""
    power = float(np.square(sound[mask], dtype=np.float64).mean())
    if power < 10 ** (least / 10):
        loudness = f"{10 * math.log10(power):.0f} dB" if power else "silence"
        raise BadSample(f"sound of too little loudness: {loudness}, less than {least:g} dB (--min_loudness)")


def one_channel(samples: np.ndarray) -> np.ndarray:
    """Mixes channels `(C, N)` to one, `(N,)`: the mean; where the channels cancel each other, the loudest one.

    The mean of independent channels has 1/C of their mean power. With less than half of that they cancel each other: of
    stereo with opposite phases, the mean is silence. The loudest channel is a recording as it was made. There is one
    choice for a clip, so that nothing switches inside it."""
    mean = samples.mean(0)
    powers = np.square(samples, dtype=np.float64).mean(1)
    if np.square(mean, dtype=np.float64).mean() < powers.mean() / (2 * len(samples)):
        return samples[powers.argmax()]
    return mean
