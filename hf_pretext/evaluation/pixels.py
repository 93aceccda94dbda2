"""Baseline of image encoders: raw pixels as features.

pixel_values (B, 3, H, W) -> averaged to at most 64 x 64 for kNN, to 16 x 16 for linear probes -> (B, pixels)
"""

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .baselines import Baseline
from .labelled_set import LabelledSet
from .transfer import Labels, Method, transfer

PROBED = 16  # side of images for linear probes: 16 * 16 * 3 features, about the width of an encoder
COMPARED = 64  # largest side of images for kNN: the full set is in memory
DOWNSAMPLED = (
    f"downsampled by average pooling, to {PROBED}x{PROBED} for linear probes and to at most {COMPARED}x{COMPARED} "
    "otherwise."
)


def pixel_transfer(labelled: LabelledSet, methods: Mapping[str, Method]) -> dict:
    """Measures kNN and linear probes on images. Returns the metrics by method, as `transfer` does."""
    return image_transfer(
        lambda split: (batch["pixel_values"] for batch in labelled.batches(split, "image")), labelled.labels, methods
    )


def image_transfer(images: Callable[[str], Iterable[Tensor]], labels: Labels, methods: Mapping[str, Method]) -> dict:
    """Measures kNN on images of at most 64 x 64 pixels, and linear probes on 16 x 16. Larger images are averaged.

    images: split -> batches of images `(B, 3, H, W)`, float. Returns the metrics by method, as `transfer` does."""
    full, small = {}, {}
    for split in labels.splits:
        parts = [(averaged(pixels, COMPARED), averaged(pixels, PROBED)) for pixels in images(split)]
        full[split], small[split] = map(torch.cat, zip(*parts, strict=True))
    probes = {name: method for name, method in methods.items() if name != "knn"}
    compared = {name: method for name, method in methods.items() if name == "knn"}
    return {
        **transfer({"pixels": full}, labels, compared),
        **transfer({f"pixels {PROBED}x{PROBED}": small}, labels, probes),
    }


def averaged(pixels: Tensor, side: int) -> Tensor:
    """Averages images (`(B, 3, H, W)`) to at most `side` x `side`. Returns vectors `(B, 3 * height * width)`."""
    height, width = (min(side, length) for length in pixels.shape[-2:])
    return F.adaptive_avg_pool2d(pixels, (height, width)).flatten(1)


BASELINE = Baseline(
    kind="image",
    name="pixels",
    words="raw pixels do",
    protocol=f"Raw pixels: images are {DOWNSAMPLED}",
    transfer=pixel_transfer,
)
