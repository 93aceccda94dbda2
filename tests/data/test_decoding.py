import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hf_pretext.data import decoding
from hf_pretext.data.decoding import (
    BadSample,
    open_image,
    to_image,
    to_pixels,
    to_text,
    upright_size,
)
from hf_pretext.data.limits import Limits

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def encoded(format="PNG", mode="RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def as_pillow(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_are_exact(format):
    content = encoded(format)
    assert torch.equal(to_image({"bytes": content, "path": None}), as_pillow(content))


def test_lossless_webp_and_jpeg():
    assert torch.equal(to_image(encoded("WEBP", lossless=True)), torch.from_numpy(PIXELS).permute(2, 0, 1))
    content = encoded("JPEG", quality=95)
    assert torch.equal(to_image(content), as_pillow(content))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_mode_becomes_rgb(mode):
    format = {"CMYK": "TIFF"}.get(mode, "PNG")
    buffer = io.BytesIO()
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    (deep if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)).save(buffer, format)
    image = to_image(buffer.getvalue())
    assert image.shape == (3, 20, 30) and image.dtype == torch.uint8


def test_upright_as_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    content = encoded("JPEG", exif=exif.tobytes(), quality=95)
    assert to_image(content).shape == (3, 30, 20)


def test_a_path_a_pillow_image_and_bytes_give_the_same(tmp_path):
    content = encoded()
    (tmp_path / "a.png").write_bytes(content)
    expected = to_image(content)
    assert torch.equal(to_image({"bytes": None, "path": str(tmp_path / "a.png")}), expected)
    assert torch.equal(to_image(Image.open(io.BytesIO(content))), expected)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty image: the file or value has 0 bytes"),
        (b"hello", "not an image"),
        (encoded()[:200], "damaged"),
        (encoded("JPEG")[:150], "damaged|not an image"),
        (encoded("WEBP")[:100], "damaged|not an image"),
        ({"bytes": None, "path": None}, "neither bytes nor a path"),
        ({"bytes": None, "path": "/no/such.png"}, "unreadable file: No such file"),
        (None, "image is NoneType, not bytes"),
        (7, "image is int, not bytes"),
    ],
)
def test_invalid_images_are_bad_samples(value, reason):
    with pytest.raises(BadSample, match=reason):
        to_image(value)


def test_a_huge_image_is_refused_by_its_header(monkeypatch):
    with pytest.raises(BadSample, match="30x20 pixels, more than 500"):
        to_image(encoded(), Limits(pixels=500))
    assert to_image(encoded(), Limits(pixels=600)).shape == (3, 20, 30)


def test_a_decompression_bomb_is_refused_before_its_memory_is_taken():
    """A PNG of 20,000 x 20,000 grey pixels: 390 kB here, 400 MB decoded."""
    code = (
        "import io, resource, struct, sys, zlib\n"
        "from hf_pretext.data.decoding import BadSample, to_image\n"
        "def chunk(kind, data):\n"
        "    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n"
        "packer = zlib.compressobj(9)\n"
        "rows = b''.join([packer.compress(bytes(20_001 * 100)) for _ in range(200)]) + packer.flush()\n"
        "header = struct.pack('>IIBBBBB', 20_000, 20_000, 8, 0, 0, 0, 0)\n"
        "png = b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    to_image(png)\nexcept BadSample as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    reason, kilobytes = done.stdout.strip().splitlines()[-2:]
    assert "pixels" in reason
    assert int(kilobytes) < 100_000


def test_deep_grey_is_scaled_not_cut_off():
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    for format in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, format)
        expected = torch.from_numpy((values / 257).round().astype(np.uint8)).expand(3, 20, 30)
        assert torch.equal(to_image(buffer.getvalue()), expected)


def test_transparent_pixels_are_blended_with_white():
    picture = np.zeros((4, 4, 4), np.uint8)  # black and transparent, except for one pixel of half opacity
    picture[0, 0] = (255, 0, 0, 128)
    for mode in ("RGBA", "P"):
        buffer = io.BytesIO()
        image = Image.fromarray(picture)
        if mode == "P":
            image = image.quantize(2)
        image.save(buffer, "PNG")
        found = to_image(buffer.getvalue())
        assert found[:, 3, 3].tolist() == [255, 255, 255]
    assert to_image(Image.fromarray(picture))[:, 0, 0].tolist() == [255, 127, 127]


def test_grey_cmyk_and_animations_come_out_right():
    grey = Image.fromarray(PIXELS[..., 0])
    assert torch.equal(to_image(grey), torch.from_numpy(PIXELS[..., 0].copy()).expand(3, 20, 30))
    cmyk = Image.merge("CMYK", [Image.new("L", (8, 8), v) for v in (0, 255, 255, 0)])  # red ink
    for format in ("TIFF", "JPEG"):
        buffer = io.BytesIO()
        cmyk.save(buffer, format)
        r, g, b = to_image(buffer.getvalue())[:, 4, 4].tolist()
        assert r > 240 and g < 15 and b < 15
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        buffer = io.BytesIO()
        frames[0].save(
            buffer, format, save_all=True, append_images=frames[1:], **{"lossless": True} if format == "WEBP" else {}
        )
        assert to_image(buffer.getvalue())[:, 4, 4].tolist() == [255, 0, 0]


def test_floating_point_pixels_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(buffer, "TIFF")
    with pytest.raises(BadSample, match="range is unknown"):
        to_image(buffer.getvalue())


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_is_decoded_smaller_and_alike(shrink):
    picture = Image.fromarray(PIXELS).resize((640, 480), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    small = to_pixels(open_image(buffer.getvalue()), shrink)
    assert small.shape == (3, 480 // shrink, 640 // shrink)
    expected = torch.from_numpy(np.array(picture.resize((640 // shrink, 480 // shrink), Image.Resampling.BOX)))
    assert (small.permute(1, 2, 0).float() - expected.float()).abs().mean() < 4


@pytest.mark.parametrize("format", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_known_before_decoding(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(format, exif=exif if format == "TIFF" else exif.tobytes())
    assert Image.open(io.BytesIO(content)).getexif().get(0x0112) == orientation
    assert upright_size(open_image(content)) == tuple(to_image(content).shape[1:])


def test_noise_in_an_image_raises_only_bad_sample():
    random = np.random.default_rng(0)
    contents = [encoded(f) for f in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]
    for i in range(300):
        content = bytearray(contents[i % len(contents)])
        for place in random.integers(len(content), size=8):
            content[place] = random.integers(256)
        try:
            assert to_image(bytes(content)).shape[0] == 3
        except BadSample as error:
            assert str(error)


@pytest.mark.parametrize(
    ("value", "reason"),
    [("", "blank"), (" \n", "blank"), (None, "NoneType"), (b"a", "bytes"), ("a\ud83d", "half a surrogate pair")],
)
def test_text(value, reason):
    assert to_text("a word") == "a word"
    with pytest.raises(BadSample, match=reason):
        to_text(value)


def test_formats_that_run_programs_are_not_tried():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
    with pytest.raises(BadSample, match="not an image"):
        to_image(postscript)


def test_a_missing_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_pretext\[video\]'"):
        decoding.needed("av", "video")
