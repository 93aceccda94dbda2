"""Cues of sounds and films: what may reveal which sound belongs to a film without any understanding.

waves (N, T), or frames (N, F, 3, H, W) in [0, 1] -> numbers that a small reader gets (N, d)
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .cues import COLOR_HISTOGRAM, Cue

PARTS = 8  # of a sound, of equal length
QUIETEST = 1e-8  # power of silence, -80 dB of full scale
SILENT = 1e-3  # of the peak, -60 dB
STILL = 1e-4  # least motion, as a share of full scale


def parts_of(waves: Tensor) -> Tensor:
    """Returns parts of waves `(N, T)`, `(N, PARTS, t)`; the samples that remain are left out."""
    size = max(1, waves.shape[1] // PARTS)
    return F.pad(waves, (0, max(0, PARTS - waves.shape[1])))[:, : PARTS * size].unflatten(1, (PARTS, size))


def loudness(waves: Tensor) -> Tensor:
    """Returns the loudness of the parts of waves `(N, T)`, in dB of full scale, at least -80: `(N, PARTS)`."""
    return 10 * parts_of(waves).square().mean(2).clamp(min=QUIETEST).log10()


def with_loudness_of(waves: Tensor, others: Tensor) -> Tensor:
    """Returns waves `(N, T)` with the loudness of others, `(N, T')`, which changes linearly, in dB, between parts."""
    decibels = (loudness(others) - loudness(waves))[:, None]
    gains = F.interpolate(decibels, size=waves.shape[1], mode="linear", align_corners=False)[:, 0]
    return waves * 10 ** (gains / 20)


def centroid(waves: Tensor) -> Tensor:
    """Returns the spectral centroid of the parts of waves `(N, T)`, as a share of half the sampling rate, `(N, PARTS)`;
    0 for silence."""
    power = torch.fft.rfft(parts_of(waves)).abs().square()
    frequencies = torch.linspace(0, 1, power.shape[2], device=waves.device)
    return (power * frequencies).sum(2) / power.sum(2).clamp(min=QUIETEST)


def silence(waves: Tensor) -> Tensor:
    """Returns how much of waves `(N, T)` is silent at the start and at the end, as shares, `(N, 2)`."""
    heard = waves.abs() > SILENT * waves.abs().amax(1, keepdim=True)
    places = torch.stack([heard.float().argmax(1), heard.flip(1).float().argmax(1)], dim=1)
    return torch.where(heard.any(1, keepdim=True), places / waves.shape[1], 1.0)


def brightness(frames: Tensor) -> Tensor:
    """Returns the mean of each frame of films `(N, F, 3, H, W)`, `(N, F)`."""
    return frames.mean((2, 3, 4))


def with_brightness_of(frames: Tensor, others: Tensor) -> Tensor:
    """Returns films `(N, F, 3, H, W)` whose frames have the brightness of those of others."""
    return frames + (brightness(others) - brightness(frames))[..., None, None, None]


def motion(frames: Tensor) -> Tensor:
    """Returns how much each frame of films `(N, F, 3, H, W)` differs from the one before, the mean over its pixels,
    `(N, F - 1)`."""
    return frames.diff(dim=1).abs().mean((2, 3, 4))


def with_motion_of(frames: Tensor, others: Tensor) -> Tensor:
    """Returns films `(N, F, 3, H, W)` that differ from their mean frame as much more or less as others move more or
    less; the same films where they do not move."""
    moves, wanted = (motion(films).mean(1) for films in (frames, others))
    factor = torch.where(moves > STILL, wanted / moves.clamp(min=STILL), 1.0)[:, None, None, None, None]
    still = frames.mean(1, keepdim=True)
    return still + factor * (frames - still)


LOUDNESS = Cue("loudness", loudness, with_loudness_of, kind="audio")
CENTROID = Cue("spectral centroid", centroid, kind="audio")
SILENCE = Cue("silence at the ends", silence, kind="audio")
BRIGHTNESS = Cue("brightness", brightness, with_brightness_of, kind="video")
MOTION = Cue("motion energy", motion, with_motion_of, kind="video")
FRAME_COLORS = replace(COLOR_HISTOGRAM, name="colour histogram of frames", kind="video")
