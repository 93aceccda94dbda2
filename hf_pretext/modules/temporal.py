"""Recurrent layers over the frames of a video, whose features come from an encoder of images.

features of frames (B, F, D) -> GRU in both directions -> + features -> mean over the frames (B, D)

A sequential module over frames as in CLIP4Clip, Luo et al. 2021, https://huggingface.co/papers/2104.08860. It has an
LSTM or a Transformer; a GRU (Cho et al. 2014, https://huggingface.co/papers/1406.1078) needs no places in time.
"""

from torch import Tensor, nn


class FrameGru(nn.Module):
    """GRU layers in both directions over the features of frames, added to them; then their mean."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        if width % 2:
            raise ValueError(f"temporal_layers need an encoder with an even number of channels, not {width}.")
        self.gru = nn.GRU(width, width // 2, layers, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor) -> Tensor:
        """Returns features of videos `(B, D)` from those of their frames, `(B, F, D)`, in the order of time."""
        return (frames + self.gru(frames)[0]).mean(1)
