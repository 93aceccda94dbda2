"""Changes of sounds whose level is known: gain, noise, pitch and shift in time.

waves (B, T), before log-mel, level -> waves (B, T)

Zeros at the end of a wave are padding: they stay zeros, and the rest keeps its length. Noise depends on the wave alone,
so that it is the same in each batch.
"""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modules.sound_changes import white_noise

SEMITONES = 12  # of an octave, which doubles the frequency


def amplified(waves: Tensor, decibels: float) -> Tensor:
    """Changes the loudness of waves by a gain in dB."""
    return waves * 10 ** (decibels / 20)


def noisy(waves: Tensor, decibels: float) -> Tensor:
    """Adds white noise of a level in dB, relative to the power of each wave. -inf: no noise."""
    sizes = lengths(waves)
    present = torch.arange(waves.shape[1], device=waves.device) < sizes[:, None]
    power = waves.square().sum(1) / present.sum(1).clamp(min=1)
    each = zip(waves.float().cpu(), sizes.tolist(), strict=True)
    seeds = [zlib.crc32(wave[:size].contiguous().numpy().tobytes()) / 2**32 for wave, size in each]
    noise = white_noise(torch.tensor(seeds, device=waves.device), waves.shape[1]).to(waves)
    return waves + (power * 10 ** (decibels / 10)).sqrt()[:, None] * noise * present


def pitched(waves: Tensor, semitones: float) -> Tensor:
    """Plays waves faster, with a higher pitch, or slower. The end is cut off, or mirrored where the wave is too short.

    Tempo and pitch change together, as on a tape: this adds no artefacts that a reader could recognise instead."""
    speed = 2 ** (semitones / SEMITONES)
    return each_wave(waves, lambda wave: filled(resampled(wave, round(len(wave) / speed)), len(wave)))


def delayed(waves: Tensor, share: float) -> Tensor:
    """Moves waves back in time by `share` of their length. The end is cut off, and the beginning is mirrored."""

    def change(wave: Tensor) -> Tensor:
        step = round(share * len(wave))
        return filled(wave, len(wave) + step, at_end=False)[: len(wave)]

    return each_wave(waves, change)


def each_wave(waves: Tensor, change) -> Tensor:
    """Applies a change to each wave without its padding. change: wave `(n,)` -> wave `(n,)`."""
    changed = waves.clone()
    for row, length in enumerate(lengths(waves).tolist()):
        if length:
            changed[row, :length] = change(waves[row, :length])
    return changed


def lengths(waves: Tensor) -> Tensor:
    """Returns the number of samples of each wave without the zeros at its end, `(B,)`."""
    numbers = torch.arange(1, waves.shape[1] + 1, device=waves.device)
    return ((waves != 0) * numbers).amax(1)


def resampled(wave: Tensor, size: int) -> Tensor:
    """Returns a wave of `size` samples with the same content below the lower of both Nyquist frequencies: `(n,)` to
    `(size,)`."""
    if size == len(wave):
        return wave
    return torch.fft.irfft(torch.fft.rfft(wave), n=size) * (size / len(wave))


def filled(wave: Tensor, size: int, at_end: bool = True) -> Tensor:
    """Cuts off the end of a wave, or mirrors its end or its beginning, for `size` samples: `(n,)` to `(size,)`."""
    while len(wave) < size:  # a mirror is shorter than the wave
        step = min(size - len(wave), max(len(wave) - 1, 1))
        padding = (0, step) if at_end else (step, 0)
        wave = F.pad(wave[None], padding, mode="reflect" if len(wave) > step else "replicate")[0]
    return wave[:size]
