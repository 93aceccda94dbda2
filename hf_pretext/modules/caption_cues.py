"""Cues of captions and of image files: what may reveal which caption belongs to an image without any understanding.

token ids (N, L), -1 where there is no token; or N files -> numbers that a small reader gets (N, d)
"""

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from .cues import FILE, Cue


def caption_length(tokens: Tensor) -> Tensor:
    """Returns the number of tokens of texts `(N, L)`, `(N, 1)`."""
    return (tokens >= 0).sum(1, keepdim=True).float()


def file_size(files: Sequence[bytes]) -> Tensor:
    """Returns the log2 of the number of bytes of N files, `(N, 1)`."""
    return torch.tensor([[math.log2(len(file))] for file in files])


def jpeg_tables(files: Sequence[bytes]) -> Tensor:
    """Returns the means of the quantisation tables of N images, of brightness and of colour, `(N, 2)`: the higher, the
    lower the quality. 0 for images that are no JPEG."""
    return torch.tensor([_table_means(file) for file in files])


def _table_means(file: bytes) -> list[float]:
    with Image.open(io.BytesIO(file)) as image:
        tables = list(getattr(image, "quantization", {}).values())
    means = [sum(table) / len(table) for table in tables[:2]]
    return [*means, *means[-1:], 0.0, 0.0][:2]  # a grey image has one table


CAPTION_LENGTH = Cue("caption length", caption_length, kind="text")
FILE_SIZE = Cue("file size", file_size, kind=FILE)
JPEG_TABLES = Cue("JPEG quality", jpeg_tables, kind=FILE)
