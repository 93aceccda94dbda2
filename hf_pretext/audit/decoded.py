"""What cues read of decoded examples, before they become inputs of an encoder.

examples {column: (B, ...)} -> pixels in [0, 1] (B, ..., 3, H, W), or waves (B, T) -> changed -> examples
"""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from ..modalities import Batch, Modality
from ..modules.lab import gray_of

WHITE = 255.0


def values_of(modality: Modality, examples: Batch) -> Tensor:
    """Returns what cues read of decoded examples: pixels in [0, 1], grey if the encoder gets grey, or waves of the full
    length, `(B, T)`."""
    values = examples[modality.encoder_input].float()
    if modality.name == "audio":
        return F.pad(values, (0, modality.length - values.shape[1]))
    values = values / WHITE
    return gray_of(values).expand_as(values) if getattr(modality, "gray", False) else values


def with_values(modality: Modality, examples: Batch, values: Tensor) -> Batch:
    """Returns decoded examples with other pixels or waves, see `values_of`."""
    length = examples[modality.encoder_input].shape[1]
    given = values[:, :length] if modality.name == "audio" else values * WHITE
    return {**examples, modality.encoder_input: given}


def check_waves(modalities: Iterable[Modality]) -> None:
    """Raises `ValueError` for sounds that a feature extractor changes in the workers."""
    for modality in modalities:
        if modality.name == "audio" and modality.front_end is None:
            raise ValueError(
                f"{type(modality.processor).__name__} is run in the workers, so that the waves of sounds, which the "
                "audit reads, are not known. Give the feature extractor of AST, Whisper or Wav2Vec2."
            )
