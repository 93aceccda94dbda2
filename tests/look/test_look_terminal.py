"""What `hf-pretext look` prints."""

import pytest
from odd_data import REVIEWS, odd_images

from hf_pretext import cli
from hf_pretext.look.wording import ends, in_bytes, in_words, part, shares


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys, cache):
    """What the command prints, with one space between words."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["look", *map(str, arguments)])
        assert ended.value.code is None, ended.value.code
        return " ".join(capsys.readouterr().out.split())

    return run


def test_a_folder_of_images(printed, tmp_path):
    text = printed(odd_images(tmp_path / "odd"))
    for line in (
        "looked at all rows: 28",
        "images in 'image', classes in 'label'",
        "24 images. Width 1 to 350 (median 315), height 1 to 900 (median 200) pixels",
        "formats: JPEG (83.3 %), PNG (12.5 %), GIF (4.2 %). Median size of a file:",
        "tiny (a side below 32 pixels): 1 (4.2 %)",
        "rows that can't be used: 4 (14.3 %). Training takes other rows in their place.",
        "These are more than 5 %: training stops.",
        "1: not an image (train odd/train/dogs/text.jpg)",
        "images that are exact copies of another one: 2 (8.3 %)",
        "test and train: 1 (16.7 % of test). Metrics on them are too good",
        "images that look like another one, re-encoded or resized: 2 (8.3 %)",
        "train odd/train/dogs/5.jpg = test odd/test/dogs/small leak.jpg",
        "largest: dogs (17), cats (11)",
        "It is the time of the data only, not of the model.",
        "1 files are left out, by suffix: 1 .xyz",
        "look.png: open it to see the data",
        "hf-pretext train rotation --dataset",
    ):
        assert line in text, line


def test_a_sample_says_so(printed):
    text = printed("emoji", "--rows", 20)
    assert "looked at 60 of 4,552 rows, evenly spaced. What follows is about these rows." in text
    assert "--rows 3448 looks at all of them. Reading and decoding them takes" in text
    assert "copies of rows that were not looked at are not counted" in text
    assert "no column of classes was detected" in text and "modes: RGB formats: WEBP." in text


def test_texts_are_no_markup(printed, tmp_path):
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    text = printed("reviews.csv", "--column", "review", "--label", "sentiment")
    assert "[red]bad[/]" in text and "Training leaves them out." in text and "training stops" not in text
    assert "2: blank text" in text or "1: no text" in text
    assert "looked at all rows: 7" in text


def test_a_folder_of_nothing_but_damage(printed, tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "1.jpg").write_text("?")
    assert "No row that was looked at can be used." in printed("damaged")


def test_an_error_is_one_line(tmp_path, cache):
    with pytest.raises(SystemExit) as ended:
        cli.main(["look", str(tmp_path)])
    assert ended.value.code.startswith("error: --dataset") and "\n" not in ended.value.code


def test_numbers_in_words():
    assert ends({"min": 2, "median": 2.5, "max": 1200}) == "2 to 1,200 (median 2.5)"
    assert ends({"min": 3.0, "median": 3.0, "max": 3.0}) == "3"
    assert [part(0, 9), part(3, 9), part(1, 9000)] == ["none", "3 (33.3 %)", "1 (<0.1 %)"]
    assert shares({"JPEG": 3, "PNG": 1}, 4) == "JPEG (75 %), PNG (25 %)" and shares({"JPEG": 3}, 3) == "JPEG"
    assert [in_bytes(1), in_bytes(999), in_bytes(5.5e6), in_bytes(2e12)] == [
        "1 byte", "999 bytes", "5.5 MB", "2,000.0 GB",
    ]  # fmt: skip
    assert [in_words(0.01), in_words(1), in_words(80), in_words(150), in_words(9000)] == [
        "less than 0.1 seconds", "1 second", "80 seconds", "2.5 minutes", "2.5 hours",
    ]  # fmt: skip
