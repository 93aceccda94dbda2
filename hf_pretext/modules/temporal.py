"""Recurrent layers over the frames of a video, whose features come from an encoder of images.

features of frames (B, F, D) -> GRU in both directions -> + features -> mean over the frames (B, D)

A sequential module over frames as in CLIP4Clip, Luo et al. 2021, https://huggingface.co/papers/2104.08860. It has an
LSTM or a Transformer; a GRU (Cho et al. 2014, https://huggingface.co/papers/1406.1078) needs no places in time.
"""

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..encoders import takes_images
from ..features import width


class FrameGru(nn.Module):
    """GRU layers in both directions over the features of frames, added to them; then their mean."""

    def __init__(self, channels: int, layers: int):
        super().__init__()
        if channels % 2:
            raise ValueError(f"temporal_layers need an encoder with an even number of channels, not {channels}.")
        self.gru = nn.GRU(channels, channels // 2, layers, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor) -> Tensor:
        """Returns features of videos `(B, D)` from those of their frames, `(B, F, D)`, in the order of time."""
        return (frames + self.gru(frames)[0]).mean(1)


def frame_gru(encoder: PreTrainedModel, layers: int) -> FrameGru:
    """Returns the layers over the frames of an encoder of images. Raises `ValueError` for an encoder of videos."""
    if not takes_images(encoder):
        raise ValueError(
            f"temporal_layers={layers} is for an encoder of images, but {type(encoder).__name__} encodes all frames "
            "together. Leave temporal_layers out."
        )
    return FrameGru(width(encoder), layers)
