"""Mutated images and sounds are decoded or are bad samples; nothing else is raised, and nothing hangs."""

import io
import random

import media
import numpy as np
import pytest
import torch
from mutations import mutated
from PIL import Image

from hf_pretext.data.decoding import BadSample, to_image, to_sound

COUNT = 2000


def image(format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((80, 48)).save(buffer, format)
    return buffer.getvalue()


FILES = {
    **{format: (lambda format=format: image(format), to_image) for format in ("PNG", "JPEG", "WEBP")},
    "WAV": (media.sound, lambda content: to_sound(content, media.RATE, 0.5)),
}


@pytest.mark.parametrize("kind", FILES)
def test_mutated_files_are_decoded_or_bad(kind):
    make, decode = FILES[kind]
    clean, rng, good, bad = make(), random.Random(0), 0, 0
    assert decode(clean).numel()
    for _ in range(COUNT):
        try:
            value = decode(mutated(clean, rng))
        except BadSample as error:
            assert str(error)
            bad += 1
        else:
            assert isinstance(value, torch.Tensor) and value.numel()
            good += 1
    assert good + bad == COUNT and bad
