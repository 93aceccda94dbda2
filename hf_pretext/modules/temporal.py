"""Transformer over the frames of a video, whose features come from an encoder of images.

features of frames (B, F, D) -> + place in time -> Transformer layers -> + features -> mean over the frames (B, D)

The sequential transformer of CLIP4Clip, Luo et al. 2021, https://huggingface.co/papers/2104.08860
"""

import torch
from torch import Tensor, nn

HEAD_WIDTH = 64  # channels of an attention head
LONGEST = 10_000.0  # frames; the longest wave of the places


class FrameTransformer(nn.Module):
    """Layers of a pre-norm Transformer over the features of frames, added to them; then their mean."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        heads = max(width // HEAD_WIDTH, 1)
        if width % (2 * heads):
            raise ValueError(f"temporal_layers need an encoder with a multiple of {2 * heads} channels, not {width}.")
        block = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Returns features of videos `(B, D)` from those of their frames, `(B, F, D)`, in the order of time."""
        return (frames + self.blocks(frames + places(frames))).mean(1)


def places(frames: Tensor) -> Tensor:
    """Returns sines and cosines of the numbers of frames, `(F, D)`, for features `(B, F, D)`."""
    count, width = frames.shape[1:]
    waves = LONGEST ** -torch.linspace(0, 1, width // 2, device=frames.device)
    angles = torch.arange(count, device=frames.device)[:, None] * waves
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(frames.dtype)
