"""Baseline of audio encoders: mean and deviation of log-mel over time as features.

waves (B, T) -> frames of 25 ms -> log-mel (B, frames, mels) -> mean and deviation over time (B, 2 * mels)
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..modules.log_mel import STEP, WINDOW, log_mel
from .baselines import Baseline
from .labelled_set import LabelledSet
from .transfer import Method, transfer

MELS = 64  # bands
CONSTANT = 1e-3  # deviation over train below which a feature stays small, e.g. of a band without power
AT_ONCE = 32  # waveforms; frames take ten times the memory of waveforms


def log_mel_transfer(labelled: LabelledSet, methods: Mapping[str, Method]) -> dict | None:
    """Measures each method on mean and deviation of log-mel. Each feature has mean 0 and deviation 1 over train: the
    cosines of kNN would else be those of the mean spectrum.

    Returns the metrics by method, as `transfer` does; None for a set without waveforms (see `Modality.waves_of`)."""
    modality = labelled.inputs.by_name["audio"]
    rate = modality.shape()["sampling_rate"]
    features = {}
    for split in labelled.labels.splits:
        parts = []
        for examples in labelled.examples(split, "audio"):
            waves = modality.waves_of(examples)
            if waves is None:
                return None
            lengths = modality.lengths_of(examples).split(AT_ONCE)
            parts += [statistics(*some, rate) for some in zip(waves.split(AT_ONCE), lengths, strict=True)]
        features[split] = torch.cat(parts)
    mean, deviation = features["train"].mean(0), features["train"].std(0, correction=0).clamp(min=CONSTANT)
    standardised = {split: (values - mean) / deviation for split, values in features.items()}
    return transfer({"log-mel": standardised}, labelled.labels, methods)


def statistics(waves: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """Returns mean and deviation over time of the log-mel of waveforms `(B, T)`: `(B, 2 * MELS)`.

    lengths (`(B,)`): samples before the padding. Frames with padding are left out, but for the first frame. rate: in
    Hz."""
    frames = log_mel(waves, rate, MELS)
    counts = ((lengths - round(WINDOW * rate)) // round(STEP * rate) + 1).clamp(min=1)
    kept = (torch.arange(frames.shape[1]) < counts[:, None])[..., None]
    mean = (frames * kept).sum(1) / counts[:, None]
    variance = ((frames - mean[:, None]).square() * kept).sum(1) / counts[:, None]
    return torch.cat([mean, variance.sqrt()], 1)


BASELINE = Baseline(
    kind="audio",
    name="log-mel",
    words="the mean and deviation of log-mel do",
    protocol=f"Log-mel: mean and standard deviation over time of the logarithm of the power in {MELS} mel bands, in "
    f"windows of {1000 * WINDOW:g} ms every {1000 * STEP:g} ms; each has mean 0 and deviation 1 over train.",
    transfer=log_mel_transfer,
)
