import io

import numpy as np
import pytest
import torch
from PIL import Image

from hf_pretext.data import decoding
from hf_pretext.data.decoding import BadSample, to_image

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
    (
        Image.fromarray(PIXELS[..., 0].astype(np.uint16)) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    ).save(buffer, format)
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
        (b"", "not a picture"),
        (b"hello", "not a picture"),
        (encoded()[:200], "damaged"),
        (encoded("JPEG")[:150], "damaged|not a picture"),
        (encoded("WEBP")[:100], "damaged|not a picture"),
        ({"bytes": None, "path": None}, "neither bytes nor a path"),
        ({"bytes": None, "path": "/no/such.png"}, "unreadable file: No such file"),
        (None, "no picture but NoneType"),
        (7, "no picture but int"),
    ],
)
def test_what_is_no_picture_is_a_bad_sample(value, reason):
    with pytest.raises(BadSample, match=reason):
        to_image(value)


def test_a_huge_picture_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 500)
    with pytest.raises(BadSample, match="30x20 pixels, more than 500"):
        to_image(encoded())


def test_formats_that_run_programs_are_not_tried():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
    with pytest.raises(BadSample, match="not a picture"):
        to_image(postscript)
