"""Texts, JSON and subtitles next to sounds and videos (and images), as columns of their rows."""

import json

import datasets
import pytest
from made_files import fresh_cache, logged
from made_images import all_rows

from hf_pretext.data.lines import Reading
from hf_pretext.data.sources import open_source

SRT = "1\n00:00:00,500 --> 00:00:01,250\nHello.\n\n2\n00:00:02,000 --> 00:00:02,900\nBye.\n"
VTT = "WEBVTT\n\n00:00.500 --> 00:01.250\nHello.\n"
SUFFIXES = {"video": "mp4", "audio": "wav", "image": "png"}
own_cache = pytest.fixture(autouse=True)(fresh_cache)
said = pytest.fixture(logged)
each_kind = pytest.mark.parametrize("kind", SUFFIXES)


@pytest.fixture
def write(tmp_path):
    def write_files(kind, notes, count=0):
        """Empty media 0, 1, ... in `tmp_path`, and notes by name."""
        for name, content in {**{f"{i}.{SUFFIXES[kind]}": b"x" for i in range(count)}, **notes}.items():
            content = content if isinstance(content, (str, bytes)) else json.dumps(content)
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(tmp_path)

    return write_files


def values(folder, kind, column, **options):
    return [row[column] for row in all_rows(open_source(folder, needed=(kind, column), **options))]


@each_kind
def test_a_text_is_the_column_text(kind, write, said):
    folder = write(kind, {"0.txt": " a bell\r\nrings\n", "2.TXT": b"\xef\xbb\xbfrain", "no.txt": "of nothing"}, 3)
    assert values(folder, kind, "text") == ["a bell\nrings", None, "rain"]
    assert said() == [f"{folder}: 1 files are left out, by suffix: 1 .txt."]


@each_kind
def test_fields_of_json_are_columns(kind, write):
    rows = [{"caption": f"text {i}", "game": "ab"[i % 2], "n": i, "a": {"b": {"c": i}}, "of": ["x"]} for i in range(4)]
    folder = write(kind, {f"{i}.json": row for i, row in enumerate(rows) if i != 2}, 4)
    source = open_source(folder, needed=(kind, "text"))
    assert source.columns == {kind: kind, "text": "json.caption"}
    assert [row["text"] for row in all_rows(source)] == ["text 0", "text 1", None, "text 3"]
    asked = {"label": "json.game", "n": "json.n", "deep": "json.a.b.c", "of": "json.of", "inner": "json.a"}
    source = open_source(folder, columns=asked, needed=(kind, *asked))
    assert (
        all_rows(source)[3].items() >= {"label": "b", "n": 3, "deep": 3, "of": ["x"], "inner": {"b": {"c": 3}}}.items()
    )
    assert source.features["of"] == datasets.List(datasets.Value("string"))
    with pytest.raises(ValueError, match=r"no column 'json.none' .*json.caption \(string\), json.game \(string\)"):
        open_source(folder, columns={"text": "json.none"}, needed=(kind, "text"))


def test_fields_of_many_types_are_stored_or_left_out(write, said):
    values_of = [2.5, "x", None, [1, "y"], {"p": 1}, {"p": 2, "q": ["z"]}, {"p": 3}, {"p": "w"}, "\ud800", 2**70]
    names = {f"{i}.json": {"mixed": value, "same": i, "\ud800": i, "wide": {f"k{i}_{j}": j for j in range(40)}}
             for i, value in enumerate(values_of)}  # fmt: skip
    folder = write("video", names, len(values_of))
    columns = {"mixed": "json.mixed", "wide": "json.wide", "same": "json.same"}
    rows = all_rows(open_source(folder, columns=columns, needed=("video", *columns)))
    rows = sorted(rows, key=lambda row: row["same"])
    assert [row["same"] for row in rows] == list(range(len(values_of)))
    dicts = [{"p": 1, "q": None}, {"p": 2, "q": ["z"]}, {"p": 3, "q": None}]
    assert [row["mixed"] for row in rows] == [None] * 4 + dicts + [None] * 3
    assert rows[3]["wide"] == {f"k3_{j}": j for j in range(40)}
    assert "6 of 10 values of 'json.mixed' are left out. The first: float instead of struct" in said()[0]


@each_kind
def test_a_text_comes_before_the_fields_of_json(kind, write, tmp_path):
    folder = write(kind, {"0.txt": "of txt", "0.json": {"caption": "of json", "text": "too"}}, 2)
    assert values(folder, kind, "text") == ["of txt", None]
    assert values(folder, kind, "text", columns={"text": "json.caption"}) == ["of json", None]
    (tmp_path / "0.txt").unlink()
    with pytest.raises(ValueError, match="several columns of texts: json.caption, json.text. Choose one with --text_"):
        open_source(folder, needed=(kind, "text"))


@each_kind
def test_a_field_of_json_is_the_label_unless_there_are_class_folders(kind, write):
    suffix = SUFFIXES[kind]
    folder = write(kind, {f"{i}.json": {"label": "dog" if i else "cat"} for i in range(3)}, 3)
    source = open_source(folder, needed=(kind, "label"))
    assert source.columns["label"] == "json.label" and [r["label"] for r in all_rows(source)] == ["cat", "dog", "dog"]
    folder = write(kind, {f"other/3.{suffix}": b"x"})
    name = folder.rpartition("/")[2]
    assert values(folder, kind, "label") == [name] * 3 + ["other"]
    assert values(folder, kind, "label", columns={"label": "json.label"}) == ["cat", "dog", "dog", None]


@each_kind
def test_subtitles_are_a_column_of_raw_text_with_times(kind, write, said):
    folder = write(kind, {"0.srt": SRT, "1.vtt": VTT, "2.srt": SRT, "2.vtt": VTT}, 4)
    assert values(folder, kind, "subtitles") == [SRT, VTT, SRT, None]
    assert said() == [f"{folder}: 1 files are left out, by suffix: 1 .vtt."]  # of two, the .srt
    assert values(folder, kind, "text", columns={"text": "subtitles"}) == [SRT, VTT, SRT, None]
    more = write(kind, {"3.en-US.vtt": VTT, "0.de.srt": "not read"}, 4)
    assert values(more, kind, "subtitles") == [SRT, VTT, SRT, VTT]
    two = write(kind, {"3.fr.vtt": "of which language?"}, 4)
    assert values(two, kind, "subtitles") == [SRT, VTT, SRT, None]
    with pytest.raises(ValueError, match=r"no column of texts.*subtitles \(string\)"):  # markup is no caption
        open_source(folder, needed=(kind, "text"))
    rows = "\n".join(json.dumps({"file_name": f"{i}.{SUFFIXES[kind]}", "text": f"{i}"}) for i in range(4))
    write(kind, {"metadata.jsonl": rows})
    both = all_rows(open_source(folder, needed=(kind, "text", "subtitles")))
    assert [(row["text"], row["subtitles"]) for row in both] == [("0", SRT), ("1", VTT), ("2", SRT), ("3", None)]


@each_kind
def test_notes_are_read_only_if_they_are_needed(kind, write):
    broken = {f"{i}.{suffix}": b"\xff{" for i in range(3) for suffix in ("txt", "json", "srt")}
    folder = write(kind, {**broken, f"b/9.{SUFFIXES[kind]}": b"x"}, 3)
    for needed in ((kind,), (kind, "label")):
        assert list(open_source(folder, needed=needed).rows.files) == [*(f"{i}.{SUFFIXES[kind]}" for i in range(3)),
                                                                       f"b/9.{SUFFIXES[kind]}"]  # fmt: skip
    for column, what in (("text", "texts in .txt files"), ("subtitles", "subtitles")):
        with pytest.raises(ValueError, match=f"{folder}: {what}: 3 of 3 rows can't be read.*--encoding.*\n.*0xff"):
            open_source(folder, needed=(kind, column))
    with pytest.raises(ValueError, match=".json files: 3 of 3 rows can't be read.*\n  not UTF-8: 0.json"):
        open_source(folder, columns={"label": "json.a"}, needed=(kind, "label"), reading=Reading())


def test_notes_that_can_not_be_read_are_counted_and_named(write, caplog):
    rows = {f"{i:02}.json": {"text": f"text {i}", "n": i} for i in range(60)}
    media = {f"{i:02}.mp4": b"x" for i in range(60)}
    bad = {"03.json": '{"text": "a"', "04.json": [1], "05.json": {"text": 7, "n": "x"}, "06.json": b"\xff"}
    folder = write("video", {**media, **rows, **bad})
    expected = [None if i in (3, 4, 5, 6) else f"text {i}" for i in range(60)]
    assert values(folder, "video", "text", reading=Reading(max_bad_fraction=0.06)) == expected
    assert ".json files: 3 of 60 rows can't be read" in caplog.text and "not JSON: 03.json (Expecting" in caplog.text
    assert "1 of 57 values of 'json.text' are left out. The first: int instead of string in 05.json" in caplog.text
    with pytest.raises(
        ValueError, match="3 of 60 rows.*\n  not JSON: 03.json.*\n  not a JSON object: 04.json .a list.*"
    ):
        values(folder, "video", "text", reading=Reading(max_bad_fraction=0.04))
    latin = write("video", {f"{i:02}.json": json.dumps({"text": "café"}, ensure_ascii=False).encode("cp1252")
                            for i in range(60)})  # fmt: skip
    assert values(latin, "video", "text", reading=Reading(encoding="cp1252")) == ["café"] * 60
