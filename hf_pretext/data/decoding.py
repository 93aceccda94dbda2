"""Bytes to pictures, guarded: what can't be read is a `BadSample` with a reason, never the end of a run.

{"bytes": ..., "path": ...} -> uint8 tensor (3, H, W)
"""

import io

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 100_000_000  # above this a picture is taken for a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow knows far more, which nobody trains on


class BadSample(ValueError):
    """A sample that can't be used, and why."""


def to_image(value: dict | bytes | Image.Image) -> Tensor:
    """A picture as the `datasets` library hands it over undecoded, to RGB pixels, upright as its EXIF says.

    Returns uint8 `(3, H, W)`. Raises `BadSample` for what is no readable picture, or a huge one.
    """
    if isinstance(value, Image.Image):
        return from_pillow(value)
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else read_file(value.get("path"))
    if not isinstance(value, (bytes, bytearray)):
        raise BadSample(f"no picture but {type(value).__name__}")
    try:
        with Image.open(io.BytesIO(value), formats=FORMATS) as picture:  # reads the header alone
            pixels = picture.width * picture.height
            if pixels > MAX_PIXELS:
                raise BadSample(f"{picture.width}x{picture.height} pixels, more than {MAX_PIXELS:,}")
            return from_pillow(picture)
    except BadSample:
        raise
    except UnidentifiedImageError:
        raise BadSample("not a picture") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadSample(f"damaged picture: {str(error).splitlines()[0][:200]}") from error


def from_pillow(picture: Image.Image) -> Tensor:
    """Any picture to uint8 `(3, H, W)`, as transformers' pipelines load it: upright, RGB."""
    picture = ImageOps.exif_transpose(picture).convert("RGB")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # channels last in memory: resizing is fastest so


def read_file(path: str | None) -> bytes:
    """The content of a file. Raises `BadSample` where it can't be read."""
    if not path:
        raise BadSample("neither bytes nor a path")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadSample(f"unreadable file: {error.strerror}") from error
