"""Batched front ends of sound encoders in torch: what a feature extractor of transformers makes of each clip.

samples (B, T) in [-1, 1], lengths (B,) -> normalised waveform (B, T), or log-mel (B, frames, bins) or (B, bins, frames)

`front_end_of` compares each with the extractor on noise, and returns the one that gives the same, or None.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

TOLERANCE = 2e-3  # largest difference to an extractor; they compute in other precisions
WINDOW, STEP = 0.025, 0.010  # of Kaldi's frames, in seconds
LOWEST = 20  # Hz, of the first mel filter
PREEMPHASIS = 0.97  # of Kaldi: x[t] - 0.97 x[t - 1]
AT_ONCE = 8  # clips whose frames fit in the cache of a CPU
SHORTEST = 0.5  # of the length of a clip: the shorter clip on which front ends are checked


class FrontEnd:
    """Base of the front ends.

    frames_first: whether log-mel is `(B, frames, bins)`, not `(B, bins, frames)`; None for waveforms. shortest: least
    number of samples of a clip. longest: most samples, of which none are cut off; None for any number."""

    frames_first: bool | None = None
    shortest: int = 1
    longest: int | None = None

    def move(self, device: torch.device) -> None:
        """Moves the constants to a device."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor) and value.device != device:
                single = device.type == "mps" and value.dtype == torch.float64  # which mps does not have
                setattr(self, name, (value.float() if single else value).to(device))

    def __call__(self, sound: Tensor, lengths: Tensor) -> Tensor:
        """Returns the encoder's input. sound: float `(B, T)`, 0 from `lengths` (`(B,)`, in samples) on."""
        raise NotImplementedError


class Waveform(FrontEnd):
    """`Wav2Vec2FeatureExtractor`: mean 0 and variance 1 over the samples of a clip, or the samples unchanged.

    In batches of one length (`padded`), an extractor without attention_mask includes the padding in the mean."""

    def __init__(self, extractor, padded: bool):
        self.normalise, self.fill = extractor.do_normalize, extractor.padding_value
        self.includes_padding = padded and not extractor.return_attention_mask

    def __call__(self, sound: Tensor, lengths: Tensor) -> Tensor:
        present = mask_of(lengths, sound.shape[1])
        used = torch.ones_like(present) if self.includes_padding else present
        if self.normalise:
            count = used.sum(1, keepdim=True)
            sound = sound - (sound * used).sum(1, keepdim=True) / count
            variance = (sound.square() * used).sum(1, keepdim=True) / count
            sound = sound / (variance + 1e-7).sqrt()
        return torch.where(used if self.normalise else present, sound, self.fill)


class KaldiMel(FrontEnd):
    """Kaldi's log-mel of frames: each has its mean subtracted, its high frequencies raised, and a Hann window; mel
    filters from 20 Hz on. The Fourier transform has the next power of two of points."""

    frames_first = True

    def __init__(self, rate: int, bins: int, window_size: int | None = None, hop: int | None = None):
        """rate: in Hz. window_size, hop: of frames, in samples. Default: 25 ms every 10 ms."""
        self.window_size, self.hop = window_size or round(WINDOW * rate), hop or round(STEP * rate)
        self.fft = 2 ** (self.window_size - 1).bit_length()
        filters = mel_filter_bank(
            num_frequency_bins=self.fft // 2 + 1, num_mel_filters=bins, min_frequency=LOWEST, max_frequency=rate // 2,
            sampling_rate=rate, mel_scale="kaldi", triangularize_in_mel_space=True,
        )  # fmt: skip
        self.filters = torch.from_numpy(filters).float()
        self.window = torch.hann_window(self.window_size, periodic=False, dtype=torch.float64)

    def log_mel(self, sound: Tensor) -> Tensor:
        """Returns the logarithm of the power in mel bins: `(B, T)` to float32 `(B, frames, bins)`."""
        together = AT_ONCE if sound.device.type == "cpu" else len(sound)
        power = torch.cat([self.power(part) for part in sound.split(together)])
        return (power @ self.filters).clamp_min(torch.finfo(torch.float32).eps).log()

    def power(self, sound: Tensor) -> Tensor:
        """Returns the power spectrum of each frame, float32 `(B, frames, fft // 2 + 1)`, computed in double precision:
        float32 has errors of 1 % where a frame has little power next to a loud tone."""
        sound = sound.to(torch.float32 if sound.device.type == "mps" else torch.float64)  # mps has no float64
        raised = torch.cat([sound[:, :1], sound[:, 1:] - PREEMPHASIS * sound[:, :-1]], 1)
        means = sound.unfold(1, self.window_size, self.hop).mean(-1, keepdim=True)
        frames = raised.unfold(1, self.window_size, self.hop) - (1 - PREEMPHASIS) * means  # of x - mean, since linear
        firsts = sound[:, :: self.hop][:, : frames.shape[1]]  # the first sample of a frame is compared with itself
        frames[..., 0] = (1 - PREEMPHASIS) * (firsts - means[..., 0])
        spectrum = torch.fft.rfft(frames.mul_(self.window.to(frames.dtype)), self.fft)
        return (spectrum.real.square() + spectrum.imag.square()).float()


class KaldiLogMel(KaldiMel):
    """`ASTFeatureExtractor`: Kaldi's log-mel, padded with 0 to a fixed number of frames.

    Its frames have 400 samples every 160, at any sampling rate."""

    def __init__(self, extractor, padded: bool):
        super().__init__(extractor.sampling_rate, extractor.num_mel_bins, 400, 160)
        self.shortest, self.frames = self.window_size, extractor.max_length
        self.longest = self.window_size + self.frames * self.hop - 1
        self.mean, self.scale = (extractor.mean, 2 * extractor.std) if extractor.do_normalize else (0.0, 1.0)

    def __call__(self, sound: Tensor, lengths: Tensor) -> Tensor:
        log_mel = self.log_mel(sound[:, : self.window_size + (self.frames - 1) * self.hop])
        complete = 1 + (lengths - self.window_size).div(self.hop, rounding_mode="floor")
        log_mel = log_mel * mask_of(complete, log_mel.shape[1])[..., None]
        padded = torch.nn.functional.pad(log_mel, (0, 0, 0, self.frames - log_mel.shape[1]))
        return (padded - self.mean) / self.scale


class WhisperLogMel(FrontEnd):
    """`WhisperFeatureExtractor`: log-mel of sounds padded to a fixed length, at most 80 dB below the loudest."""

    frames_first = False

    def __init__(self, extractor, padded: bool):
        self.fft, self.hop, self.samples = extractor.n_fft, extractor.hop_length, extractor.n_samples
        self.longest = self.samples
        self.filters = torch.from_numpy(np.asarray(extractor.mel_filters)).float()
        self.window = torch.hann_window(self.fft)

    def __call__(self, sound: Tensor, lengths: Tensor) -> Tensor:
        sound = torch.nn.functional.pad(sound, (0, self.samples - sound.shape[1]))  # cuts where it is longer
        spectrum = torch.stft(sound, self.fft, self.hop, window=self.window, return_complex=True)[..., :-1]
        power = torch.view_as_real(spectrum).square().sum(-1)
        log_mel = (self.filters.T @ power).clamp_min(1e-10).log10()
        return (torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - 8) + 4) / 4


FRONT_ENDS = (Waveform, KaldiLogMel, WhisperLogMel)


def log_mel(sound: Tensor, rate: int, bins: int) -> Tensor:
    """Returns Kaldi's log-mel of frames of 25 ms every 10 ms: `(B, T)` to float32 `(B, frames, bins)`.

    rate: in Hz. Sounds of less than a frame are padded with zeros."""
    front_end = kaldi_mel(rate, bins)
    front_end.move(sound.device)
    return front_end.log_mel(torch.nn.functional.pad(sound, (0, max(front_end.window_size - sound.shape[1], 0))))


@cache
def kaldi_mel(rate: int, bins: int) -> KaldiMel:
    """Returns the filters and the window of `log_mel`, which are made once."""
    return KaldiMel(rate, bins)


def mask_of(lengths: Tensor, size: int) -> Tensor:
    """Returns a mask of the first `lengths` (`(B,)`) of `size` places, bool `(B, size)`."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def front_end_of(extractor, length: int, padded: bool) -> FrontEnd | None:
    """Returns the front end that gives the same as a feature extractor, on noise of the full length and of half of it;
    None if there is none: then the extractor itself has to be used.

    length: samples of a clip. padded: whether clips are padded to this length, as the extractor pads them."""
    for kind in FRONT_ENDS:
        try:
            front_end = kind(extractor, padded)
            if difference(front_end, extractor, length, padded) <= TOLERANCE:
                return front_end
        except (AttributeError, TypeError, ValueError, RuntimeError):  # an extractor of another kind
            continue
    return None


def difference(front_end: FrontEnd, extractor, length: int, padded: bool) -> float:
    """Returns the largest difference between a front end and an extractor, on loud and quiet noise, of `length` samples
    and of fewer; infinite for outputs of other shapes."""
    random, largest = np.random.default_rng(0), 0.0
    length = min(length, front_end.longest or length)
    for loudness, count in ((0.1, length), (1e-3, max(int(SHORTEST * length), front_end.shortest))):
        sound = (loudness * random.standard_normal(count)).astype(np.float32)
        expected = by_extractor(extractor, sound, length if padded else None)[extractor.model_input_names[0]][0]
        size = length if padded or front_end.frames_first is not None else count
        samples = torch.nn.functional.pad(torch.from_numpy(sound), (0, size - count))[None]
        ours = front_end(samples, torch.tensor([count]))[0]
        if ours.shape != expected.shape:
            return float("inf")
        largest = max(largest, float((ours - expected).abs().max()))
    return largest


def by_extractor(extractor, sound: np.ndarray, padded_to: int | None) -> Mapping[str, Tensor]:
    """Returns what an extractor makes of one sound, float32 `(T,)`, as a batch of one. padded_to: number of samples to
    pad it to; None: as the extractor does."""
    options: dict[str, Any] = {}
    if padded_to is not None:
        options = {"padding": "max_length", "max_length": padded_to, "truncation": True}
    return extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
