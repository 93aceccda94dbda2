"""Decoder of masked autoencoders: predicts all patches from the hidden states of the visible ones.

states (B, P + K, D), visible (B, K) -> a mask token for each of the other patches (B, P + N, d) -> Transformer
-> predictions (B, N, outputs)

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, https://huggingface.co/papers/2111.06377
"""

from functools import lru_cache
from math import isqrt

import torch
from torch import Tensor, nn

HEAD_WIDTH = 32  # of an attention head, as in MAE
EPSILON = 1e-6  # of the layer norms


class PatchDecoder(nn.Module):
    """A Transformer with fixed positions. It is not part of the encoder.

    width: channels of the encoder. outputs: length of the predicted vectors. dim: width of the decoder, a multiple of
    `HEAD_WIDTH`. layers: number of its layers.
    """

    def __init__(self, width: int, outputs: int, dim: int, layers: int):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            dim, dim // HEAD_WIDTH, 4 * dim, 0.0, "gelu", EPSILON, batch_first=True, norm_first=True
        )
        self.narrow = nn.Linear(width, dim)
        self.mask = nn.Parameter(torch.zeros(dim).normal_(std=0.02))
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim, EPSILON), enable_nested_tensor=False)
        self.predict = nn.Linear(dim, outputs)

    def forward(self, states: Tensor, visible: Tensor, count: int) -> Tensor:
        """Predicts all patches.

        states (`(B, P + K, D)`): hidden states of P class and register tokens and of K visible patches. visible (`(B,
        K)`): indices of these patches. count: number N of all patches, a square number. Returns `(B, N, outputs)`."""
        narrow = self.narrow(states)
        first, seen = narrow[:, : -visible.shape[1]], narrow[:, -visible.shape[1] :]
        patches = self.mask.to(seen.dtype).expand(len(seen), count, -1)
        patches = patches.scatter(1, visible[..., None].expand_as(seen), seen)
        patches = patches + positions(isqrt(count), seen.shape[2], seen.device).to(seen.dtype)
        return self.predict(self.layers(torch.cat([first, patches], dim=1)))[:, first.shape[1] :]


@lru_cache(maxsize=8)
def positions(side: int, dim: int, device: torch.device) -> Tensor:
    """Returns the sine and cosine positions of a grid of `side` x `side` patches, `(side * side, dim)`, row by row. The
    first half of the values encodes the column, the second the row."""
    at = torch.arange(side, dtype=torch.float64)[:, None] / 10000 ** (torch.arange(dim // 4) / (dim / 4))
    one = torch.cat([at.sin(), at.cos()], dim=1)  # (side, dim / 2)
    grid = torch.cat([one[None].expand(side, -1, -1), one[:, None].expand(-1, side, -1)], dim=2)
    return grid.flatten(0, 1).float().to(device)
