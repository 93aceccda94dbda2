"""Mutated images, sounds and films are decoded or are bad samples; nothing else is raised, and nothing hangs."""

import io
import random

import numpy as np
import pytest
import torch
from made_clips import KINDS, RATE, made_film, made_m4a, sound_file, tone
from mutations import mutated
from PIL import Image

from hf_pretext.data.clips import to_clip
from hf_pretext.data.decoding import BadSample, to_image
from hf_pretext.data.limits import Limits

COUNT = 2000  # of images
SOUNDS = ("WAV", "FLAC", "OGG", "MP3", "AIFF", "m4a", "aac")
LIMITS = Limits(pixels=10**6)  # as a mutated size is of any number of pixels


def image(format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((80, 48)).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_mutated_images_are_decoded_or_bad(format):
    clean, rng, good, bad = image(format), random.Random(0), 0, 0
    assert to_image(clean).numel()
    for _ in range(COUNT):
        try:
            value = to_image(mutated(clean, rng))
        except BadSample as error:
            assert str(error)
            bad += 1
        else:
            assert isinstance(value, torch.Tensor) and value.numel()
            good += 1
    assert good + bad == COUNT and bad


def clips_of(cleans: list[bytes], count: int, frames: int) -> tuple[int, int]:
    """Decodes clips of mutated files, from the start, middle and end. Returns the numbers of good and bad ones."""
    rng, good, bad = random.Random(0), 0, 0
    for i in range(count):
        content = mutated(cleans[i % len(cleans)], rng)
        at, rate = (0.0, 0.5, 1.0)[i % 3], None if frames and i % 2 else RATE
        try:
            clip = to_clip(content, 0.5, 8, frames, at, rate, min_loudness=-80.0, limits=LIMITS)
        except BadSample as error:
            assert str(error)
            bad += 1
        else:
            assert rate is None or (clip.sound.shape == (RATE // 2,) and torch.isfinite(clip.sound).all())
            assert not frames or clip.frames.shape[:2] == (frames, 3)
            assert 0 <= clip.start < float("inf")
            good += 1
    assert good + bad == count
    return good, bad


def sound(format: str) -> bytes:
    if format in ("m4a", "aac"):
        return made_m4a(tone(1.5), format={"m4a": "ipod", "aac": "adts"}[format])
    return sound_file(tone(1.5), format=format)


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_sounds_are_decoded_or_bad(count):
    good, bad = clips_of([sound(format) for format in SOUNDS], count, 0)
    assert good > count / 20 and bad > count / 20


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_films_are_decoded_or_bad(count):
    good, bad = clips_of([made_film(kind, seconds=1.5) for kind in KINDS], count, 4)
    assert good > count / 20 and bad > count / 20
