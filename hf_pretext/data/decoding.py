"""Bytes to pictures and text, guarded: what can't be used is a `BadSample` with a reason, never the end of a run.

{"bytes": ..., "path": ...} -> uint8 tensor (3, H, W)
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .settings import MAX_PIXELS

HIGHEST_MAX_PIXELS = 2 * MAX_PIXELS  # beyond, Pillow itself refuses
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow knows far more, which nobody trains on
UNREADABLE = "unreadable"  # the entry of a row that could not even be read, with the reason
SHRINKS = (8, 4, 2)  # what libjpeg can divide a picture's sides by while it decodes
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # grey of 16 bits, in Pillow's words
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


class BadSample(ValueError):
    """A sample that can't be used, and why."""


@contextmanager
def guarded() -> Iterator[None]:
    """Turns whatever Pillow says of a damaged picture into `BadSample`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged EXIF block, and the like
            yield
    except BadSample:
        raise
    except UnidentifiedImageError:
        raise BadSample("not a picture") from None
    except Exception as error:  # a damaged file may raise anything: OSError, struct.error, KeyError, ...
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise BadSample(f"damaged picture: {reason[:200]}") from error


def to_image(value: dict | bytes | Image.Image, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A picture as the `datasets` library hands it over undecoded, to RGB pixels, upright as its EXIF says.

    Returns uint8 `(3, H, W)`. Raises `BadSample` for what is no readable picture, or a huge one.
    """
    return to_pixels(open_image(value, max_pixels))


def open_image(value: dict | bytes | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture whose header alone was read. Raises `BadSample` for what is none, or has more than `max_pixels`."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else read_file(value.get("path"))
    if isinstance(value, (bytes, bytearray)):
        if not value:
            raise BadSample("no bytes")
        with guarded():
            value = Image.open(io.BytesIO(value), formats=FORMATS)
    if not isinstance(value, Image.Image):
        raise BadSample(f"no picture but {type(value).__name__}")
    if value.width * value.height > max_pixels:
        raise BadSample(f"{value.width}x{value.height} pixels, more than {max_pixels:,} (--max_image_pixels)")
    return value


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Height and width of a picture once it stands as its EXIF says."""
    with guarded():
        sideways = picture.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    return (picture.width, picture.height) if sideways else (picture.height, picture.width)


def to_pixels(picture: Image.Image, shrink: int = 1) -> Tensor:
    """Any picture to RGB pixels, upright, the first frame of several; what is transparent lies on white.

    shrink: 1, 2, 4 or 8: a JPEG is decoded with sides so many times smaller, which is many times faster. Other formats
    keep their size. Returns uint8 `(3, H, W)`. Raises `BadSample` for a damaged picture.
    """
    with guarded():
        if shrink > 1 and picture.format == "JPEG":
            picture.draft("RGB", (picture.width // shrink, picture.height // shrink))
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in DEEP:  # Pillow would cut off at 255
            values = np.asarray(picture).astype(np.float32) / 257
            picture = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
        elif picture.mode in TRANSPARENT or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        elif picture.mode == "F":
            raise BadSample("pixels are floating-point numbers, whose range is unknown")
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # channels last in memory: resizing is fastest so


def to_text(value) -> str:
    """A text. Raises `BadSample` for what is none, or blank."""
    if not isinstance(value, str):
        raise BadSample(f"no text but {type(value).__name__}")
    if not value.strip():
        raise BadSample("blank text")
    return value


def read_file(path: str | None) -> bytes:
    """The content of a file. Raises `BadSample` where it can't be read."""
    if not path:
        raise BadSample("neither bytes nor a path")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadSample(f"unreadable file: {error.strerror}") from error
