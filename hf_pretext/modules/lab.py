"""CIE Lab colours: lightness L, and the colour axes a (green to red) and b (blue to yellow).

RGB in [0, 1] (B, 3, H, W) <-> Lab (B, 3, H, W); bins of the ab plane (Q, 2); colours -> weights of their nearest bins

sRGB (IEC 61966-2-1) under the white point D65. The bins are those of Zhang, Isola and Efros, "Colorful Image
Colorization", ECCV 2016, https://huggingface.co/papers/1603.08511, but computed from the sRGB gamut.
"""

from functools import cache

import torch
from torch import Tensor, nn

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)  # D65
LINEAR_XYZ, SLOPE = 0.008856, 7.787  # below it, the cube root is replaced by a line of this slope
LINEAR_RGB, SLOPE_RGB = 0.04045, 12.92
LEVELS = 33  # of each channel, at which the gamut is sampled
LARGEST = 128  # more than a or b of any colour
NEAREST, DEVIATION = 5, 5.0  # bins that describe a colour, and the deviation of their Gaussian weights in units of ab


@cache
def matrix(device: torch.device, inverse: bool = False) -> Tensor:
    """Returns the matrix from linear RGB to XYZ relative to white, or its inverse, `(3, 3)`. Made once for each device,
    since a copy from the CPU waits for it."""
    to_xyz = (torch.tensor(RGB_TO_XYZ) / torch.tensor(WHITE)[:, None]).double()
    return (torch.linalg.inv(to_xyz) if inverse else to_xyz).float().to(device)


def power(base: Tensor, exponent: float) -> Tensor:
    """Returns a power of numbers above or equal to 0. On a CPU it takes half the time of `base ** exponent`."""
    return (base.log() * exponent).exp()


def linear_of(rgb: Tensor) -> Tensor:
    """Converts sRGB in [0, 1] to linear RGB, which is proportional to the light."""
    return torch.where(rgb > LINEAR_RGB, power((rgb + 0.055) / 1.055, 2.4), rgb / SLOPE_RGB)


def encoded(linear: Tensor) -> Tensor:
    """Converts linear RGB in [0, 1] to sRGB, the inverse of `linear_of`."""
    return torch.where(linear > LINEAR_RGB / SLOPE_RGB, 1.055 * power(linear, 1 / 2.4) - 0.055, linear * SLOPE_RGB)


def gray_of(rgb: Tensor) -> Tensor:
    """Returns the grey of the same lightness, `(B, 1, H, W)` in sRGB, of colours in sRGB, `(B, 3, H, W)`."""
    luminance = matrix(rgb.device)[1].to(rgb.dtype)  # a grey has the same value in all channels of linear RGB
    return encoded(torch.einsum("c,bchw->bhw", luminance, linear_of(rgb)).clamp(0, 1))[:, None]


def lab_of(rgb: Tensor) -> Tensor:
    """Converts sRGB in [0, 1], `(B, 3, H, W)`, float32, to Lab: L in [0, 100], a and b in about [-108, 98]."""
    xyz = torch.einsum("dc,bchw->bdhw", matrix(rgb.device).to(rgb.dtype), linear_of(rgb))
    f = torch.where(xyz > LINEAR_XYZ, xyz ** (1 / 3), SLOPE * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def rgb_of(lab: Tensor) -> Tensor:
    """Converts Lab, `(B, 3, H, W)`, to sRGB. Colours outside the gamut are clamped to [0, 1]."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], dim=1)
    cube = f**3
    xyz = torch.where(cube > LINEAR_XYZ, cube, (f - 16 / 116) / SLOPE)
    return encoded(torch.einsum("dc,bchw->bdhw", matrix(lab.device, inverse=True).to(lab.dtype), xyz).clamp(0, 1))


def ab_bins(size: int) -> Tensor:
    """Returns the centres of all squares of the ab plane with side `size` that contain a colour of sRGB with one of
    `LEVELS` levels in each channel: `(Q, 2)`. More levels would add a few at the edge of the gamut."""
    level = torch.linspace(0, 1, LEVELS, device="cpu", dtype=torch.float32)
    cube = torch.cartesian_prod(level, level, level).T.reshape(1, 3, -1, 1)
    return ((lab_of(cube)[0, 1:, :, 0].T / size).round() * size).unique(dim=0)


class AbBins(nn.Module):
    """The Q bins of `ab_bins`, which describe a colour by its `NEAREST` ones.

    A colour is compared with K of the Q bins: the ab plane is cut into squares of half a bin's side, and each square
    knows the bins that can be among the nearest of a colour in it.

    size: side of a bin in units of ab. Buffers: centers `(Q, 2)`; candidates `(n, n, K)`, bins of each square.
    """

    def __init__(self, size: int):
        super().__init__()
        centers, self.side = ab_bins(size), size / 2
        middle = (torch.arange(int(2 * LARGEST / self.side) + 1) + 0.5) * self.side - LARGEST
        distance = torch.cdist(torch.cartesian_prod(middle, middle), centers)
        # from the middle of a square to a colour in it, to this colour's nearest bins: not farther than that
        reach = distance.kthvalue(NEAREST, dim=1, keepdim=True).values + self.side * 2**0.5
        count = int((distance <= reach).sum(1).max())
        candidates = distance.topk(count, largest=False).indices.view(len(middle), len(middle), count)
        self.register_buffer("centers", centers)
        self.register_buffer("candidates", candidates.int())  # processes can't exchange shorter integers

    def __len__(self) -> int:
        return len(self.centers)

    def forward(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """Describes colours `(B, 2, h, w)`. Returns the Gaussian weights of their nearest bins `(B, h, w, NEAREST)`,
        with sum 1, and the indices of these bins `(B, h, w, NEAREST)`, the nearest first."""
        colors = ab.movedim(1, -1)  # (B, h, w, 2)
        row, column = ((colors + LARGEST) / self.side).long().clamp(0, len(self.candidates) - 1).unbind(-1)
        near = self.candidates[row, column].long()  # (B, h, w, K)
        distance, order = (colors[..., None, :] - self.centers[near]).square().sum(-1).topk(NEAREST, largest=False)
        return (-distance / (2 * DEVIATION**2)).softmax(-1), near.gather(-1, order)

    def smoothed(self, shares: Tensor) -> Tensor:
        """Smooths shares of the bins, `(Q,)`, by the Gaussian of `forward`, so that no bin of the gamut is empty."""
        near = (-torch.cdist(self.centers, self.centers).square() / (2 * DEVIATION**2)).exp()
        return shares @ (near / near.sum(1, keepdim=True))
