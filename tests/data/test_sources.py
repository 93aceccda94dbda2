import io
import json
import tarfile

import datasets
import numpy as np
import pytest
from conftest import EMOJI
from made_images import all_rows, png

from hf_pretext.data.sources import open_source, open_splits


def keys(source):
    return [source.key(piece, i) for piece, count in enumerate(source.counts) for i in range(count)]


def test_parquet_folder_takes_one_split_and_leaves_images_undecoded():
    source = open_source(str(EMOJI), "validation")
    assert len(source) == 435
    row = source.read(0, 0, 0 + 1)[0]
    assert set(row) == {"image"}
    assert isinstance(row["image"]["bytes"], bytes)


def test_parquet_pieces_are_row_groups_and_keys_name_file_and_row():
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


def test_empty_sources(tmp_path):
    with pytest.raises(ValueError, match="contains no image"):
        open_source(str(tmp_path))
    empty = datasets.Dataset.from_dict({"image": []}, datasets.Features({"image": datasets.Image()}))
    with pytest.raises(ValueError, match="no rows"):
        open_source(empty)
    empty.to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="no rows"):
        open_source(str(tmp_path))


def test_rows_can_be_read_in_any_order():
    source = open_source(str(EMOJI))
    expected = {(p, i): source.read(p, i, i + 1)[0]["image"]["bytes"] for p, i in [(0, 0), (3, 5), (1, 7)]}
    random = np.random.default_rng(0)
    for _ in range(20):
        place = list(expected)[random.integers(3)]
        assert source.read(place[0], place[1], place[1] + 1)[0]["image"]["bytes"] == expected[place]


def test_row_size_is_estimated_from_several_pieces():
    rows = [{"text": "x" * (10 if i < 256 else 50_000)} for i in range(2000)]
    source = open_source(rows, needed=("text",))
    assert 30_000 < source.row_bytes() < 50_000
    assert open_source(rows[:100], needed=("text",)).row_bytes() < 1000
