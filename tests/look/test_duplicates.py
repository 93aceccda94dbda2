"""Copies of rows: which images look alike, and which splits share rows."""

import io

import numpy as np
import pytest
from odd_data import jpeg, photo
from PIL import Image

from hf_pretext.data.decoding import to_rgb
from hf_pretext.look import duplicates as module
from hf_pretext.look.duplicates import described, first_alike, numbered
from hf_pretext.look.images import perceptual
from hf_pretext.look.survey import Row


def pairs_among(images) -> set[tuple[int, int]]:
    signs, colors = map(np.array, zip(*map(perceptual, images), strict=True))
    return {(first, i) for i, first in enumerate(first_alike(signs, colors).tolist()) if first != i}


def decoded(content: bytes) -> Image.Image:
    return to_rgb(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("block", [2, module.BLOCK])
def test_copies_that_were_encoded_or_resized_again_look_alike(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    images = [photo(i) for i in range(8)]
    copies = [decoded(jpeg(images[0], 60)), images[1].resize((100, 67)), images[2].resize((600, 400))]
    assert pairs_among([*images, *copies]) == {(0, 8), (1, 9), (2, 10)}


def test_other_colours_and_other_drawings_on_white_do_not_look_alike():
    grey = photo(0).convert("L").convert("RGB")
    drawings = []
    for place in ((10, 10, 40, 40), (150, 90, 200, 140)):
        image = Image.new("RGB", (200, 200), "white")
        image.paste("red", place)
        drawings.append(image)
    assert pairs_among([photo(0), grey, *drawings]) == set()


def test_faint_patterns_of_the_same_colour_do_not_look_alike():
    random = np.random.default_rng(0)
    patterns = [Image.fromarray(random.integers(126, 131, (8, 9, 3)).astype(np.uint8)) for _ in range(2)]
    assert pairs_among([pattern.resize((180, 160), Image.Resampling.NEAREST) for pattern in patterns]) == set()


def test_many_equal_images_are_all_of_the_first():
    assert first_alike(np.zeros((2000, 64), bool), np.full((2000, 192), 255, np.uint8)).tolist() == [0] * 2000


def test_copies_across_splits_are_of_the_later_one():
    rows = [Row(split, str(i)) for i, split in enumerate(["train", "test", "train", "validation", "test", "test"])]
    found = described(rows, numbered(["a", "a", "a", "b", "b", "c"]))
    assert found["copies"] == 3 and found["share"] == 0.5 and found["largest_group"] == 3
    assert found["across_splits"] == [
        {"split": "test", "also_in": "train", "rows": 1, "share": 1 / 3},
        {"split": "test", "also_in": "validation", "rows": 1, "share": 1 / 3},
    ]
    assert [each["split"] for each in found["examples"][0]["rows"]] == ["train", "test"]


def test_exact_copies_do_not_count_as_near_ones():
    rows = [Row(split, str(i)) for i, split in enumerate(["train", "test", "train", "test"])]
    found = described(rows, numbered("aaab"), numbered("xxyz"))
    assert found["copies"] == 1 and found["across_splits"] == []
    assert [each["key"] for each in found["examples"][0]["rows"]] == ["0", "2"]
