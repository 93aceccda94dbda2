"""Images of more than 8 bits a channel: which values are black and white.

The range is what the options or the file state, never guessed from the values of one image: a dark image would become
bright.
"""

import numpy as np
from PIL import Image

from .limits import BadSample

# Modes of Pillow: greyscale integers and floating-point numbers. Outside of TIFF, "I" is of 16 bits too
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
WHITE = 2**16 - 1
TWELVE_BITS = 2**12 - 1
BITS, PHOTOMETRIC, HIGHEST, FORMAT, LOWEST_SIGNED, HIGHEST_SIGNED = 258, 262, 281, 339, 340, 341  # tags of TIFF
SIGNED, WHITE_IS_ZERO = 2, 0


def is_deep(image: Image.Image) -> bool:
    """Returns True for an opened image that has 16 bits a channel in its file. Pillow keeps 8 of them in colours."""
    return ";16" in str(getattr(image, "tile", [])[:1])


def range_of(image: Image.Image, asked: int | None = None) -> tuple[float, float, bool]:
    """Returns the values of black and white of an opened image with a mode in `DEEP`, and whether `asked` set them.

    asked: highest value, white unless the file states that 0 is white (--image_white). Without it, in a TIFF
    MaxSampleValue or SMaxSampleValue, or else BitsPerSample; PNG and PPM use all 16 bits. The lowest value is
    SMinSampleValue, else 0. Raises `BadSample` for floating-point numbers and 32-bit or signed integers without a
    highest value, and for a highest value that is not above the lowest."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    lowest, stated = tags.get(LOWEST_SIGNED, 0), tags.get(HIGHEST_SIGNED, tags.get(HIGHEST))
    lowest, stated = (value[0] if isinstance(value, tuple) else value for value in (lowest, stated))
    highest = asked * WHITE / maxval_of(image) if asked else stated or highest_of_bits(image, tags)
    if not lowest < highest:
        raise BadSample(
            f"the lowest value of its pixels is {lowest:.10g}, and the highest {highest:.10g} (--image_white)"
        )
    ends = (highest, lowest) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (lowest, highest)
    return (*ends, bool(asked))


def highest_of_bits(image: Image.Image, tags) -> int:
    """Returns the highest value of unsigned integers. Raises `BadSample` for 32 bits, and other kinds of numbers."""
    bits = tags.get(BITS, (32 if image.mode == "I" and image.format is None else 16,))[0]
    if image.mode == "F" or bits > 16 or SIGNED in tags.get(FORMAT, ()):
        kind = "floating-point numbers" if image.mode == "F" else f"{bits}-bit integers"
        raise BadSample(f"pixels are {kind}, and their range is unknown: give --image_white, or set MaxSampleValue")
    return 2**bits - 1


def maxval_of(image: Image.Image) -> int:
    """Returns the highest value in a PPM file. Pillow multiplies pixels so that it becomes 65,535."""
    args = image.tile[0].args if image.format == "PPM" and image.mode == "I" and image.tile else None
    return args[1] if isinstance(args, tuple) else WHITE


def to_8_bits(image: Image.Image, black: float, white: float, asked: bool) -> Image.Image:
    """Scales greyscale pixels so that black is 0 and white 255; takes the results of `range_of`. Raises `BadSample` for
    NaN, and unless `asked`, as `check_depth`."""
    values = np.asarray(image)
    if not asked and max(black, white) == WHITE:
        check_depth(int(values.max()))
    values = (values.astype(np.float32) - black) * (255 / (white - black))
    if np.isnan(values).any():
        raise BadSample("some pixels are NaN. Replace them by numbers, for example 0")
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def check_colors(image: Image.Image, asked: int | None = None) -> None:
    """Raises `BadSample` for a decoded colour image that is deep in its file: as `check_depth`, and for a white
    (`asked`, --image_white) other than that of 16 bits. Only the upper 8 bits were read: 12-bit colours keep four."""
    if asked == WHITE:
        return
    if asked:
        raise BadSample(
            f"16-bit colours are read with 8 bits: --image_white {asked} can't scale them. Convert them to 8 bits"
        )
    ranges = dict(zip(image.getbands(), image.getextrema(), strict=True))
    check_depth(max(highest for band, (_, highest) in ranges.items() if band != "A") << 8)


def check_depth(highest: int) -> None:
    """Raises `BadSample` if 12 bits hold the highest value of 16-bit pixels: they would be almost black."""
    if 0 < highest <= TWELVE_BITS:
        raise BadSample(
            "16-bit pixels without a value above 4,095: almost black, or of 12 bits. Give --image_white (4095 for 12 "
            "bits), or scale colours to 8 bits"
        )
