"""Codebooks of visual tokens, the targets of masked patches.

    fit: pixel_values (B, 3, H, W), batch after batch -> patches (n, d) -> k-means -> centres (K, d)
    codes: pixel_values (B, 3, H, W) -> patches (B, N, d) -> indices of the nearest centres (B, N), below K

BEiT introduced visual tokens as targets (Bao, Dong, Piao and Wei, ICLR 2022, https://huggingface.co/papers/2106.08254).
`PatchCodebook` is fitted to the training images and needs no download. It clusters the pixels of patches, or an
encoder's tokens (BEiT v2 uses CLIP's, https://huggingface.co/papers/2208.06366), with scikit-learn's mini-batch k-means
(Sculley, "Web-Scale K-Means Clustering", WWW 2010, https://dl.acm.org/doi/10.1145/1772690.1772862). `ReadyCodebook` is
DALL-E's codebook, as in FLAVA (https://huggingface.co/papers/2112.04482).
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import FlavaImageCodebook, PreTrainedModel

from ..encoders import check_encoder
from ..features import CLASS_TOKENS, last_hidden, prefix_tokens, width
from ..utils.progress import progress as progress_bar
from .kmeans import PASSES, distinct, k_means, nearest
from .normalisation import HALF, NormalisationTask
from .patches import patchify

CELL, LEAST = 8, 0.1  # of DALL-E's codebook: side of a cell in pixels, and the value that stands for black


@strict
@dataclass
class CodebookTask(NormalisationTask):
    """Settings of objectives whose targets are visual tokens.

    codebook: the model that gives the visual tokens of patches, a folder or Hub id: a FLAVA model or its codebook, or
        an image encoder whose features are clustered; default: the pixels of patches are clustered.
    codebook_size: number of visual tokens. FLAVA's codebook has a fixed size and ignores this setting.
    codebook_patches: number of patches that the clusters are fitted to; at least codebook_size.
    """

    codebook: str | None = None
    codebook_size: int = 512
    codebook_patches: int = 200_000

    def validate_codebook(self):
        if not 2 <= self.codebook_size <= self.codebook_patches:
            raise ValueError(
                f"codebook_size must be at least 2 and at most codebook_patches={self.codebook_patches}, but is "
                f"{self.codebook_size}. Give a codebook_size in this range, or more codebook_patches."
            )


def exact(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorates a method that takes images, to run it without gradients and without autocast: codes must not depend on
    the precision of training."""

    @functools.wraps(method)
    def run(self: nn.Module, pixel_values: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(pixel_values.device.type, enabled=False):
            return method(self, pixel_values)

    return run


class Frozen(nn.Module):
    """Module that is never trained: it stays in `eval()` mode and gets no gradients, also as part of a model that is
    trained."""

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in `eval()` mode for any `mode`, and freezes the weights again: loading a checkpoint unfreezes them
        and then calls `eval()`."""
        return super().train(False).requires_grad_(False)

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float], prefix: str = "") -> None:
        """Stores the mean and standard deviation that images are normalised with, one number per channel.

        prefix: "" for the images that the codebook gets, "encoder_" for the images that its encoder expects. A codebook
        of pixels compares normalised pixels and ignores these values."""
        if hasattr(self, f"{prefix}mean"):
            getattr(self, f"{prefix}mean").copy_(torch.tensor(mean))
            getattr(self, f"{prefix}std").copy_(torch.tensor(std))


class PatchCodebook(Frozen):
    """Codebook that is fitted to images by k-means. The code of a patch is the index of the nearest centre.

    size: number of codes. patch_size: side of a patch in pixels; the same as in the model that uses the codes.
    encoder: image encoder that describes patches by their tokens of the last layer, or cells of the last feature map;
    default: patches are described by their pixels. It is frozen, and saved together with the centres.
    Raises `ValueError` for fewer than 2 codes, for a patch size below 1, and for a model that is not an image encoder.

    Buffers: `centres` (`(size, d)`; d is 3 * patch_size**2, or the encoder's width) and `counts` (`(size,)`, number of
    patches nearest to each centre in fitting). With an encoder also `mean` and `std`, the normalisation of
    the images that the codebook gets, and `encoder_mean` and `encoder_std`, the normalisation that the encoder expects:
    `(3,)` each, default 0.5.

    Example:
        >>> codebook = PatchCodebook(size=16, patch_size=8)
        >>> _ = codebook.fit([torch.randn(20, 3, 64, 64)])
        >>> codebook(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(self, size: int, patch_size: int, encoder: PreTrainedModel | None = None):
        super().__init__()
        if size < 2 or patch_size < 1:
            raise ValueError(
                f"A codebook needs a size of at least 2 and a patch_size of at least 1, not {size} and {patch_size}."
            )
        if encoder is not None:
            check_encoder(encoder, "image")
        self.size, self.patch_size, self.encoder = size, patch_size, encoder
        d = 3 * patch_size**2 if encoder is None else width(encoder)
        self.register_buffer("centres", torch.zeros(size, d, dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(size, dtype=torch.float32))
        if encoder is not None:
            for name in ("mean", "std", "encoder_mean", "encoder_std"):
                self.register_buffer(name, torch.tensor(HALF, dtype=torch.float32))
        self._seen_fitted = False
        self.train()

    @property
    def kind(self) -> str:
        """Kind of patch descriptions: "pixels" or "features"."""
        return "pixels" if self.encoder is None else "features"

    @property
    def fitted(self) -> bool:
        """True for a codebook that has centres."""
        return bool(self.counts.any())

    @property
    def perplexity(self) -> float:
        """Effective number of codes: the exponential of the entropy of the codes' shares of the patches in fitting.

        It is 1 if all patches have the same code, and `size` if all codes are equally frequent. Raises `ValueError` for
        a codebook that is not fitted."""
        self.check_fitted()
        shares = self.counts.double() / self.counts.double().sum()
        return float(torch.special.entr(shares).sum().exp())

    @exact
    def describe(self, pixel_values: Tensor) -> Tensor:
        """Returns the vectors of patches that are compared with the centres.

        pixel_values (`(B, 3, H, W)`). Returns `(B, N, d)`, row by row; d is 3 * patch_size**2 for pixels, else the
        encoder's width. Raises `ValueError` for sides that are not
        multiples of the patch size, and for an encoder whose output is not a grid of H / patch_size x W / patch_size
        patches."""
        if self.encoder is None:
            return patchify(pixel_values.float(), self.patch_size)
        rows, columns = grid(pixel_values, self.patch_size)
        scale, shift = self.std / self.encoder_std, (self.mean - self.encoder_mean) / self.encoder_std
        pixels = pixel_values.float() * scale[:, None, None] + shift[:, None, None]
        outputs = self.encoder(pixel_values=pixels.to(self.encoder.dtype))
        return patch_tokens(self.encoder, last_hidden(self.encoder, outputs), rows, columns).float()

    @exact
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns the codes of images `(B, 3, H, W)`, row by row: `(B, N)`, int64. Raises `ValueError` for a codebook
        that is not fitted."""
        if not self._seen_fitted:  # checked once: on a GPU the check waits for all kernels that are queued
            self.check_fitted()
            self._seen_fitted = True
        patches = self.describe(pixel_values)
        codes, _ = nearest(patches.flatten(0, 1), self.centres.float())
        return codes.view(patches.shape[:2])

    def check_fitted(self) -> None:
        """Raises `ValueError` for a codebook that is not fitted."""
        if not self.fitted:
            raise ValueError(
                f"This codebook of {self.size} codes has no centres yet: fit it first with "
                "codebook.fit(batches of pixel_values), or load a fitted one."
            )

    def fit(
        self, batches: Iterable[Tensor], seed: int = 0, patches: int = 200_000, progress: bool = True
    ) -> dict[str, float]:
        """Fits the centres. The same batches and seed give the same centres.

        batches: pixel_values, `(B, 3, H, W)` each; read until `patches` patches are collected. patches: number of
        patches to fit to. They are kept in memory at 4 d bytes each, at times in about three copies.
        Returns "patches" (number of patches that were read), "perplexity" (see `perplexity`), "dead" (number of codes
        without patches) and "error" (mean squared distance from a patch to its centre, per dimension). Raises
        `ValueError` for fewer different patches than codes.
        """
        points, weights = distinct(self.gather(batches, patches, progress))
        if len(points) < self.size:
            raise ValueError(
                f"A codebook of {self.size} codes needs as many different patches, but the {int(weights.sum())} given "
                f"patches contain only {len(points)} different ones. Give fewer codes (--codebook_size) or more images."
            )
        total = PASSES * len(points)
        with progress_bar(total=total, description="fitting the codebook", unit="patches", shown=progress) as shown:
            centres, counts, distances = k_means(points, weights, self.size, seed, shown)
        self.centres.copy_(centres)
        self.counts.copy_(counts)
        error = float((distances * weights).sum() / weights.sum()) / points.shape[1]
        dead = int((counts == 0).sum())
        return {"patches": int(weights.sum()), "perplexity": self.perplexity, "dead": dead, "error": error}

    def gather(self, batches: Iterable[Tensor], patches: int, progress: bool = True) -> Tensor:
        """Returns the vectors of the first `patches` patches of batches of images, on the CPU: `(patches, d)`, or fewer
        if the batches contain fewer."""
        what = ("reading patches for the codebook", "patches")
        return first_points(batches, self.describe, patches, self.centres, what, progress)


def first_points(
    batches: Iterable[Tensor],
    describe: Callable[[Tensor], Tensor],
    most: int,
    centres: Tensor,
    what: tuple[str, str],
    progress: bool,
) -> Tensor:
    """Returns the first `most` points of batches, on the CPU: `(most, d)`, or fewer if the batches have fewer.

    describe: a batch to points `(B, n, d)`. centres: `(K, d)`, on the device for `describe`. what: description and unit
    of the progress bar."""
    parts, room = [centres[:0].float().cpu()], most
    with progress_bar(total=most, description=what[0], unit=what[1], shown=progress) as shown:
        for batch in batches:
            described = describe(batch.to(centres.device)).flatten(0, 1)
            parts.append(described[:room].cpu())
            room -= len(parts[-1])
            shown.update(len(parts[-1]))
            if room <= 0:  # before the next batch is loaded
                break
    return torch.cat(parts)


class ReadyCodebook(Frozen):
    """DALL-E's codebook, in transformers' version for FLAVA. It takes images of any normalisation and patch size.

    codebook: frozen, and saved with the model that contains it. patch_size: side of a patch in pixels, in the model
    that uses the codes. mean, std: normalisation of the images that the codebook gets, for pixels in [0, 1], one number
    per channel.
    """

    kind, fitted = "ready", True

    def __init__(
        self, codebook: FlavaImageCodebook, patch_size: int, mean: Sequence[float] = HALF, std: Sequence[float] = HALF
    ):
        super().__init__()
        self.size, self.patch_size = codebook.config.vocab_size, patch_size
        self.codebook = codebook
        self.register_buffer("mean", torch.tensor(tuple(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(tuple(std), dtype=torch.float32))
        self.train()

    def fit(self, *args, **kwargs) -> dict[str, float]:
        """Does nothing, since this codebook is fitted already. Returns `{}`."""
        return {}

    @exact
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns the codes of images `(B, 3, H, W)`, row by row: `(B, N)`, int64. Raises `ValueError` for sides that
        are not multiples of the patch size."""
        cells = self.cells(pixel_values).to(self.codebook.dtype)
        return self.codebook.get_codebook_indices(cells).flatten(1)

    def cells(self, pixel_values: Tensor) -> Tensor:
        """Returns images `(B, 3, H, W)` in the form that the codebook expects: `(B, 3, 8 * rows, 8 * columns)`.

        Each patch is resized to a cell of 8 x 8 pixels. Pixels in [0, 1] are mapped to [0.1, 0.9], as in
        `FlavaImageProcessor.map_pixels`."""
        pixels = pixel_values.float() * self.std[:, None, None].float() + self.mean[:, None, None].float()
        size = tuple(CELL * count for count in grid(pixel_values, self.patch_size))
        if size != pixels.shape[2:]:
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        return (1 - 2 * LEAST) * pixels.clamp(0, 1) + LEAST  # bicubic interpolation overshoots


def grid(pixel_values: Tensor, patch_size: int) -> tuple[int, int]:
    """Returns the numbers of rows and columns of patches in images `(B, C, H, W)`. Raises `ValueError` for sides that
    are not multiples of the patch size."""
    height, width = pixel_values.shape[2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"Images of {height}x{width} pixels can't be cut into patches of {patch_size}x{patch_size}. Give images "
            "whose sides are multiples of the patch size."
        )
    return height // patch_size, width // patch_size


def patch_tokens(encoder: PreTrainedModel, hidden: Tensor, rows: int, columns: int) -> Tensor:
    """Returns the hidden states of patches, without those of class and register tokens.

    hidden (`(B, tokens, d)` or `(B, d, h, w)`): all hidden states. Returns `(B, N, d)`, row by row. Raises `ValueError`
    for patches that do not form a grid of `rows` x `columns`."""
    patches = rows * columns
    if hidden.ndim == 4:
        gives, fits = "x".join(map(str, hidden.shape[2:])) + " cells", hidden.shape[2:] == (rows, columns)
        tokens = hidden.flatten(2).mT
    else:
        others = hidden.shape[1] - patches - prefix_tokens(encoder)
        gives, fits = f"{hidden.shape[1]} tokens", 0 <= others <= CLASS_TOKENS
        tokens = hidden[:, -patches:]
    if not fits:
        raise ValueError(
            f"{type(encoder).__name__} gives {gives}, but the codebook needs {rows}x{columns} patches. Give an encoder "
            "that has this grid for images of this size, or another patch_size."
        )
    return tokens
