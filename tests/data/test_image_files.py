import io
import struct
import tracemalloc
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
    with pytest.raises(BadSample, match="more than 100 scans of a JPEG"):
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


def test_segments_between_the_scans_of_a_jpeg_are_counted_too():
    """Each costs a step in Python: 20 MB of them took eight seconds."""
    content = encoded("JPEG")
    scans = segment(0xE1, image_files.SCAN * 200)  # so many bytes that look like scans are counted one by one
    assert to_image(content[:-2] + segment(0xE1, b"") * 900 + scans + content[-2:]).shape == (3, SIDE, SIDE)
    with pytest.raises(BadSample, match="more than 1,000 segments between the scans"):
        to_image(content[:-2] + segment(0xE1, b"") * 1001 + scans + content[-2:])


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


def short_png(rows: int, side=SIDE, mode="RGB", interlaced=0) -> bytes:
    """A PNG whose header says `side` rows, with an intact stream of fewer rows."""
    channels, color = {"RGB": (3, 2), "L": (1, 0), "RGBA": (4, 6)}[mode]
    header = struct.pack(">IIBBBBB", side, side, 8, color, 0, 0, interlaced)
    stream = zlib.compress((b"\0" + bytes([7] * side * channels)) * rows)
    parts = (stream[: len(stream) // 2], stream[len(stream) // 2 :])
    chunks = [chunk(b"IHDR", header), *(chunk(b"IDAT", part) for part in parts), chunk(b"IEND", b"")]
    return image_files.PNG + b"".join(chunks)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_png_of_too_few_rows_is_damaged(mode):
    assert to_image(short_png(SIDE, mode=mode)).shape == (3, SIDE, SIDE)
    with pytest.raises(BadSample, match="ends after 10 of 2,000 rows"):
        to_image(short_png(10, 2000, mode))
    for rows in (1, 10, SIDE - 1):
        with pytest.raises(BadSample, match="damaged image"):
            to_image(short_png(rows, mode=mode))
        with pytest.raises(BadSample, match="damaged image"):
            to_image(short_png(rows // 2, mode=mode, interlaced=1))


def test_the_rows_of_a_black_png_are_counted_without_the_memory_of_what_follows():
    stream = zlib.compress(bytes(10**8))  # 100 kB, for an image of 72 bytes
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    content = image_files.PNG + header + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    tracemalloc.start()
    assert to_image(content).shape == (3, 8, 8)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10**7


def test_the_first_frame_of_a_gif_may_be_smaller_than_the_image():
    content = bytearray(encoded("GIF"))
    content[6:10] = struct.pack("<HH", SIDE, SIDE + 9)
    assert to_image(bytes(content)).shape == (3, SIDE + 9, SIDE)


def test_a_png_with_a_black_last_row_is_intact():
    for mode, color in (("RGB", "black"), ("L", 0), ("RGBA", (0, 0, 0, 0)), ("P", 0), ("1", 0), ("I;16", 0)):
        for format in ("PNG", "TIFF", "GIF", "BMP") if mode in ("RGB", "L", "1") else ("PNG",):
            assert to_image(encoded(format, Image.new(mode, (30, 20), color))).shape == (3, 20, 30)


def test_a_tiff_without_its_last_strips_is_damaged():
    content = bytearray(encoded("TIFF"))
    directory = int.from_bytes(content[4:8], "little")
    for i in range(int.from_bytes(content[directory : directory + 2], "little")):
        entry = directory + 2 + 12 * i
        if content[entry : entry + 2] == (257).to_bytes(2, "little"):  # ImageLength; rows of a strip stay
            content[entry + 8 : entry + 12] = (SIDE + 9).to_bytes(4, "little")
    with pytest.raises(BadSample, match=f"ends after {SIDE} of {SIDE + 9} rows"):
        to_image(bytes(content))


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
    ],
)
def test_a_file_cut_at_any_byte_is_damaged_or_complete(format, options):
    """A few formats end with bytes that no pixel needs."""
    image = IMAGE.resize((16, 16)).convert("RGB")
    content = encoded(format, image, **options)
    expected, taken = to_image(content), 0
    for length in range(len(content)):
        try:
            assert torch.equal(to_image(content[:length]), expected)
            taken += 1
        except BadSample:
            pass
    assert taken < 30
