"""Checks what Pillow does not: the cost of JPEG and PNG files before they are decoded, and whether pixels are missing.

Few bytes can ask for hours of decoding. The other formats need no check of their cost: of an animation only the first
frame is decoded, and Pillow limits the size of unpacked texts and profiles.
"""

import re
import zlib

from PIL import Image

from .limits import BadSample

SCANS = 100  # of a progressive JPEG; each costs a pass over all pixels. Usual files have about 10
SEGMENTS = 1_000  # of a JPEG before its pixels. Profiles take at most 255, depth maps of phones about 100
CHUNKS = 100_000  # of a PNG. libpng writes one for 8 KB
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
SCAN = b"\xff\xda"
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # without escaped bytes, restarts and fill bytes of a scan
END = 0xD9
IMAGE_LENGTH = 257  # tag of TIFF
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its type of colours


def check_structure(content: bytes) -> None:
    """Raises `BadSample` for a JPEG of more than `SCANS` scans or `SEGMENTS` segments, or a PNG of more than `CHUNKS`
    chunks."""
    if content.startswith(JPEG):
        check_jpeg(content)
    elif content.startswith(PNG):
        check_png(content)


def check_jpeg(content: bytes) -> None:
    """Raises `BadSample` for more than `SCANS` scans, or `SEGMENTS` segments before the first one or after it."""
    place, segments = 2, 0
    while content[place : place + 2] != SCAN and place < len(content):
        marked = MARKER.match(content, place) is not None
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big") if marked else 1
        segments += 1
        if segments > SEGMENTS:
            raise BadSample(f"more than {SEGMENTS:,} segments before the pixels of a JPEG")
    # content after the image may look like scans: images of other sizes, or the video of a motion photo
    if content.count(SCAN, place) > SCANS and count_scans(content, place) > SCANS:
        raise BadSample(f"more than {SCANS} scans of a JPEG")


def count_scans(content: bytes, place: int) -> int:
    """Returns the number of scans of a JPEG, at most `SCANS` + 1. place: of the first scan, in bytes.

    Raises `BadSample` for more than `SEGMENTS` segments between the scans."""
    scans = segments = 0
    while scans <= SCANS and (marker := MARKER.search(content, place)) and content[marker.end() - 1] != END:
        scans += marker.group() == SCAN
        segments += marker.group() != SCAN
        if segments > SEGMENTS:
            raise BadSample(f"more than {SEGMENTS:,} segments between the scans of a JPEG")
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
    return scans


def check_png(content: bytes) -> None:
    """Raises `BadSample` for more than `CHUNKS` chunks."""
    place, chunks = len(PNG), 0
    while place < len(content):
        place += 12 + int.from_bytes(content[place : place + 4], "big")
        chunks += 1
        if chunks > CHUNKS:
            raise BadSample(f"more than {CHUNKS:,} chunks of a PNG")


def check_tiles(image: Image.Image) -> None:
    """Raises `BadSample` for an opened TIFF that has no pixels for its last rows. They would be black."""
    if image.format != "TIFF":  # the first frame of a GIF may be smaller than the image
        return
    height = image.tag_v2[IMAGE_LENGTH]  # not yet turned by Pillow
    rows = max((tile.extents[3] for tile in image.tile if tile.extents), default=height)
    if rows < height:
        raise BadSample(f"damaged image: it ends after {rows:,} of {height:,} rows")


def check_rows(image: Image.Image, content: bytes) -> None:
    """Raises `BadSample` for a decoded PNG with too few rows in an intact stream. Pillow leaves the others black.

    content: the file. It is unpacked a second time, so only if the last row is black."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    bits, color, interlaced = content[24], content[25], content[28]
    if interlaced or last.getbbox(alpha_only=False) is not None:  # interlaced: Pillow notices
        return
    size = 1 + -(-image.width * bits * CHANNELS[color] // 8)
    rows = unpacked_size(content, size * image.height) // size
    if rows < image.height:
        raise BadSample(f"damaged image: it ends after {rows:,} of {image.height:,} rows")


def unpacked_size(content: bytes, most: int) -> int:
    """Returns the number of bytes of a PNG's rows, at most `most`."""
    place, size, unpacker = len(PNG), 0, zlib.decompressobj()
    while place < len(content) and size < most and not unpacker.eof:
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            size += len(unpacker.decompress(content[place + 8 : place + 8 + length], most - size))
        place += 12 + length
    return min(size, most)
