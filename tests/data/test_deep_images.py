import io

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from hf_pretext.data.decoding import BadSample, to_image

RAMP = np.arange(4096).reshape(64, 64)
EIGHT_BITS = torch.from_numpy((RAMP / 4095 * 255).round().astype(np.uint8)).expand(3, 64, 64)


def tiff(values: np.ndarray, tags=None, types=None) -> bytes:
    info, buffer = TiffImagePlugin.ImageFileDirectory_v2(), io.BytesIO()
    for tag, value in (tags or {}).items():
        info[tag] = value
    Image.fromarray(values).save(buffer, "TIFF", tiffinfo=info)
    return buffer.getvalue()


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def packed() -> bytes:
    """A TIFF of 12 bits a sample: two samples in three bytes."""
    content, (a, b) = bytearray(tiff(RAMP.astype(np.uint16))), RAMP.reshape(-1, 2).T
    data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    directory = int.from_bytes(content[4:8], "little")
    for i in range(int.from_bytes(content[directory : directory + 2], "little")):
        entry = directory + 2 + 12 * i
        tag = int.from_bytes(content[entry : entry + 2], "little")
        value = {258: 12, 279: len(data), 273: len(content)}.get(tag)
        if value is not None:
            content[entry + 8 : entry + 12] = value.to_bytes(4, "little")
    return bytes(content) + data


def test_all_16_bit_values_are_scaled_as_before():
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = torch.from_numpy((values.astype(np.float32) / 257).round().astype(np.uint8)).expand(3, 256, 256)
    assert torch.equal(to_image(png(values)), expected)
    assert torch.equal(to_image(tiff(values)), expected)


@pytest.mark.parametrize(
    "content",
    [
        packed(),
        tiff(RAMP.astype(np.uint16), {281: 4095}),
        tiff(RAMP.astype(np.int32), {281: 4095}),
        tiff(RAMP[::-1, ::-1].astype(np.uint16), {281: 4095, 262: 0}),  # 0 is white
    ],
)
def test_the_range_is_what_a_tiff_states(content):
    assert torch.equal(to_image(content), EIGHT_BITS)


def test_values_below_zero_are_not_cut_off():
    """An X-ray in Hounsfield units, for example."""
    for tags in ({340: -1024, 341: 3071}, {340: -1024.0, 281: 3071}):
        assert torch.equal(to_image(tiff((RAMP - 1024).astype(np.int32), tags)), EIGHT_BITS)


def test_the_range_of_32_bit_integers_in_memory_is_unknown():
    with pytest.raises(BadSample, match="32-bit integers, and their range is unknown"):
        to_image(Image.fromarray((RAMP * 2**10).astype(np.int32)))


@pytest.mark.parametrize("values", [RAMP, RAMP * 2**19, RAMP // 4095])
def test_32_bit_integers_without_a_range_are_refused(values):
    with pytest.raises(BadSample, match="32-bit integers, and their range is unknown"):
        to_image(tiff(values.astype(np.int32)))


def colors(highest: int) -> bytes:
    """A PNG of 16-bit colours, which Pillow reads but does not write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + struct.pack(">3H", 0, highest, 0) * 4 for _ in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("make", [lambda highest: png(np.full((4, 4), highest, np.uint16)), colors])
def test_12_bits_in_16_are_refused_not_almost_black(make):
    assert to_image(make(0)).max() == 0
    assert to_image(make(4096)).max() == 16
    assert to_image(make(65535)).max() == 255
    with pytest.raises(BadSample, match="without a value above 4,095"):
        to_image(make(4095))


def grey(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.clip(0, 255).round().astype(np.uint8)).expand(3, *values.shape)


@pytest.mark.parametrize(
    "content",
    [
        png(RAMP.astype(np.uint16)),
        packed(),
        tiff(RAMP.astype(np.int32)),
        tiff(RAMP.astype(np.float32)),
        tiff(RAMP.astype(np.uint16), {281: 3000}),  # the highest value of this image
        tiff(RAMP[::-1, ::-1].astype(np.uint16), {262: 0}),  # 0 is white
        tiff((RAMP.astype(np.int32)), {340: 0, 341: 65535}),
        b"P5 64 64 4095\n" + RAMP.astype(">u2").tobytes(),
    ],
)
def test_white_is_the_value_asked_for(content):
    assert torch.equal(to_image(content, white=4095), EIGHT_BITS)


def test_near_and_far_scenes_have_the_same_scale_of_white():
    near, far = (np.linspace(0, highest, 64).reshape(8, 8).astype(np.uint16) for highest in (3000, 9000))
    for values in (near, far, far * 2):  # beyond 10 m all is white
        assert torch.equal(to_image(png(values), white=10000), grey(values.astype(np.float32) * (255 / 10000)))


def test_signed_values_keep_the_black_of_the_file_with_another_white():
    signed = Image.fromarray(np.zeros((64, 64), np.int32))  # values below 0 are black
    signed.putdata([int(value) - 100 for value in RAMP.flat])
    buffer = io.BytesIO()
    signed.save(buffer, "TIFF")
    assert torch.equal(to_image(buffer.getvalue(), white=2000), grey((RAMP - 100) * (255 / 2000)))
    content = tiff((RAMP - 1024).astype(np.int32), {340: -1024, 341: 9999})
    assert torch.equal(to_image(content, white=3071), EIGHT_BITS)
    with pytest.raises(BadSample, match="lowest value of its pixels is 5000, and the highest 4095"):
        to_image(tiff(RAMP.astype(np.int32), {340: 5000}), white=4095)


def test_white_changes_no_image_of_8_bits():
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for content in (png(values), png(values[..., 0]), tiff(values), tiff(values[..., 0])):
        assert torch.equal(to_image(content, white=4095), to_image(content))


def test_colors_of_16_bits_are_refused_with_another_white():
    for highest in (4095, 65535):
        with pytest.raises(BadSample, match="16-bit colours are read with 8 bits: --image_white 4095 can't scale them"):
            to_image(colors(highest), white=4095)
    assert to_image(colors(4095), white=65535).max() == 15  # no check of dark images


def test_a_missing_range_names_the_option_and_nan_is_refused():
    values = RAMP.astype(np.float32)
    for content in (tiff(values), tiff(RAMP.astype(np.int32)), png(RAMP.astype(np.uint16))):
        with pytest.raises(BadSample, match="--image_white"):
            to_image(content)
    values[3, 3] = np.nan
    with pytest.raises(BadSample, match="NaN"):
        to_image(tiff(values), white=4095)
