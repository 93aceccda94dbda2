"""Raw pixels as features: what an image encoder has to beat.

pixel_values (B, 3, H, W) -> averaged to at most 64 x 64 for kNN, to 16 x 16 for linear probes -> (B, pixels)
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .baselines import Baseline
from .labelled_set import LabelledSet
from .transfer import Method, transfer

PROBED = 16  # side at which pixels are probed: 16 * 16 * 3 numbers, of the order of an encoder's width
COMPARED = 64  # and at which they are compared, at most: the full set lies in memory


def pixel_transfer(labelled: LabelledSet, methods: Mapping[str, Method]) -> dict:
    """kNN on the pixels of an image, averaged to 64 x 64 where they are more; linear probes on 16 x 16."""
    full, small = {}, {}
    for split in labelled.labels.splits:
        parts = [
            (averaged(pixels, COMPARED), averaged(pixels, PROBED))
            for pixels in (batch["pixel_values"] for batch in labelled.batches(split, "image"))
        ]
        full[split], small[split] = map(torch.cat, zip(*parts, strict=True))
    probes = {name: method for name, method in methods.items() if name != "knn"}
    compared = {name: method for name, method in methods.items() if name == "knn"}
    return {
        **transfer({"pixels": full}, labelled.labels, compared),
        **transfer({f"pixels {PROBED}x{PROBED}": small}, labelled.labels, probes),
    }


def averaged(pixels: Tensor, side: int) -> Tensor:
    """Images (`(B, 3, H, W)`) at no more than this side, as vectors: `(B, pixels)`."""
    height, width = (min(side, length) for length in pixels.shape[-2:])
    return F.adaptive_avg_pool2d(pixels, (height, width)).flatten(1)


BASELINE = Baseline(
    kind="image",
    name="pixels",
    words="raw pixels do",
    protocol=f"Raw pixels are averaged to {PROBED}x{PROBED} for linear probes.",
    transfer=pixel_transfer,
)
