"""The contact sheet: which images it has, in which order, and what is under them."""

from types import SimpleNamespace

import numpy as np
import pytest
from odd_data import odd_images, photo
from PIL import Image

from hf_pretext.look import look
from hf_pretext.look.images import TILE, tile_of
from hf_pretext.look.sheet import ABREAST, GAP, LINES, MARGIN, TITLE, Tile, drawn, is_sheet, lines_of, tile
from hf_pretext.look.survey import Row


def place(number: int) -> tuple[slice, slice]:
    """Rows and columns of an image of the first line of the first block."""
    left, top = MARGIN + number % ABREAST * (TILE + GAP), MARGIN + TITLE
    return slice(top, top + TILE), slice(left, left + TILE)


def color(sheet: Image.Image, number: int) -> np.ndarray:
    return np.asarray(sheet)[place(number)][TILE // 2, TILE // 2]


def test_images_are_in_their_order_with_a_second_block_below():
    tiles = [Tile(tile_of(Image.new("RGB", (50, 50), name)), name) for name in ("red", "lime", "blue")]
    sheet = drawn({"images": tiles, "near-duplicates, in pairs": tiles[:2]})
    assert [int(color(sheet, i).argmax()) for i in range(3)] == [0, 1, 2]
    assert sheet.width == 2 * MARGIN + ABREAST * (TILE + GAP) - GAP
    assert sheet.height > drawn({"images": tiles}).height + TITLE + TILE
    assert drawn({"images": tiles * 4}).height > drawn({"images": tiles}).height + TILE  # a second line


def test_small_images_are_enlarged_and_large_ones_reduced():
    for size, shown in (((1, 1), (TILE, TILE)), ((50, 100), (50, 100)), ((1000, 500), (TILE, TILE // 2))):
        sheet = drawn({"images": [Tile(tile_of(Image.new("RGB", size)), "a")]})
        dark = np.asarray(sheet)[place(0)].max(2) < 60
        assert (dark.any(0).sum(), dark.any(1).sum()) == pytest.approx(shown, abs=2)


def test_rows_that_can_not_be_used_are_crossed_out_with_the_reason():
    row = Row("train", "a:0", path="/data/cut.jpg", reasons={"image": "damaged image"})
    made = tile(row, "image")
    assert made == Tile(b"", "cut.jpg: damaged image", alarm=True)
    assert color(drawn({"images": [made]}), 0).tolist() == [207, 34, 46]  # the cross


def test_class_and_caption_are_under_an_image():
    facts = {"image": SimpleNamespace(tile=b"jpeg"), "text": SimpleNamespace(excerpt="a cat")}
    row = Row("train", "a:0", path="/data/1.jpg", facts=facts, label="cats")
    assert tile(row, "image").text == "[cats] a cat"
    assert tile(row, "image", labelled=False, with_split=True).text == "train: a cat"
    del facts["text"]
    assert tile(row, "image").text == "[cats] 1.jpg"


def test_long_texts_are_shortened():
    lines = lines_of("word " * 100)
    assert len(lines) == LINES and lines[-1].endswith("…")
    assert lines_of("a\nb") == ["a b"]


def test_the_sheet_of_a_folder_is_recognised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = look(str(odd_images(tmp_path / "odd")))
    path = tmp_path / "look.png"
    assert report["sheet"] == "look.png" and is_sheet(path)
    photo(1).save(tmp_path / "photo.png")
    assert not is_sheet(tmp_path / "photo.png") and not is_sheet(tmp_path / "odd" / "train" / "dogs" / "text.jpg")
    with Image.open(path) as sheet:
        assert sheet.height > 4 * TILE  # four lines of images, and the pairs
    look(str(tmp_path / "odd"), rows=2)  # replaces it
    with Image.open(path) as smaller:
        assert smaller.height < sheet.height
