"""Visual tokens, the targets of masked patches: the codes of a codebook, fitted to images or a ready one.

    fit: pixel_values (B, 3, H, W), batch after batch -> patches (n, d) -> k-means -> centres (K, d)
    codes: pixel_values (B, 3, H, W) -> patches (B, N, d) -> nearest centres (B, N), whole numbers below K

Visual tokens as targets are BEiT's (Bao, Dong, Piao and Wei, ICLR 2022, https://huggingface.co/papers/2106.08254). The
codebook that is fitted needs no download: it is scikit-learn's mini-batch k-means (Sculley, "Web-Scale K-Means
Clustering", WWW 2010, https://dl.acm.org/doi/10.1145/1772690.1772862) of the patches' pixels, or of an encoder's tokens
(as BEiT v2 has CLIP's, https://huggingface.co/papers/2208.06366). The ready one is DALL-E's, as in FLAVA
(https://huggingface.co/papers/2112.04482).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import FlavaImageCodebook, PreTrainedModel

from ..encoders import check_encoder
from ..features import last_hidden, width
from .kmeans import PASSES, distinct, k_means, nearest
from .patches import patchify

CLASS_TOKENS = 2  # at most, before a picture's patches: DeiT has a second one, for distillation
CELL, LEAST = 8, 0.1  # pixels of a cell of DALL-E's codebook, and the darkest value that it is given for [0, 1]
CHANNELS = 3
HALF = (0.5, 0.5, 0.5)


@strict
@dataclass
class CodebookTask:
    """Settings of objectives whose targets are visual tokens.

    codebook: what gives a patch's visual token: a FlavaImageCodebook, or an encoder whose features are clustered (a
        folder or Hub id); default: the patch's pixels are clustered.
    codebook_size: how many visual tokens, where they are clustered.
    codebook_patches: of how many patches; at least as many as codes.
    image_mean, image_std: what pixels in [0, 1] are normalised by, a number for each channel; a recipe takes them from
        the image processor. A codebook of features, or a ready one, undoes it.
    """

    _argument_group_name: ClassVar[str] = "objective"

    codebook: str | None = None
    codebook_size: int = 512
    codebook_patches: int = 200_000
    image_mean: list[float] | None = None
    image_std: list[float] | None = None

    def validate_codebook(self):
        if not 2 <= self.codebook_size <= self.codebook_patches:
            raise ValueError(
                f"codebook_size must be at least 2 and at most codebook_patches={self.codebook_patches}, but is "
                f"{self.codebook_size}."
            )

    def validate_normalisation(self):
        mean, std = self.image_mean, self.image_std
        if (mean is None) != (std is None) or (
            mean and (len(mean) != CHANNELS or len(std) != CHANNELS or min(std) <= 0)
        ):
            raise ValueError(
                f"image_mean and image_std are {CHANNELS} numbers each, those of image_std above 0, or both are left "
                f"out, but they are {mean} and {std}."
            )


def with_normalisation_of(task: CodebookTask, processor) -> CodebookTask:
    """Settings with what an image processor normalises by, where they leave it open."""
    if task.image_mean is not None:
        return task
    mean, std = normalisation_of(processor)
    return dataclasses.replace(task, image_mean=mean, image_std=std)


def normalisation_of(processor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, a number for each channel, that an image processor normalises pixels in [0, 1] by;
    0 and 1 where it leaves them as they are."""
    if not getattr(processor, "do_normalize", False):
        return [0.0] * CHANNELS, [1.0] * CHANNELS
    values = (processor.image_mean, processor.image_std)  # numbers, or one for all channels
    return tuple(torch.as_tensor(value, dtype=torch.float64).expand(CHANNELS).tolist() for value in values)


def exact(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Runs a method of pictures without gradients, and in float32 under autocast too: codes must not depend on it."""

    @functools.wraps(method)
    def run(self: nn.Module, pixel_values: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(pixel_values.device.type, enabled=False):
            return method(self, pixel_values)

    return run


class Frozen(nn.Module):
    """What is never trained, whatever the model does that holds it: always in `eval()`, and without gradients."""

    def train(self, mode: bool = True) -> "Frozen":
        """Also freezes its weights: loading forgets that they were, and then calls `eval()`."""
        return super().train(False).requires_grad_(False)

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float], prefix: str = "") -> None:
        """Stores what images are normalised by: those of the model, or with the prefix "encoder_" those of the
        codebook's encoder. A codebook of pixels compares pixels as they come and ignores it."""
        if hasattr(self, f"{prefix}mean"):
            getattr(self, f"{prefix}mean").copy_(torch.tensor(mean))
            getattr(self, f"{prefix}std").copy_(torch.tensor(std))


class PatchCodebook(Frozen):
    """Centres of what patches look like, to be fitted to pictures; a patch's code is the number of the nearest one.

    size: how many codes. patch_size: side of a patch in pixels, which is to be that of the model that uses the codes.
    encoder: describes a patch by its token of the last layer, or its cell of the last map, instead of by its pixels;
    frozen, and saved beside the centres. Raises `ValueError` for fewer than 2 codes, an empty patch, or what is no
    encoder of pictures.

    `centres` (`(size, d)`) and `counts` (`(size,)`, how many patches lay nearest to each in fitting) are buffers; with
    an encoder also `mean` and `std`, what images are normalised by as they come, and `encoder_mean` and `encoder_std`,
    what the encoder wants: `(3,)`, 0.5 each unless set.

    Example:
        >>> codebook = PatchCodebook(size=16, patch_size=8)
        >>> _ = codebook.fit([torch.randn(20, 3, 64, 64)])
        >>> codebook(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(self, size: int, patch_size: int, encoder: PreTrainedModel | None = None):
        super().__init__()
        if size < 2 or patch_size < 1:
            raise ValueError(f"A codebook needs 2 codes and patches of 1 pixel at least, not {size} and {patch_size}.")
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
        return "pixels" if self.encoder is None else "features"

    @property
    def fitted(self) -> bool:
        return bool(self.counts.any())

    @property
    def perplexity(self) -> float:
        """The exponential of the entropy of the codes' use in fitting: 1 where one is all, `size` where all are alike.

        Raises `ValueError` where it was not fitted."""
        self.check_fitted()
        shares = self.counts.double() / self.counts.double().sum()
        return float(torch.special.entr(shares).sum().exp())

    @exact
    def describe(self, pixel_values: Tensor) -> Tensor:
        """What the patches of images `(B, 3, H, W)` are compared by, row by row: `(B, N, d)`.

        Raises `ValueError` for sides that are no multiples of the patch size, and where the encoder's grid is another.
        """
        if self.encoder is None:
            return patchify(pixel_values.float(), self.patch_size)
        rows, columns = grid(pixel_values, self.patch_size)
        scale, shift = self.std / self.encoder_std, (self.mean - self.encoder_mean) / self.encoder_std
        pixels = pixel_values.float() * scale[:, None, None] + shift[:, None, None]
        outputs = self.encoder(pixel_values=pixels.to(self.encoder.dtype))
        return patch_tokens(self.encoder, last_hidden(self.encoder, outputs), rows, columns).float()

    @exact
    def forward(self, pixel_values: Tensor) -> Tensor:
        """The codes of pictures `(B, 3, H, W)`, row by row: `(B, N)`, int64. Raises `ValueError` unless fitted."""
        if not self._seen_fitted:  # asked once: on a GPU the question waits for all that was begun there
            self.check_fitted()
            self._seen_fitted = True
        patches = self.describe(pixel_values)
        codes, _ = nearest(patches.flatten(0, 1), self.centres.float())
        return codes.view(patches.shape[:2])

    def check_fitted(self) -> None:
        """Raises `ValueError` for a codebook whose centres are not known yet."""
        if not self.fitted:
            raise ValueError(
                f"This codebook of {self.size} codes has no centres yet: fit it first, or load it, as with "
                "codebook.fit(batches of pixel_values)."
            )

    def fit(
        self, batches: Iterable[Tensor], seed: int = 0, patches: int = 200_000, progress: bool = True
    ) -> dict[str, float]:
        """Finds the centres, the same ones for the same batches and seed.

        batches: of pixel_values `(B, 3, H, W)`, as many as it takes until `patches` patches are seen; these are held in
        memory, at 4 d bytes each, some three times over.
        Returns "patches" that were seen, "perplexity" of the codes' use, "dead" codes that have no patch, and "error",
        the mean squared distance from a patch to its centre, per dimension. Raises `ValueError` where there are fewer
        different patches than codes.
        """
        points, weights = distinct(self.gather(batches, patches, progress))
        if len(points) < self.size:
            raise ValueError(
                f"A codebook of {self.size} codes needs as many different patches, but among the "
                f"{int(weights.sum())} that it was to be fitted to are {len(points)}. Take fewer codes "
                "(--codebook_size), or more pictures."
            )
        with bar(PASSES * len(points), "fitting the codebook", progress) as shown:
            centres, counts, distances = k_means(points, weights, self.size, seed, shown)
        self.centres.copy_(centres)
        self.counts.copy_(counts)
        error = float((distances * weights).sum() / weights.sum()) / points.shape[1]
        dead = int((counts == 0).sum())
        return {"patches": int(weights.sum()), "perplexity": self.perplexity, "dead": dead, "error": error}

    def gather(self, batches: Iterable[Tensor], patches: int, progress: bool = True) -> Tensor:
        """The first patches of batches of pictures, described, on the CPU: `(patches, d)`, or fewer where they end."""
        parts, room = [self.centres[:0].float().cpu()], patches
        with bar(patches, "reading patches for the codebook", progress) as shown:
            for pixel_values in batches:
                described = self.describe(pixel_values.to(self.centres.device)).flatten(0, 1)
                parts.append(described[:room].cpu())
                room -= len(parts[-1])
                shown.update(len(parts[-1]))
                if room <= 0:  # before another batch is asked for
                    break
        return torch.cat(parts)


class ReadyCodebook(Frozen):
    """DALL-E's codebook, as transformers has it for FLAVA, for any model's pictures and grid of patches.

    codebook: frozen, and saved with whatever holds this. patch_size: side in pixels of a patch of the model that uses
    the codes. mean, std: what the model's image processor normalises pixels in [0, 1] by, a number for each channel.
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
        """Nothing: it is fitted already."""
        return {}

    @exact
    def forward(self, pixel_values: Tensor) -> Tensor:
        """The codes of pictures `(B, 3, H, W)`, row by row: `(B, N)`, int64. Raises `ValueError` for sides that are no
        multiples of the patch size."""
        cells = self.cells(pixel_values).to(self.codebook.dtype)
        return self.codebook.get_codebook_indices(cells).flatten(1)

    def cells(self, pixel_values: Tensor) -> Tensor:
        """The model's pictures as the codebook wants them, `(B, 3, 8 rows, 8 columns)`: a patch has the size of a cell,
        and values lie between 0.1 and 0.9, as `FlavaImageProcessor.map_pixels` makes them."""
        pixels = pixel_values.float() * self.std[:, None, None].float() + self.mean[:, None, None].float()
        size = tuple(CELL * count for count in grid(pixel_values, self.patch_size))
        if size != pixels.shape[2:]:
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        return (1 - 2 * LEAST) * pixels.clamp(0, 1) + LEAST  # cubic curves overshoot


def grid(pixel_values: Tensor, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches. Raises `ValueError` for sides that are no multiples of the patch size."""
    height, width = pixel_values.shape[2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"Pictures of {height}x{width} pixels can't be cut into patches of {patch_size}x{patch_size}. Take another "
            "size of pictures or patches."
        )
    return height // patch_size, width // patch_size


def patch_tokens(encoder: PreTrainedModel, hidden: Tensor, rows: int, columns: int) -> Tensor:
    """The patches among an encoder's hidden states (`(B, tokens, d)` or `(B, d, h, w)`), row by row: `(B, N, d)`.

    Raises `ValueError` where they are no grid of so many rows and columns."""
    patches = rows * columns
    if hidden.ndim == 4:
        gives, fits = "x".join(map(str, hidden.shape[2:])) + " cells", hidden.shape[2:] == (rows, columns)
        tokens = hidden.flatten(2).mT
    else:
        registers = getattr(encoder.config, "num_register_tokens", 0)
        registers = getattr(getattr(encoder, "timm_model", None), "num_prefix_tokens", registers)
        others = hidden.shape[1] - patches - registers
        gives, fits = f"{hidden.shape[1]} tokens", 0 <= others <= CLASS_TOKENS
        tokens = hidden[:, -patches:]
    if not fits:
        raise ValueError(
            f"{type(encoder).__name__} gives {gives} where a codebook has {rows}x{columns} patches. Take an encoder "
            "whose grid for such pictures is this one, or another patch_size."
        )
    return tokens


def bar(total: int, description: str, progress: bool) -> tqdm:
    return tqdm(total=total, desc=description, unit="patches", leave=False, disable=not progress)
