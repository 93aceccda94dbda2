"""Images of more than 8 bits a channel: which values are black and white.

The range is what the file states, never guessed from the values of one image: a dark image would become bright.
"""

import numpy as np
from PIL import Image

from .limits import BadSample

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # greyscale modes of Pillow. Outside of TIFF, "I" is of 16 bits too
WHITE = 2**16 - 1
TWELVE_BITS = 2**12 - 1
BITS, PHOTOMETRIC, HIGHEST, FORMAT, LOWEST_SIGNED, HIGHEST_SIGNED = 258, 262, 281, 339, 340, 341  # tags of TIFF
SIGNED, WHITE_IS_ZERO = 2, 0


def is_deep(image: Image.Image) -> bool:
    """Returns True for an opened image that has 16 bits a channel in its file. Pillow keeps 8 of them in colours."""
    return ";16" in str(getattr(image, "tile", [])[:1])


def range_of(image: Image.Image) -> tuple[float, float]:
    """Returns the values of black and white of a greyscale image with a mode in `DEEP`.

    In a TIFF SMinSampleValue (default 0) and MaxSampleValue or SMaxSampleValue, or else BitsPerSample. PNG and PPM use
    all 16 bits. Raises `BadSample` for 32-bit or signed integers without a highest value."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    bits = tags.get(BITS, (32 if image.mode == "I" and image.format is None else 16,))[0]
    black, white = tags.get(LOWEST_SIGNED, 0), tags.get(HIGHEST_SIGNED, tags.get(HIGHEST))
    black, white = (value[0] if isinstance(value, tuple) else value for value in (black, white))
    if not white:
        if bits > 16 or SIGNED in tags.get(FORMAT, ()):
            raise BadSample(f"pixels are {bits}-bit integers, and their range is unknown: MaxSampleValue is not set")
        white = 2**bits - 1
    return (white, black) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (black, white)


def to_8_bits(image: Image.Image, black: float, white: float) -> Image.Image:
    """Scales greyscale pixels so that black is 0 and white 255. Raises `BadSample` as `check_depth`."""
    values = np.asarray(image)
    if max(black, white) == WHITE:
        check_depth(int(values.max()))
    values = (values.astype(np.float32) - black) * (255 / (white - black))
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def check_colors(image: Image.Image) -> None:
    """Raises `BadSample` as `check_depth`, for a decoded colour image that is deep in its file."""
    ranges = dict(zip(image.getbands(), image.getextrema(), strict=True))
    check_depth(max(highest for band, (_, highest) in ranges.items() if band != "A") << 8)


def check_depth(highest: int) -> None:
    """Raises `BadSample` if 12 bits hold the highest value of 16-bit pixels: they would be almost black."""
    if 0 < highest <= TWELVE_BITS:
        raise BadSample(
            "16-bit pixels without a value above 4,095: almost black, or of 12 bits. Scale them to 16 bits, or set "
            "MaxSampleValue in a TIFF"
        )
