"""Values of --dataset, and the errors for data that can't be opened."""

import json
import logging

import datasets
import pytest
from conftest import EMOJI
from made_images import all_rows, png
from PIL import Image

from hf_pretext.data import image_suffixes as formats
from hf_pretext.data.lines import Reading
from hf_pretext.data.sources import open_source, open_splits


@pytest.fixture
def folder(tmp_path):
    """Six images in four folders, and a text file."""
    for name in ("cat/1.png", "cat/2.PNG", "dog/1.png", "dog/deep/2.png", "dog/3.png", "test_drive/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_glob_of_parquet_files():
    assert len(open_source(str(EMOJI / "train-0000[01]*.parquet"))) == 1724


def test_image_folder_with_labels_from_folders(folder):
    source = open_source(str(folder), needed=("image", "label"))
    assert [row["label"] for row in all_rows(source)] == ["cat", "cat", "dog", "dog", "deep", "test_drive"]


def test_image_folder_with_splits(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for i in range(count):
            (tmp_path / split / "cat").mkdir(parents=True, exist_ok=True)
            (tmp_path / split / "cat" / f"{i}.png").write_bytes(png())
    assert {k: len(v) for k, v in open_splits(str(tmp_path)).items()} == {"train": 3, "validation": 2, "test": 1}
    assert len(open_source(str(tmp_path))) == 3


def test_the_name_of_an_image_is_no_split(tmp_path):
    for name in ("train-1.png", "test_2.png", "other.png"):
        (tmp_path / name).write_bytes(png())
    assert len(open_source(str(tmp_path))) == 3


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "gone/*.parquet", "/no/such/file.parquet"])
def test_path_that_does_not_exist(path):
    with pytest.raises(ValueError, match="no such file or folder"):
        open_source(path)


def test_hub_id_that_can_not_be_reached():
    with pytest.raises(ValueError, match="neither an existing path nor a Hub dataset"):
        open_source("nobody/nothing-of-that-name")


def test_unknown_split_lists_the_existing_ones(tmp_path):
    with pytest.raises(ValueError, match="no split 'dev'.*test, train, validation"):
        open_source(str(EMOJI), "dev")
    with pytest.raises(ValueError, match="no split 'test'.*train"):
        open_source(datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1]})}), "test")


def test_mixed_files_are_refused(tmp_path):
    (tmp_path / "a.parquet").touch()
    (tmp_path / "b.tar").touch()
    with pytest.raises(ValueError, match="files of the formats [.]parquet, [.]tar. Give files of one"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("notes", ["metadata.csv", "metadata.jsonl", "texts"])
def test_images_with_captions_in_files(tmp_path, notes):
    for i in range(3):
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (80 * i, 0, 0)).save(tmp_path / "train" / "a" / f"{i}.png")
    texts = {0: "black, all of it", 2: "reddish"}
    if notes == "texts":
        for i, text in texts.items():
            (tmp_path / "train" / "a" / f"{i}.txt").write_text(text + "\n")
    elif notes.endswith("csv"):
        rows = "".join(f'a/{i}.png,"{text}"\n' for i, text in texts.items())
        (tmp_path / "train" / notes).write_text("file_name,text\n" + rows)
    else:
        rows = [json.dumps({"file_name": f"a/{i}.png", "text": text, "n": [i]}) for i, text in texts.items()]
        (tmp_path / "train" / notes).write_text("\n".join(rows))
    source = open_source(str(tmp_path), needed=("image", "text"))
    rows = list(source.take([(0, i) for i in range(3)]))
    assert [row["text"] for row in rows] == [texts.get(i) for i in range(3)]
    assert [row["image"]["path"].endswith(f"{i}.png") for i, row in enumerate(rows)] == [True] * 3
    before = source.rows.fingerprint()
    path = tmp_path / "train" / (notes if notes != "texts" else "a/0.txt")
    path.write_text(path.read_text().replace("reddish", "red").replace("black, all", "all"))
    assert open_source(str(tmp_path), needed=("image", "text")).rows.fingerprint() != before


def test_metadata_without_a_file_name_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_text("name,text\n0.png,black\n")
    with pytest.raises(ValueError, match="has no column file_name"):
        open_source(str(tmp_path), needed=("image", "text"))
    (tmp_path / "metadata.csv").rename(tmp_path / "metadata.jsonl")
    with pytest.raises(ValueError, match="2 of 2 rows can't be read.*\n  not JSON: line 1 of metadata.jsonl"):
        open_source(str(tmp_path), needed=("image", "text"))


@pytest.fixture
def said(caplog):
    logging.getLogger("transformers").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("transformers").removeHandler(caplog.handler)


def test_files_that_are_left_out_are_counted_by_suffix_with_what_reads_them(tmp_path, monkeypatch, said):
    monkeypatch.setattr(formats, "has_heic", lambda: False)
    formats.image_suffixes.cache_clear()
    for i in range(40):
        (tmp_path / f"{i}.HEIC").touch()
    for name in ("README.md", ".hidden", "a.txt", "b.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="no column of images"):
        open_source(str(tmp_path))
    (tmp_path / "a.png").write_bytes(png())
    said.clear()
    for splits in (open_splits(str(tmp_path)), open_splits(str(tmp_path))):
        assert len(splits["train"]) == 1
    formats.image_suffixes.cache_clear()
    (note,) = [record.getMessage() for record in said.records]
    heic = "40 .heic (to read them: pip install 'hf_pretext[heic]')"
    assert note == f"{tmp_path}: 41 files are left out, by suffix: {heic}, 1 .txt."


def test_a_folder_of_only_unreadable_images_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "has_heic", lambda: False)
    formats.image_suffixes.cache_clear()
    (tmp_path / "a.heic").touch()
    with pytest.raises(ValueError, match=r"contains no image.*1 .heic \(to read them: pip install 'hf_pretext\[heic"):
        open_source(str(tmp_path))
    formats.image_suffixes.cache_clear()


def test_rows_without_an_image_and_images_without_a_row_are_reported(tmp_path, said):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(2):
            (tmp_path / split / f"{i}.png").write_bytes(png())
    rows = ["train/0.png,a", "test/0.png,b", "test/1.png,c", *(f"train/gone{i}.png,d" for i in range(5))]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    assert [row["text"] for row in all_rows(open_source(str(tmp_path), needed=("image", "text")))] == ["a", None]
    assert [record.getMessage() for record in said.records] == [
        f"{tmp_path}: 5 of 8 metadata rows have no image (column file_name): train/gone0.png, train/gone1.png, "
        "train/gone2.png, ...",
        f"{tmp_path}: 1 of 2 images have no metadata row: train/1.png",
    ]


def test_bad_rows_of_metadata_are_counted_and_named(tmp_path, caplog):
    for i in range(40):
        (tmp_path / f"{i}.png").write_bytes(png())
    lines = [f"{i}.png,{'NA' if i == 1 else f'text {i}'}".encode() for i in range(40)]
    (tmp_path / "metadata.csv").write_bytes(
        b"\n".join([b"file_name;text", *[line.replace(b",", b";") for line in lines]])
    )
    expected = {f"{i}.png": "NA" if i == 1 else f"text {i}" for i in range(40)}

    def captions(**options):
        rows = all_rows(open_source(str(tmp_path), needed=("image", "text"), reading=Reading(**options)))
        return {row["image"]["path"].rpartition("/")[2]: row["text"] for row in rows}

    assert captions() == expected
    lines[3] = b"3.png,caf\xe9"
    (tmp_path / "metadata.csv").write_bytes(b"\n".join([b"file_name,text", *lines]))
    assert captions() == {**expected, "3.png": None}
    assert "1 of 40 rows can't be read" in caplog.text and "not UTF-8: line 5 of metadata.csv" in caplog.text
    with pytest.raises(ValueError, match="metadata.csv: 1 of 40 rows.*--encoding, for example cp1252"):
        captions(max_bad_fraction=0.01)
    assert captions(encoding="latin-1") == {**expected, "3.png": "café"}
    (tmp_path / "metadata.csv").unlink()
    rows = [{"file_name": f"{i}.png", "text": 7 if i == 3 else f"text {i}"} for i in range(40)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions() == {**expected, "1.png": "text 1", "3.png": None}


def test_a_text_next_to_an_image_with_invalid_bytes_is_counted(tmp_path, caplog):
    for i in range(40):
        (tmp_path / f"{i:02}.png").write_bytes(png())
        (tmp_path / f"{i:02}.txt").write_bytes(b"caf\xe9" if i == 3 else b"\xef\xbb\xbftext" if i == 4 else b"text\n")

    def captions(**options):
        rows = all_rows(open_source(str(tmp_path), needed=("image", "text"), reading=Reading(**options)))
        return [row["text"] for row in rows]

    assert captions() == [None if i == 3 else "text" for i in range(40)]
    assert "1 of 40 rows can't be read" in caplog.text and "not UTF-8: 03.txt (byte 0xe9)" in caplog.text
    assert captions(encoding="latin-1")[3] == "café"
    with pytest.raises(ValueError, match="1 of 40 rows.*--encoding, for example cp1252"):
        captions(max_bad_fraction=0.01)


def test_rows_that_name_one_image_are_reported(tmp_path, said):
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a\n./0.png,b\n0.png,c\n")
    assert [row["text"] for row in all_rows(open_source(str(tmp_path), needed=("image", "text")))] == ["c"]
    (report,) = [record.getMessage() for record in said.records]
    assert report.startswith(f"{tmp_path}: 2 metadata rows name an image of an earlier row")


def test_folders_behind_links_are_reported(tmp_path, said):
    (tmp_path / "other").mkdir()
    (tmp_path / "data").mkdir()
    for folder in ("data", "other"):
        (tmp_path / folder / "0.png").write_bytes(png())
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "other")
    assert len(open_source(str(tmp_path / "data"))) == 1
    (report,) = [record.getMessage() for record in said.records]
    assert "1 linked folders are not followed: linked" in report


def test_a_file_with_brackets_in_its_name(tmp_path):
    (tmp_path / "[1] a.txt").write_text("a")
    assert len(open_source(str(tmp_path / "[1] a.txt"), needed=("text",))) == 1
