"""Makes images, and reads all rows of a source."""

import io

from PIL import Image


def png(color=0, size=(8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (color, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def all_rows(source):
    return [row for piece, count in enumerate(source.counts) for row in source.read(piece, 0, count)]
