"""Cues of captions and of image files."""

import io

import numpy as np
import PIL.Image
import pytest
import torch

from hf_pretext.modules.caption_cues import CAPTION_LENGTH, FILE_SIZE, JPEG_TABLES

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def stored(mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).convert(mode).save(buffer, **options)
    return buffer.getvalue()


def test_the_length_of_a_caption_is_that_without_padding():
    assert CAPTION_LENGTH.read(torch.tensor([[5, 0, 7], [5, -1, -1]])).tolist() == [[3], [1]]
    assert CAPTION_LENGTH.kind == "text"


def test_size_of_a_file():
    assert FILE_SIZE.read([b"a", b"a" * 1024]).tolist() == [[0], [10]]


def test_quality_of_a_file():
    fine, coarse, png = stored(format="JPEG", quality=95), stored(format="JPEG", quality=20), stored(format="PNG")
    gray = stored("L", format="JPEG", quality=20)
    means = JPEG_TABLES.read([fine, coarse, png, gray])
    tables = PIL.Image.open(io.BytesIO(fine)).quantization
    assert means[0].tolist() == pytest.approx([np.mean(tables[0]), np.mean(tables[1])])
    assert (means[1] > 5 * means[0]).all()
    assert means[2].tolist() == [0, 0]
    assert means[3].tolist() == [means[1, 0], means[1, 0]]  # a grey image has the table of brightness alone
