"""What is known of one image, and of all of them.

{"bytes", "path"} -> ImageFacts: size, mode, format, hashes, a thumbnail -> summary
"""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from ..data.decoding import SHRINKS, content_of, guarded, open_image, to_rgb, upright_size
from ..data.deep_images import DEEP, is_deep
from .numbers import digest, spread

SIDE = 224  # usual --image_size in pixels: as in training, a large JPEG is decoded at a reduced size
TILE = 128  # side of an image on the sheet, in pixels
TINY = 32  # shorter side in pixels
ELONGATED = 3  # longer side divided by the shorter one
HASH = 8  # side of the perceptual hash
SIZES = 5  # most frequent sizes in a summary
MODES = {
    "1": "black and white", "L": "greyscale", "LA": "greyscale with transparency", "P": "palette",
    "PA": "palette with transparency", "RGBA": "RGB with transparency", "RGBX": "RGB", "I": "greyscale of integers",
    "F": "greyscale of floating-point numbers",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image. height, width: in pixels, upright. frames: more than 1 for an animation. bytes: of the file. digest: of
    the bytes. signs, colors: see `perceptual`. tile: a small JPEG."""

    height: int
    width: int
    mode: str
    format: str
    frames: int
    bytes: int
    digest: bytes
    signs: np.ndarray
    colors: np.ndarray
    tile: bytes


def look_at(value, clock) -> ImageFacts:
    """Decodes an image as training does. clock: gets the seconds. Raises `BadSample` for one that can't be used."""
    with clock():
        content = content_of(value)
        image = open_image(content)
        size = upright_size(image)
        mode, format = mode_of(image), image.format or "unknown"
        with guarded():
            frames = getattr(image, "n_frames", 1)
        shrink = next((n for n in SHRINKS if min(size) >= n * SIDE), 1)
        decoded = to_rgb(image, shrink)
    return ImageFacts(
        *size, mode, format, frames, len(content), digest(content), *perceptual(decoded), tile_of(decoded)
    )


def mode_of(image: PIL.Image.Image) -> str:
    """Returns the mode of an opened image in words, with "16 bits" if its file has more than 8."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return "greyscale, 16 bits"
    mode = MODES.get(image.mode, image.mode)
    return f"{mode}, 16 bits" if is_deep(image) and image.mode not in DEEP else mode


def perceptual(image: PIL.Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Returns what near-duplicates have in common: the signs of dHash, bool `(64,)`, and colours, uint8 `(192,)`.

    dHash (Krawetz 2013) is whether each pixel of a greyscale thumbnail is brighter than its left neighbour. It ignores
    colours and flat areas, so the pixels of a small thumbnail are compared, too."""
    grey = np.asarray(image.convert("L").resize((HASH + 1, HASH), PIL.Image.Resampling.BOX))
    colors = np.asarray(image.resize((HASH, HASH), PIL.Image.Resampling.BOX))
    return (grey[:, 1:] > grey[:, :-1]).ravel(), colors.ravel()


def tile_of(image: PIL.Image.Image) -> bytes:
    """Returns a small JPEG of an image for the sheet. A very small image is enlarged, so that its pixels show."""
    larger = TILE // max(image.size)
    if larger > 1:
        image = image.resize((image.width * larger, image.height * larger), PIL.Image.Resampling.NEAREST)
    image.thumbnail((TILE, TILE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def summary(facts: Sequence[ImageFacts]) -> dict:
    """Returns sizes, modes, formats and unusual shapes of images."""
    shorter = np.array([min(each.height, each.width) for each in facts])
    longer = np.array([max(each.height, each.width) for each in facts])
    return {
        "count": len(facts),
        "width": spread([each.width for each in facts]),
        "height": spread([each.height for each in facts]),
        "frequent_sizes": {
            f"{width}x{height}": count
            for (width, height), count in Counter((each.width, each.height) for each in facts).most_common(SIZES)
        },
        "modes": dict(Counter(each.mode for each in facts).most_common()),
        "formats": dict(Counter(each.format for each in facts).most_common()),
        "bytes": spread([each.bytes for each in facts]),
        "tiny": int((shorter < TINY).sum()),
        "elongated": int((longer >= ELONGATED * shorter).sum()),
        "animations": sum(each.frames > 1 for each in facts),
    }
