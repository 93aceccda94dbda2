"""Paths of images in a column of a table, and URLs."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_files import fresh_cache, unreadable
from made_images import all_rows, png
from range_server import serve

from hf_pretext.data.decoding import UNREADABLE, BadSample, to_image
from hf_pretext.data.lines import Reading
from hf_pretext.data.media_paths import followed
from hf_pretext.data.sources import open_source

own_cache = pytest.fixture(autouse=True)(fresh_cache)


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        path.write_text(",".join(rows[0]) + "\n" + "".join(",".join(row.values()) + "\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("column", ["image", "file_name", "image_path"])
def test_paths_in_a_column_start_in_the_folder_of_their_table(suffix, column, tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder / "images").mkdir(parents=True)
        (tmp_path / folder / "images" / "1.png").write_bytes(png(5 if folder == "first" else 9))
        paths = ["images/1.png", str(tmp_path / folder / "images/1.png")]
        write(tmp_path / folder / f"table.{suffix}", [{column: path, "text": "a"} for path in paths])
    source = open_source(str(tmp_path / "*" / f"*.{suffix}"), needed=("image", "text"))
    rows = all_rows(source)
    expected = [str(tmp_path / folder / "images/1.png") for folder in ("first", "first", "second", "second")]
    assert [row["image"] for row in rows] == [{"bytes": None, "path": path} for path in expected]
    assert to_image(rows[2]["image"]).equal(to_image(png(9))) and not to_image(png(5)).equal(to_image(png(9)))


def test_a_path_that_leads_elsewhere_is_a_bad_row(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "in" / "1.png").write_bytes(png())
    names = ["1.png", "../secret.png", "a/../../secret.png", "./1.png"]
    write(tmp_path / "in" / "a.jsonl", [{"image": name} for name in names])
    rows = all_rows(open_source(str(tmp_path / "in" / "a.jsonl"), reading=Reading(max_bad_fraction=1)))
    assert unreadable(rows) == [1, 2] and "leads out of the folder" in rows[1][UNREADABLE]
    with pytest.raises(BadSample, match="remote"):
        followed("/etc/hostname", None, remote=True)
    with pytest.raises(BadSample, match="without a folder"):
        followed("1.png", None, remote=False)
    assert followed(" ", str(tmp_path), remote=False) is None


@pytest.mark.parametrize("column", ["image", "url"])
def test_urls_are_refused_with_the_tool_that_downloads_them(column, tmp_path):
    rows = [{column: f"https://example.org/{i}.jpg", "text": "a"} for i in range(3)]
    write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=f"column '{column}' has URLs.*img2dataset"):
        open_source(str(tmp_path), needed=("image", "text"))
    rows[0][column] = "1.png"
    rows += [{column: "1.png", "text": "b"}] * 10
    if column == "image":  # a single URL further down is a bad row
        write(tmp_path / "a.jsonl", rows[::-1])
        assert unreadable(all_rows(open_source(str(tmp_path), needed=("image", "text")))) == [10, 11]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_paths_in_a_table_of_a_server_are_not_followed(name, tmp_path):
    (tmp_path / "1.png").write_bytes(png())
    write(tmp_path / name, [{"image": path, "text": "a"} for path in (str(tmp_path / "1.png"), "1.png")])
    with serve(tmp_path) as server:
        rows = all_rows(open_source(f"{server.url}/{name}", needed=("image", "text")))
    assert unreadable(rows) == [0, 1] and "remote table" in rows[0][UNREADABLE]
