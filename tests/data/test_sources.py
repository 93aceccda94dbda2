import io
import json
import tarfile

import datasets
import numpy as np
import pytest
from conftest import EMOJI
from PIL import Image

from hf_pretext.data.columns import find_column
from hf_pretext.data.sources import open_source, open_splits


def png(color=0, size=(8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (color, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def all_rows(source):
    return [row for piece, count in enumerate(source.counts) for row in source.read(piece, 0, count)]


def keys(source):
    return [source.key(piece, i) for piece, count in enumerate(source.counts) for i in range(count)]


@pytest.fixture
def folder(tmp_path):
    """Six pictures in two folders."""
    for name in ("cat/1.png", "cat/2.PNG", "dog/1.png", "dog/deep/2.png", "dog/3.png", "test_drive/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def test_parquet_folder_takes_one_split_and_leaves_pictures_undecoded():
    source = open_source(str(EMOJI), "validation")
    assert len(source) == 435
    row = source.read(0, 0, 0 + 1)[0]
    assert set(row) == {"image"}
    assert isinstance(row["image"]["bytes"], bytes)


def test_parquet_pieces_are_row_groups_and_keys_tell_where_a_row_lies():
    source = open_source(str(EMOJI))
    assert len(source) == 3448
    table = datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*"), split="train")
    table = table.cast_column("image", datasets.Image(decode=False))
    rows, names = all_rows(source), keys(source)
    assert len(set(names)) == len(rows) == 3448
    assert [r["image"]["bytes"] for r in rows] == [r["bytes"] for r in table["image"]]
    assert names[0] == "train-00000-of-00004.parquet:0"


def test_row_groups_of_one_file(tmp_path):
    data = datasets.Dataset.from_dict({"image": [{"bytes": png(i), "path": None} for i in range(10)]})
    data = data.cast_column("image", datasets.Image())
    data.to_parquet(tmp_path / "a.parquet", batch_size=4)
    source = open_source(str(tmp_path))
    assert source.counts == [4, 4, 2]
    assert keys(source)[5] == "a.parquet:5"
    assert source.read(1, 1, 1 + 1)[0]["image"]["bytes"] == png(5)


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


def test_a_pictures_own_name_is_no_split(tmp_path):
    for name in ("train-1.png", "test_2.png", "other.png"):
        (tmp_path / name).write_bytes(png())
    assert len(open_source(str(tmp_path))) == 3


def test_webdataset_tars(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard}.tar", "w") as tar:
            for i in range(3):
                for name, content in ((f"{i}.png", png(10 * shard + i)), (f"{i}.json", json.dumps({"n": i}).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    source = open_source(str(tmp_path / "*.tar"))
    assert source.counts == [3, 3]
    assert source.read(1, 2, 2 + 1)[0]["image"]["bytes"] == png(12)
    assert len(set(keys(source))) == 6


def test_datasets_objects(emoji):
    table = emoji(count=10)
    for data in (table, table.to_iterable_dataset(num_shards=3), datasets.DatasetDict({"train": table})):
        source = open_source(data)
        assert len(source) == 10
        stored = [row["image"]["bytes"] for row in all_rows(source)]
        assert stored == [r["bytes"] for r in table.cast_column("image", datasets.Image(decode=False))["image"]]


def test_splits_of_the_embedded_set_share_no_name():
    splits = open_splits(str(EMOJI), {"label": "name"}, ("image", "label"))
    assert {split: len(source) for split, source in splits.items()} == {"train": 3448, "validation": 435, "test": 669}
    names = {split: {row["label"] for row in all_rows(source)} for split, source in splits.items()}
    assert not names["train"] & names["test"]
    assert not names["train"] & names["validation"]


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "gone/*.parquet", "/no/such/file.parquet"])
def test_path_that_is_not_there(path):
    with pytest.raises(ValueError, match="no such file or folder"):
        open_source(path)


def test_hub_id_that_can_not_be_reached():
    with pytest.raises(ValueError, match="neither a path that exists here nor a Hub dataset"):
        open_source("nobody/nothing-of-that-name")


def test_empty_sources(tmp_path):
    with pytest.raises(ValueError, match="holds no picture"):
        open_source(str(tmp_path))
    empty = datasets.Dataset.from_dict({"image": []}, datasets.Features({"image": datasets.Image()}))
    with pytest.raises(ValueError, match="no rows"):
        open_source(empty)
    empty.to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="no rows"):
        open_source(str(tmp_path))


def test_split_that_is_not_there_lists_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="no split 'dev'.*test, train, validation"):
        open_source(str(EMOJI), "dev")
    with pytest.raises(ValueError, match="no split 'test'.*train"):
        open_source(datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1]})}), "test")


def test_columns_are_found_by_type_then_by_usual_names():
    image, text = datasets.Image(), datasets.Value("string")
    assert find_column({"photo_of_it": image, "name": text}, "image") == "photo_of_it"
    assert find_column({"image": image, "mask": image}, "image") == "image"
    assert find_column({"img": datasets.Value("binary"), "name": text}, "image") == "img"
    assert find_column({"image": image, "what": datasets.ClassLabel(names=["a", "b"])}, "label") == "what"
    assert find_column({"image": image, "mask": image}, "image", asked="mask") == "mask"


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"text": datasets.Value("string")}, None, "no column of images.*--image_column.*text [(]string[)]"),
        ({"left": datasets.Image(), "right": datasets.Image()}, None, "several columns of images: left, right"),
        ({"image": datasets.Image()}, "picture", "no column 'picture'.*image [(]Image[)]"),
    ],
)
def test_missing_or_ambiguous_column_lists_what_there_is(columns, asked, message):
    with pytest.raises(ValueError, match=message):
        find_column(columns, "image", asked)


def test_mixed_files_are_refused(tmp_path):
    (tmp_path / "a.parquet").touch()
    (tmp_path / "b.tar").touch()
    with pytest.raises(ValueError, match="files of one kind .*not [.]parquet, [.]tar"):
        open_source(str(tmp_path))


def test_rows_can_be_read_in_any_order():
    source = open_source(str(EMOJI))
    expected = {(p, i): source.read(p, i, i + 1)[0]["image"]["bytes"] for p, i in [(0, 0), (3, 5), (1, 7)]}
    random = np.random.default_rng(0)
    for _ in range(20):
        place = list(expected)[random.integers(3)]
        assert source.read(place[0], place[1], place[1] + 1)[0]["image"]["bytes"] == expected[place]


@pytest.mark.parametrize("notes", ["metadata.csv", "metadata.jsonl", "texts"])
def test_pictures_with_captions_beside_them(tmp_path, notes):
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
    with pytest.raises(ValueError, match="metadata.jsonl can't be read"):
        open_source(str(tmp_path), needed=("image", "text"))


def test_of_several_columns_the_first_that_is_there_is_opened():
    films, both = ([{"video": b"a", "label": 1}], [{"video": b"a", "audio": b"b", "label": 1}])
    needed = (("audio", "video"), "label")
    assert list(open_source(films, needed=needed).columns) == ["video", "label"]
    assert list(open_source(both, needed=needed).columns) == ["audio", "label"]
    assert open_source(both, columns={"video": "video"}, needed=needed).columns["video"] == "video"  # as asked
    with pytest.raises(ValueError, match=r"no column of audios that can be told. Name it with --audio_column"):
        open_source([{"label": 1}], needed=needed)
