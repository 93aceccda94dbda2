"""AVIF and HEIC: read if Pillow or its extra can, else named with the package."""

import io

import pytest
from made_images import all_rows
from PIL import Image, features

from hf_pretext.data import image_suffixes as formats
from hf_pretext.data.decoding import BadSample, open_image, to_image, upright_size
from hf_pretext.data.sources import open_source


@pytest.fixture(autouse=True)
def new_suffixes():
    """The suffixes depend on what is installed, which tests change."""
    yield formats.image_suffixes.cache_clear()
    formats.image_suffixes.cache_clear()


@pytest.fixture
def no_heic(monkeypatch):
    monkeypatch.setattr(formats, "has_heic", lambda: False)


def content(kind, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), (200, 0, 0)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_an_image(tmp_path, no_heic):
    (tmp_path / "a.avif").write_bytes(content("AVIF"))
    (row,) = all_rows(open_source(str(tmp_path)))
    assert abs(to_image(row["image"]).float().mean((1, 2)) - torch_of(200, 0, 0)).max() < 4


def torch_of(*numbers):
    import torch

    return torch.tensor(numbers, dtype=torch.float)


def test_heic_is_an_image_with_the_extra(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (tmp_path / "a.HEIC").write_bytes(content("HEIF", exif=exif.tobytes()))
    (row,) = all_rows(open_source(str(tmp_path)))
    image = open_image(row["image"])
    pixels = to_image(row["image"])
    assert upright_size(image) == tuple(pixels.shape[1:]) == (32, 16)
    assert abs(pixels.float().mean((1, 2)) - torch_of(200, 0, 0)).max() < 4


def test_heic_without_its_package_is_a_bad_sample_that_names_it(no_heic):
    with pytest.raises(BadSample, match=r"HEIC can't be read without a package: pip install 'hf_pretext\[heic\]'"):
        to_image(b"\0\0\0\x18ftypheic" + bytes(100))


def test_other_content_needs_no_package(monkeypatch):
    monkeypatch.setattr(formats, "register_heic", None)
    assert formats.further_formats(content("PNG")) == formats.further_formats(b"\0\0\0\x18ftypisom") == ()
