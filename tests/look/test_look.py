"""What `look` says of data sets: embedded ones, odd images, texts, films, sounds, shards, tables of paths."""

import io
import json
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media import film, sound, video
from odd_data import REVIEWS, jpeg, odd_images, photo

from hf_pretext.data.sources import open_source
from hf_pretext.look import look
from hf_pretext.look.survey import MOST_PIECES, Clock, chosen_places, rows_passed


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return odd_images(tmp_path_factory.mktemp("data") / "odd")


@pytest.fixture(scope="module")
def odd_report(odd, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        return look(str(odd))


def reasons(report) -> dict[str, int]:
    return {each["reason"].partition(":")[0]: each["rows"] for each in report["unreadable"]["reasons"]}


def names(pair) -> set[str]:
    return {each.get("path", each["key"]).rpartition("/")[2] for each in pair["rows"]}


def test_an_embedded_data_set_by_its_name(tmp_path):
    report = look("emoji", rows=100, json_file="report.json")
    assert {split: each["rows"] for split, each in report["splits"].items()} == {
        "train": 3448, "validation": 435, "test": 669,
    }  # fmt: skip
    assert [each["looked_at"] for each in report["splits"].values()] == [100] * 3
    assert report["columns"] == {"image": "image", "text": "text"} and "keywords" in report["other_columns"]
    assert report["image"]["frequent_sizes"] == {"64x64": 300} and report["image"]["formats"] == {"WEBP": 300}
    assert report["text"]["words"]["min"] >= 1 and report["unreadable"]["rows"] == 0
    assert report["next"][0].startswith("hf-pretext train contrastive --dataset emoji ")
    written = json.loads((tmp_path / "report.json").read_text())
    assert {**written, "written_by": None} == {"written_by": None, **report}
    look("emoji", rows=2, json_file="report.json")  # its own report and sheet are replaced


def test_images_of_odd_formats(odd_report):
    facts = odd_report["image"]
    assert odd_report["splits"]["train"] | {"bytes": 0, "lost": []} == {
        "rows": 22, "looked_at": 22, "unreadable": 4, "bytes": 0, "files": 22, "lost": [],
    }  # fmt: skip
    assert facts["count"] == 24 and facts["width"] == {"min": 1, "median": 315, "max": 350}
    assert facts["modes"] == {
        "RGB": 20, "palette": 1, "CMYK": 1, "greyscale, 16 bits": 1, "RGB with transparency": 1,
    }  # fmt: skip
    assert facts["formats"] == {"JPEG": 20, "PNG": 3, "GIF": 1}
    assert (facts["tiny"], facts["elongated"], facts["animations"]) == (1, 1, 1)
    assert odd_report["classes"]["largest"] == [{"class": "dogs", "rows": 17}, {"class": "cats", "rows": 11}]
    assert any("1 .xyz" in note for note in odd_report["notes"])


def test_images_that_can_not_be_used_have_the_reasons_of_training(odd_report):
    assert odd_report["unreadable"]["rows"] == 4
    assert reasons(odd_report) == {
        "16-bit pixels without a value above 4,095": 1, "damaged image": 1, "empty image": 1, "not an image": 1,
    }  # fmt: skip
    first = {each["first"][0]["path"].rpartition("/")[2] for each in odd_report["unreadable"]["reasons"]}
    assert first == {"deep12.png", "cut.jpg", "empty.jpg", "text.jpg"}


def test_copies_within_a_split_and_across(odd_report):
    exact, near = odd_report["duplicates"]["exact"], odd_report["duplicates"]["near"]
    assert exact["copies"] == near["copies"] == 2
    for found in (exact, near):
        assert found["across_splits"] == [{"split": "test", "also_in": "train", "rows": 1, "share": 1 / 6}]
    assert [names(pair) for pair in exact["examples"]] == [{"4.jpg", "leak.jpg"}, {"3.jpg", "copy of 3.jpg"}]
    assert [names(pair) for pair in near["examples"]] == [{"5.jpg", "small leak.jpg"}, {"1.jpg", "cmyk.jpg"}]


def test_what_to_do_next_evaluates_on_the_classes(odd, odd_report):
    options = f"--dataset {odd} --eval_dataset {odd} --output_dir runs/mine"
    assert odd_report["next"] == [
        f"hf-pretext train rotation {options}",
    ]  # fmt: skip


def test_texts_of_a_table(tmp_path):
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    report = look("reviews.csv", column="review", label="sentiment")
    assert report["columns"] == {"text": "review", "label": "sentiment"} and report["other_columns"] == {"id": "int64"}
    assert report["text"]["count"] == 5 and report["text"]["empty"] == 2 == report["unreadable"]["rows"]
    assert report["text"]["frequent"] == [{"text": "A good film", "count": 2}]
    duplicates = report["duplicates"]
    assert duplicates["exact"]["copies"] == 1 and duplicates["near"]["copies"] == 1
    assert report["examples"][0]["text"] == "A good film" and "sheet" not in report
    assert "--text_column review" in report["next"][0] and "--eval_label sentiment" in report["next"][0]
    assert not list(tmp_path.glob("*.png"))


def test_texts_of_an_embedded_data_set():
    report = look("shakespeare", rows=40)
    assert report["columns"] == {"text": "text"} and report["duplicates"]["exact"]["copies"] == 0
    assert report["next"][0].startswith("hf-pretext train masked_lm ")
    assert len(report["examples"]) == 8


def test_options_for_reading_reach_the_reader_and_the_next_command(tmp_path):
    (tmp_path / "a.csv").write_bytes("text|class\nété|a\nhiver|b\n".encode("cp1252"))
    report = look("a.csv", encoding="cp1252", separator="|")
    assert [each["text"] for each in report["examples"]] == ["été", "hiver"]
    assert "--encoding cp1252 --separator '|'" in report["next"][0]


def test_one_split(odd):
    report = look(str(odd), split="test")
    assert [*report["splits"]] == ["test"] and report["image"]["count"] == 6
    with pytest.raises(ValueError, match="has no split 'valid'. Choose one of: test, train"):
        look(str(odd), split="valid")


def test_a_folder_of_tests_alone(tmp_path):
    (tmp_path / "images" / "test").mkdir(parents=True)
    photo(1).save(tmp_path / "images" / "test" / "1.jpg")
    assert [*look("images")["splits"]] == ["test"]


def test_films_with_their_texts(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.mp4").write_bytes(film(2 + i))
        (folder / f"{i}.txt").write_text(f"a film of {2 + i} seconds")
    (folder / "mute.mp4").write_bytes(video(10))
    (folder / "cut.mp4").write_bytes(film(2)[:3000])
    (folder / "again.mp4").write_bytes(film(3))
    report = look("films")
    films = report["video"]
    assert films["count"] == 5 and films["with_sound"] == 4 and films["shorter_than_a_clip"] == 1
    assert films["sampling_rates"] == {"16000": 4} and films["fps"]["median"] == 10
    assert films["seconds"]["max"] == pytest.approx(4, abs=0.1) and films["frequent_sizes"] == {"64x48": 5}
    assert reasons(report) == {"text": 3, "video": 1} and report["text"]["empty"] == 3
    assert report["duplicates"]["kind"] == "video" and "near" not in report["duplicates"]
    assert names(report["duplicates"]["exact"]["examples"][0]) == {"1.mp4", "again.mp4"}
    assert "train mil_nce" in report["next"][0]


def test_an_embedded_set_of_films_with_sound():
    report = look("emoji_films", rows=6)
    assert report["columns"] == {"video": "mp4"} and report["video"]["with_sound"] == 18
    assert "train audio_visual" in report["next"][0]


def test_sounds(tmp_path):
    (tmp_path / "sounds").mkdir()
    for i, rate in enumerate((16_000, 8_000)):
        (tmp_path / "sounds" / f"{i}.wav").write_bytes(sound(rate=rate))
    report = look("sounds")
    assert report["audio"]["sampling_rates"] == {"16000": 1, "8000": 1} and report["audio"]["channels"] == {"1": 2}
    assert report["next"] == []  # no objective trains on sounds alone


def test_media_of_several_kinds(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.mp4").write_bytes(video(10))
        (folder / f"{i}.wav").write_bytes(sound())
    photo(1).save(folder / "photo.jpg")
    report = look("mixed")
    assert {*report["columns"]} == {"video", "audio", "label"} and "1 .jpg" in report["notes"][0]
    assert look("mixed")["notes"] == report["notes"]
    assert look("mixed", column="image")["columns"] == {"image": "image", "label": "label"}


def test_paths_in_a_table_are_followed(tmp_path):
    photo(1).save(tmp_path / "1.jpg")
    (tmp_path / "table.csv").write_text("file_name,caption,photo\n1.jpg,one,of a cat\n2.jpg,two,of a dog\n")
    report = look("table.csv")
    assert report["columns"] == {"image": "file_name", "text": "caption"}  # "photo" has texts
    assert report["image"]["count"] == 1 and reasons(report) == {"image": 1}


def test_the_choice_between_several_columns_is_noted(tmp_path):
    (tmp_path / "two.csv").write_text("text,caption\na,b\n")
    report = look("two.csv")
    assert report["columns"] == {"text": "text"}
    assert report["notes"] == [
        "the data has several columns of texts: text, caption. Choose one with --text_column. This command looked at "
        "'text'"
    ]
    assert "--text_column text" in report["next"][0]
    assert look("two.csv", text_column="caption")["examples"][0]["text"] == "b"


def test_tars(tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for i in range(5):
            for name, content in ((f"{i}.jpg", jpeg(photo(i))), (f"{i}.txt", b"a"), (f"{i}.cls", str(i % 2).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    report = look("train-0.tar")
    assert report["columns"] == {"image": "jpg", "text": "txt", "label": "cls"} and report["image"]["count"] == 5
    assert report["classes"]["largest"] == [{"class": "0", "rows": 3}, {"class": "1", "rows": 2}]


def test_a_saved_dataset(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a b", "c"], "class": ["x", "y"]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    report = look("saved")
    assert [each["rows"] for each in report["splits"].values()] == [2, 2]
    assert report["duplicates"]["exact"]["across_splits"][0]["rows"] == 2


def test_rows_of_many_row_groups_are_of_few(tmp_path, monkeypatch):
    count = 10 * MOST_PIECES
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(count)]}), tmp_path / "a.parquet", row_group_size=5)
    opened = []
    from hf_pretext.data.parquet import ParquetRows

    usual = ParquetRows.open
    monkeypatch.setattr(ParquetRows, "open", lambda self, piece, at: opened.append(piece) or usual(self, piece, at))
    report = look("a.parquet", rows=100)
    assert report["splits"]["train"]["looked_at"] == 100 and len(set(opened)) <= MOST_PIECES + 4  # probed for the size
    texts = [int(each["text"].split()[1]) for each in report["examples"]]
    assert texts[0] < 10 and texts[-1] > 0.8 * count


def test_errors_name_the_options_of_this_command(tmp_path, odd):
    with pytest.raises(ValueError, match=r"has no column 'nope' \(--column\). Its columns: image \(Image\)"):
        look(str(odd), column="nope")
    with pytest.raises(ValueError, match=r"has no column 'nope' \(--label\)"):
        look(str(odd), label="nope")
    with pytest.raises(ValueError, match=r"has no column 'nope' \(--text_column\)"):
        look(str(odd), text_column="nope")
    (tmp_path / "a.csv").write_text("id,review\n1,a\n")
    with pytest.raises(ValueError, match=r"Name it with --column. Its columns: id \(int64\), review"):
        look("a.csv")
    with pytest.raises(ValueError, match="no such file or folder"):
        look("./nowhere")


def test_files_of_others_are_not_replaced(tmp_path, odd):
    (tmp_path / "look.png").write_bytes(b"mine")
    photo(1).save(tmp_path / "photo.png")
    (tmp_path / "mine.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for options in ({}, {"output": "photo.png"}, {"output": "new.png", "json_file": "mine.json"}):
        with pytest.raises(ValueError, match="exists and was not written by hf-pretext look"):
            look(str(odd), **options)
    with pytest.raises(ValueError, match="is no PNG file"):
        look(str(odd), output="sheet.jpg")
    with pytest.raises(ValueError, match="existing, writable folder"):
        look(str(odd), output="nowhere/sheet.png")
    with pytest.raises(ValueError, match="has no images for a sheet"):
        look("shakespeare", output="sheet.png")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_time_of_an_epoch_is_of_all_rows_of_train():
    speed = look("shakespeare", rows=10)["speed"]
    assert speed["split"] == "train" and speed["measured_on"] == 10 and speed["cores"] >= 1
    assert speed["seconds_of_an_epoch"] == pytest.approx(420 / speed["rows_per_second"])


def test_rows_that_are_read_to_reach_others_do_not_count_as_slow():
    clock = Clock(decoding=2.0, reading=10.0, looked_at=2, passed=100)
    assert clock.seconds_of_a_row == pytest.approx(1.1)


def test_rows_of_a_row_group_are_read_from_its_start(tmp_path):
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(100)]}), tmp_path / "a.parquet", row_group_size=50)
    source = open_source("a.parquet", needed=("text",))
    places = chosen_places(source, 4)
    assert places == [(0, 0), (0, 25), (1, 0), (1, 25)] and rows_passed(source, places) == 52
