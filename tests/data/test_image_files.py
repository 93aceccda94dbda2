import io
import struct
import zlib

import pytest
import torch
from PIL import Image

from hf_pretext.data import image_files
from hf_pretext.data.decoding import BadSample, to_image

SIDE = 64  # pixels
IMAGE = Image.effect_noise((SIDE, SIDE), 50)


def encoded(format: str, image=IMAGE, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def huffman(table: int, symbol: int) -> bytes:
    """A table of one symbol, whose code is the bit 0."""
    return segment(0xC4, bytes([table, 1, *[0] * 15, symbol]))


def progressive(scans: int) -> bytes:
    """A grey JPEG of 64 blocks. One scan has their means, each other scan says in two bytes that it changes nothing."""
    means = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(8)  # 64 bits: no difference to the block before
    nothing = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x00\x01"  # the next 2 ** 14 blocks have no more values
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, bytes([0, *[1] * 64])),
            segment(0xC2, struct.pack(">BHHB3B", 8, SIDE, SIDE, 1, 1, 0x11, 0)),
            huffman(0x00, 0),
            huffman(0x10, 0xE0),
            means,
            nothing * (scans - 1),
            b"\xff\xd9",
        ]
    )


def test_a_jpeg_of_too_many_scans_is_refused_by_their_number(monkeypatch):
    assert torch.equal(to_image(progressive(image_files.SCANS)), torch.full((3, SIDE, SIDE), 128, dtype=torch.uint8))
    monkeypatch.setattr(Image, "open", None)  # not even opened
    with pytest.raises(BadSample, match="2,000 scans of a JPEG, more than 100"):
        to_image(progressive(2000))


def test_only_scans_of_the_image_itself_count():
    ordinary = encoded("JPEG", progressive=True)
    assert 5 < image_files.count_scans(ordinary, ordinary.index(b"\xff\xda")) < 15
    expected = to_image(ordinary)
    more = image_files.SCAN * 200
    assert torch.equal(to_image(ordinary + more), expected)  # the video of a motion photo follows the image
    assert torch.equal(to_image(ordinary[:2] + segment(0xE5, more) + ordinary[2:]), expected)
    hidden = progressive(100)[:-2] + segment(0xFE, more) + progressive(2000)[-2002:]
    with pytest.raises(BadSample, match="scans of a JPEG"):
        to_image(hidden)


@pytest.mark.parametrize("start", [segment(0xFE, b"a") * 1000, b"\xff" * 1000, bytes(1000)])
def test_a_jpeg_of_too_many_segments_is_refused(start):
    content = encoded("JPEG")
    first = 4 + int.from_bytes(content[4:6], "big")
    assert to_image(content[:first] + start[: len(start) * 9 // 10] + content[first:]).shape == (3, SIDE, SIDE)
    with pytest.raises(BadSample, match="more than 1,000 segments"):
        to_image(content[:first] + start + content[first:])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_png_of_too_many_chunks_or_of_huge_texts_is_refused():
    content = encoded("PNG")
    header, rest = content[:33], content[33:]
    assert torch.equal(to_image(header + chunk(b"teSt", b"") * 1000 + rest), to_image(content))
    with pytest.raises(BadSample, match="more than 100,000 chunks"):
        to_image(header + chunk(b"teSt", b"") * 100_000 + rest)
    for kind in (b"zTXt", b"iCCP"):  # 10 MB in 10 kB
        with pytest.raises(BadSample, match="too large"):
            to_image(header + chunk(kind, b"k\0\0" + zlib.compress(bytes(10**7))) + rest)
