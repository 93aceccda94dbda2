"""Decodes images and texts, and opens files; content that can't be used raises `BadSample`, which does not end a run.

{"bytes": ..., "path": ...} -> image (3, H, W) uint8

Films and sounds are decoded in `clips.py`.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .deep_images import DEEP, check_colors, is_deep, range_of, to_8_bits
from .image_files import check_rows, check_structure, check_tiles
from .image_suffixes import further_formats
from .limits import LIMITS, BadSample, Limits

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # the other formats of Pillow are rare in training data
UNREADABLE = "unreadable"  # key of the reason in a row that could not be read
SHRINKS = (8, 4, 2)  # factors by which libjpeg can downscale an image while it decodes
TURNED = range(2, 9)  # EXIF orientations that need a rotation or reflection
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


class MissingPackage(ImportError):
    """A package that decoding needs is not installed; no fault of a sample."""


@contextmanager
def guarded(what: str = "image") -> Iterator[None]:
    """Turns any exception of a decoder into `BadSample`, except `MissingPackage`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged EXIF block, for example
            yield
    except (BadSample, MissingPackage):
        raise
    except UnidentifiedImageError:
        raise BadSample("not an image") from None
    except Exception as error:  # a damaged file may raise anything: OSError, struct.error, KeyError, ...
        reason = getattr(error, "error_string", None) or str(error)  # without the address that soundfile adds
        reason = next(iter(reason.splitlines()), "") or type(error).__name__
        raise BadSample(f"damaged {what}: {reason[:200]}") from error


def to_image(value: dict | bytes | Image.Image, limits: Limits = LIMITS, white: int | None = None) -> Tensor:
    """Decodes an image to upright RGB pixels.

    value: `{"bytes", "path"}` (the undecoded form in the `datasets` library), bytes or a Pillow image. white: see
    `to_rgb`.
    Returns uint8 `(3, H, W)`. Raises `BadSample` for an unreadable image, or one above the limits.
    """
    return to_pixels(open_image(value, limits), white=white)


def open_image(value: dict | bytes | Image.Image, limits: Limits = LIMITS) -> Image.Image:
    """Opens an image and reads only its header. Raises `BadSample` for content that is not an image, or above the
    limits (see also `check_structure`)."""
    if isinstance(value, (dict, bytes, bytearray)):
        value = content_of(value, limits=limits)
        with guarded():
            check_structure(value)
            value = Image.open(io.BytesIO(value), formats=FORMATS + further_formats(value))
    if not isinstance(value, Image.Image):
        raise BadSample(f"image is {type(value).__name__}, not bytes or Pillow image")
    limits.check_pixels(value.width, value.height)
    return value


def with_pixels(row: dict) -> dict:
    """Returns a row whose Pillow images have read their pixels, or `{UNREADABLE: reason}`.

    An open image would read them when it is pickled for a worker: an error there would lose its batch."""
    try:
        for value in row.values():
            if isinstance(value, Image.Image):
                with guarded():
                    value.load()
    except BadSample as error:
        return {UNREADABLE: str(error)}
    return row


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns height and width of an image in pixels, after its EXIF orientation is applied."""
    with guarded():
        # Pillow has already swapped the size of a TIFF
        sideways = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    return (image.width, image.height) if sideways else (image.height, image.width)


def to_pixels(image: Image.Image, shrink: int = 1, white: int | None = None) -> Tensor:
    """Decodes any image to RGB pixels (see `to_rgb`). Returns uint8 `(3, H, W)`."""
    return pixels_of(to_rgb(image, shrink, white))


def to_rgb(image: Image.Image, shrink: int = 1, white: int | None = None) -> Image.Image:
    """Decodes any image to upright RGB, transparent pixels on white; of an animation, the first frame.

    shrink: 1, 2, 4 or 8. The sides of a JPEG are divided by it during decoding, which is many times faster. Other
    formats keep their size. white: value of white in images of more than 8 bits; None: what the file states, else
    65,535 (see `range_of`). Raises `BadSample` for a damaged image, or pixels of unknown range.
    """
    with guarded():
        if shrink > 1 and image.format == "JPEG":
            image.draft("RGB", (image.width // shrink, image.height // shrink))
        image = loaded(image, white)
        if image.mode in TRANSPARENT or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image if image.mode == "RGB" else image.convert("RGB")


def loaded(image: Image.Image, white: int | None = None) -> Image.Image:
    """Decodes an image to 8 bits, upright. white: see `to_rgb`. Raises `BadSample` for missing rows, or pixels of
    unknown range."""
    check_tiles(image)
    file, deep = getattr(image, "fp", None), is_deep(image)
    ends = range_of(image, white) if image.mode in DEEP else None
    image.load()
    if image.format == "PNG" and isinstance(file, io.BytesIO):
        check_rows(image, file.getvalue())
    if deep and ends is None:
        check_colors(image, white)
    if image.getexif().get(ExifTags.Base.Orientation) in TURNED:  # otherwise Pillow only copies the image
        image = ImageOps.exif_transpose(image)
    return image if ends is None else to_8_bits(image, *ends)


def pixels_of(image: Image.Image, box: Sequence[int] | None = None) -> Tensor:
    """Returns the pixels of a decoded RGB image, uint8 `(3, H, W)`. box: crop to (top, left, height, width)."""
    if box is not None:
        top, left, height, width = box
        image = image.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # channels last in memory: fastest to resize


def needed(package: str, extra: str):
    """Imports and returns an optional package. Raises `MissingPackage` with the install command of its extra."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackage(f"{package} is not installed. Install it: pip install 'hf_pretext[{extra}]'") from error


def to_text(value) -> str:
    """Returns the value if it is a text.

    Raises `BadSample` for other types, and for texts that are blank or have half a surrogate pair."""
    if not isinstance(value, str):
        raise BadSample(f"text is {type(value).__name__}, not a string")
    if not value.strip():
        raise BadSample("blank text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadSample("text with half a surrogate pair") from None  # tokenizers raise an error
    return value


def is_text(value) -> bool:
    """Returns True if `to_text` returns the value."""
    try:
        to_text(value)
    except BadSample:
        return False
    return True


def content_of(value: dict | bytes, what: str = "image", limits: Limits = LIMITS) -> bytes:
    """Returns the bytes of a value in the undecoded form of the `datasets` library, `{"bytes", "path"}`, or of bytes.

    Raises `BadSample` for a missing or empty content, too many bytes, or a file that can't be read."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else read_file(value.get("path"), limits)
    if not isinstance(value, (bytes, bytearray)):
        raise BadSample(f"{what} is {type(value).__name__}, not bytes")
    if not value:
        raise BadSample(f"empty {what}: the file or value has 0 bytes")
    limits.check_bytes(len(value))
    return value


def read_file(path: str | None, limits: Limits = LIMITS) -> bytes:
    """Returns the content of a regular file. Raises `BadSample` for a missing path, a pipe, device or folder, too many
    bytes, or a file that can't be read."""
    if path is None or path == "":
        raise BadSample("neither bytes nor a path")
    try:
        with open(os.fspath(path), "rb", opener=without_blocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadSample("unreadable file: it is a pipe, device or socket, not a regular file")
            limits.check_bytes(status.st_size)
            return file.read(status.st_size)
    except BadSample:
        raise
    except Exception as error:  # of a path with a NUL byte or of another type, for example
        raise BadSample(f"unreadable file: {getattr(error, 'strerror', None) or error}") from error


def without_blocking(path: str, flags: int) -> int:
    """Opens a file for `open`. A pipe without a writer would block it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
