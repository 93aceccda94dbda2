"""Visual words: pieces of a clip, each replaced by the cluster of a frozen encoder's features.

fit: pixel_values (B, F, 3, S, S), batch after batch -> pieces (n, D) -> hierarchical k-means -> a tree of centres
words: pixel_values (B, F, 3, S, S) -> W pieces of F / W frames -> frozen encoder -> (B, W, D) -> words (B, W)

Sun, Myers, Vondrick, Murphy and Schmid, "VideoBERT: A Joint Model for Video and Language Representation Learning",
ICCV 2019, https://huggingface.co/papers/1904.01766
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from ..encoders import check_encoder, image_side, takes_images
from ..features import encode, width
from ..utils.ranks import on_each_process, rank_and_ranks
from .codebook import Frozen, exact, first_points
from .distributed import gather
from .draws import drawn_by
from .hierarchical_kmeans import fit_tree, leaves
from .normalisation import HALF, NormalisationTask

AT_ONCE = 64  # images, or videos, that are encoded at a time
FEW = 0.5  # share of the visual words with pieces, below which a warning is logged
OPTION = "--word_encoder"
log = logging.get_logger(__name__)


@strict
@dataclass
class VisualWordsTask(NormalisationTask):
    """Settings of visual words.

    word_encoder: a frozen encoder of images or videos, folder or Hub id. The features of a piece are clustered; those
        of an image encoder are means over its frames.
    word_encoder_revision: branch, tag or commit of word_encoder on the Hub; default: main.
    store_word_encoder: whether a checkpoint contains word_encoder, in `video/`. With False, it only names it, with the
        commit of the Hub and a digest of its weights: the model is then loaded with the same word_encoder, or not at
        all.
    num_words: number of pieces of equal length that a clip is cut into; each becomes a visual word. A piece lasts
        --seconds / num_words: 1.5 seconds in the paper. It must divide --num_frames.
    levels: levels of the hierarchical k-means; 4 in the paper.
    branches: clusters that each cluster is divided into, so that there are branches ** levels visual words; 12 in the
        paper.
    word_pieces: number of pieces that the clusters are fitted to; at least the number of visual words.
    cache_words: whether the visual words of each row are computed only once, before training, from one clip of it, at a
        random place; they take 4 bytes a word, at most 1 GiB. Training then decodes only the texts. Set it to True for
        films that are not longer than the clips; with texts that have times, it must be False.
    """

    word_encoder: str | None = None
    word_encoder_revision: str | None = None
    store_word_encoder: bool = True
    num_words: int = 4
    levels: int = 2
    branches: int = 8
    word_pieces: int = 50_000
    cache_words: bool = False

    def validate_words(self):
        if self.num_words < 1 or self.levels < 1 or self.branches < 2:
            raise ValueError(
                f"num_words and levels must be at least 1 and branches at least 2, but are {self.num_words}, "
                f"{self.levels} and {self.branches}."
            )
        if self.branches**self.levels > self.word_pieces:
            raise ValueError(
                f"branches={self.branches} and levels={self.levels} give {self.branches**self.levels:,} visual words, "
                f"but word_pieces is {self.word_pieces:,}. Give fewer branches or levels, or more word_pieces."
            )


class VisualWords(Frozen):
    """A frozen encoder and a tree of clusters of its features, which turn clips into visual words.

    encoder: of images or videos. num_words: pieces of a clip. levels, branches: of the tree.

    Buffers: `centres_1`, `centres_2`, ... (see `fit_tree`), `counts` (`(size,)`, pieces of each visual word), and the
    normalisation of the frames that it gets (`mean`, `std`) and that the encoder expects (`encoder_mean`,
    `encoder_std`): `(3,)` each, default 0.5.

    Example:
        >>> words = VisualWords(AutoModel.from_config(ResNetConfig()), num_words=2, levels=2, branches=3)
        >>> _ = words.fit([torch.rand(20, 4, 3, 64, 64)])
        >>> words(torch.rand(2, 4, 3, 64, 64)).shape
        torch.Size([2, 2])
    """

    def __init__(self, encoder: PreTrainedModel, num_words: int, levels: int, branches: int):
        """Raises `ValueError` for a model that takes neither images nor videos."""
        super().__init__()
        check_encoder(encoder, "video")
        self.encoder, self.num_words, self.levels, self.size = encoder, num_words, levels, branches**levels
        self.branches = branches
        for level in range(1, levels + 1):
            self.register_buffer(f"centres_{level}", torch.zeros(branches**level, width(encoder), dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(self.size, dtype=torch.float32))
        for name in ("mean", "std", "encoder_mean", "encoder_std"):
            self.register_buffer(name, torch.tensor(HALF, dtype=torch.float32))
        self._seen_fitted = False
        self.train()

    @property
    def tree(self) -> list[Tensor]:
        """The centres of each level, see `fit_tree`."""
        return [getattr(self, f"centres_{level}") for level in range(1, self.levels + 1)]

    @property
    def fitted(self) -> bool:
        """True if it has clusters."""
        return bool(self.counts.any())

    @exact
    def describe(self, pixel_values: Tensor) -> Tensor:
        """Returns the features of each piece of clips `(B, F, 3, H, W)`: `(B, W, D)`, float32.

        Frames are resized to the size that the encoder's config names. An encoder of images gets a frame that repeats
        only once. Raises `ValueError` for frames that are not a multiple of the number of pieces."""
        if pixel_values.shape[1] % self.num_words:
            raise ValueError(
                f"{pixel_values.shape[1]} frames (--num_frames) can't be cut into {self.num_words} pieces of equal "
                "length (--num_words). Give a multiple."
            )
        pieces = pixel_values.unflatten(1, (self.num_words, -1))  # (B, W, F / W, 3, H, W)
        if not takes_images(self.encoder):
            return self.encoded(pieces.flatten(0, 1)).unflatten(0, (-1, self.num_words))
        frames = pieces.flatten(0, 2)
        new = torch.ones(len(frames), dtype=torch.bool, device=frames.device)
        new[1:] = (frames[1:] != frames[:-1]).flatten(1).any(1)  # the last frame of a short film repeats
        return self.encoded(frames[new])[new.cumsum(0) - 1].unflatten(0, pieces.shape[:3]).mean(2)

    def encoded(self, inputs: Tensor) -> Tensor:
        """Returns the features of images `(n, 3, H, W)` or videos `(n, F, 3, H, W)`: `(n, D)`, float32."""
        name = self.encoder.main_input_name
        return torch.cat(
            [encode(self.encoder, **{name: self.prepared(some)})[-1].float() for some in inputs.split(AT_ONCE)]
        )

    def prepared(self, inputs: Tensor) -> Tensor:
        """Returns images or videos `(..., 3, H, W)` as the encoder takes them: of its normalisation and size."""
        scale, shift = self.std / self.encoder_std, (self.mean - self.encoder_mean) / self.encoder_std
        pixels, side = inputs.float() * scale[:, None, None] + shift[:, None, None], image_side(self.encoder)
        if side is not None and tuple(side) != tuple(pixels.shape[-2:]):
            images = pixels.flatten(0, -4)
            resized = F.interpolate(images, side, mode="bilinear", antialias=True, align_corners=False)
            pixels = resized.unflatten(0, pixels.shape[:-3])
        return pixels.to(self.encoder.dtype)

    @exact
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns the visual words of clips `(B, F, 3, H, W)`: `(B, W)`, int64, below `size`. Raises `ValueError` if it
        is not fitted."""
        if not self._seen_fitted:  # checked once: on a GPU the check waits for all kernels that are queued
            self.check_fitted()
            self._seen_fitted = True
        pieces = self.describe(pixel_values)
        return leaves(pieces.flatten(0, 1), self.tree, self.counts).view(pieces.shape[:2])

    def check_fitted(self) -> None:
        """Raises `ValueError` if it has no clusters."""
        if not self.fitted:
            raise ValueError(
                f"These {self.size} visual words have no clusters yet: fit them first with fit(batches of "
                "pixel_values), or load fitted ones."
            )

    def drawn(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Returns random visual words of a shape, each with the same probability; never empty ones."""
        used = (self.counts > 0).cumsum(0)  # (size,)
        number = torch.rand(shape, device=used.device, **drawn_by(generator)) * used[-1]
        return torch.searchsorted(used, number.floor().long() + 1).clamp(max=self.size - 1)

    def fit(self, batches: Iterable[Tensor], pieces: int = 50_000, seed: int = 0, progress: bool = True) -> None:
        """Fits the clusters to the first `pieces` pieces of batches of clips, `(B, F, 3, H, W)` each.

        Logs a warning if less than `FEW` of the visual words have pieces. Raises `ValueError` if all pieces are equal.
        """
        points = self.gather(batches, pieces, progress)
        tree, counts = fit_tree(points, self.levels, self.branches, seed)
        used = int((counts > 0).sum())
        if used < 2:
            raise ValueError(
                f"All {len(points)} pieces that the visual words were to be fitted to have the same features. Check "
                f"that the films are not all black, or give another encoder ({OPTION})."
            )
        if used < FEW * self.size:
            log.warning(
                f"Only {used:,} of {self.size:,} visual words have pieces: the features of many pieces are equal. Give "
                "fewer --branches or --levels, or more --word_pieces."
            )
        for buffer, centres in zip(self.tree, tree, strict=True):
            buffer.copy_(centres)
        self.counts.copy_(counts)

    def gather(self, batches: Iterable[Tensor], pieces: int, progress: bool = True) -> Tensor:
        """Returns the features of the first `pieces` pieces of batches of clips, `(pieces, D)`, on the CPU; fewer if
        the batches have fewer.

        All ranks call it, each with its share of the clips: rank r of R with every R-th, from clip r on. They get the
        same pieces as one process with all clips, in the same order. An error of one rank is raised on all of them."""
        rank, ranks = rank_and_ranks()
        clips, points = -(-pieces // (self.num_words * ranks)), []
        what = ("reading pieces for the visual words", "pieces")

        def read() -> None:
            most = clips * self.num_words
            points.append(first_points(batches, self.describe, most, self.centres_1, what, progress and rank == 0))

        on_each_process(read)
        if ranks == 1:
            return points[0][:pieces]
        of_ranks = gather(points[0].to(self.centres_1.device)).unflatten(0, (ranks, -1, self.num_words))
        return of_ranks.transpose(0, 1).flatten(0, 2)[:pieces].cpu()

    def facts(self) -> dict[str, Any]:
        """Returns the number of visual words, how many have pieces, and their perplexity: the exponential of the
        entropy of their shares of the pieces in fitting."""
        shares = self.counts.double() / self.counts.double().sum().clamp(min=1)
        used, perplexity = int((self.counts > 0).sum()), float(torch.special.entr(shares).sum().exp())
        return {"size": self.size, "used": used, "perplexity": perplexity}
