"""Random changes of sounds, for batches: loudness, noise, and masks over time and frequency (SpecAugment).

sound (B, T), draws (B, 11) -> louder or quieter, noisier (B, T); log-mel (B, frames, bins) -> masked (B, frames, bins)

SpecAugment: Park et al., 2019, https://huggingface.co/papers/1904.08779
"""

import torch
from torch import Tensor

NOISE_RANGE = 20.0  # dB; the noise of a clip is between the highest level and this much below it
MASKS = 2  # along each axis, as in the paper
MASK_DRAWS = 2 * MASKS
LOUDNESS, LEVEL, SEED, TIME, FREQUENCY = 0, 1, 2, 3, 3 + MASK_DRAWS  # places of the draws
SOUND_DRAWS = FREQUENCY + MASK_DRAWS
BITS = 0xFFFFFFFF


def change_loudness(sound: Tensor, draws: Tensor, decibels: float) -> Tensor:
    """Changes the loudness of each clip by up to `decibels`, up or down. sound: `(B, T)`. draws (`(B,)`): uniform in
    [0, 1)."""
    return sound * 10 ** ((2 * draws - 1) * decibels / 20)[:, None]


def add_noise(sound: Tensor, draws: Tensor, highest: float, present: Tensor) -> Tensor:
    """Adds white noise to each clip where it has sound. Its power is that of the clip plus a random level in dB, from
    `highest` - 20 to `highest`.

    sound: `(B, T)`. draws (`(B, 2)`): of the level and of the noise, uniform in [0, 1). present: bool `(B, T)`."""
    power = (sound.square() * present).sum(1) / present.sum(1).clamp(min=1)
    level = highest - NOISE_RANGE * draws[:, 0]
    scale = (power * 10 ** (level / 10)).sqrt()
    return sound + scale[:, None] * white_noise(draws[:, 1], sound.shape[1]) * present


def white_noise(draws: Tensor, size: int) -> Tensor:
    """Returns uniform white noise of mean 0 and variance 1, `(B, size)`: a hash of the draw of a clip and the number of
    the sample, so that it is the same on each device. draws (`(B,)`): uniform in [0, 1)."""
    seeds = (draws.double() * 2**24).long() if draws.device.type != "mps" else (draws * 2**24).long()
    value = (torch.arange(size, device=draws.device) + seeds[:, None] * 0x9E3779B1) & BITS
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # as in MurmurHash3
        value = ((value ^ (value >> shift)) * factor) & BITS
    value = value ^ (value >> 16)
    return (value.float() / 2**31 - 1) * 3**0.5


def masked(values: Tensor, draws: Tensor, share: float, axis: int, fill: Tensor | float) -> Tensor:
    """Hides two random ranges of an axis of each clip. Together they hide at most `share` of it.

    values: `(B, ...)`. draws (`(B, 4)`): widths and places, uniform in [0, 1). fill: new values, for example the mean
    of each clip. Returns tensors of the same shape."""
    size = values.shape[axis]
    width = draws[:, :MASKS] * share * size / MASKS
    first = draws[:, MASKS:] * (size - width)
    place = torch.arange(size, device=values.device)
    hidden = ((place >= first[..., None]) & (place < (first + width)[..., None])).any(1)  # (B, size)
    shape = [1] * values.ndim
    shape[0], shape[axis] = len(values), size
    return torch.where(hidden.view(shape), fill, values)
