"""Folders of sounds and videos: suffixes, labels, metadata, pairs, what is not read, errors for wrong folders."""

import datasets
import pytest
import torch
from made_files import fresh_cache, logged
from made_images import all_rows, png
from media import CONTAINERS, SOUND_FORMATS, file_of, film, finished, sound
from range_server import serve
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext.data.limits import BadSample
from hf_pretext.data.lines import Reading
from hf_pretext.data.sources import open_source, open_splits
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.stream.collate import collate
from hf_pretext.stream.loader import StreamLoader

AUDIO = ("audio", "video")  # what an objective of sounds needs: the first of the two
VIDEO_SUFFIXES = [suffix for suffix, (_, of_frames, _) in CONTAINERS.items() if of_frames]
SOUND_SUFFIXES = [*SOUND_FORMATS, "m4a", "aac"]
LABEL = '{"label": "L"}'
own_cache = pytest.fixture(autouse=True)(fresh_cache)
said = pytest.fixture(logged)


def audio():
    return Audio(Wav2Vec2FeatureExtractor(return_attention_mask=True), 0.25)


def video():
    return Video(default_video_processor(16), 3)


def write(folder, files):
    """files: content by path below the folder; b"" for files whose content does not matter."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def names(source, kind):
    return [row[kind] and row[kind]["path"].rpartition("/")[2] for row in all_rows(source)]


def decodes(row):
    """Whether this tree decodes the content; each modality does it from the path."""
    assert row.keys() <= {"audio", "video"} and all(value["bytes"] is None for value in row.values())
    values = [finished(audio(), row)["input_values"]]
    values += [video()(row, None, 0.5)["pixel_values_videos"].float()] if "video" in row else []
    return all(len(value) and value.std() > 0 for value in values)


@pytest.mark.parametrize("suffix", SOUND_SUFFIXES)
def test_a_sound_of_each_suffix_is_decoded_by_the_modality(suffix, tmp_path):
    source = open_source(write(tmp_path, {f"a.{suffix}": file_of(suffix)}), needed=(AUDIO,))
    (row,) = all_rows(source)
    assert source.columns == {"audio": "audio"} and isinstance(source.features["audio"], datasets.Audio)
    assert decodes(row)


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_video_of_each_suffix_is_decoded_by_both_modalities(suffix, tmp_path):
    folder = write(tmp_path, {f"a.{suffix}": file_of(suffix)})
    for needed in (("video",), (AUDIO,), (AUDIO, "video")):  # a sound is that of the video
        source = open_source(folder, needed=needed)
        assert source.columns == {"video": "video"} and isinstance(source.features["video"], datasets.Video)
    (row,) = all_rows(source)
    assert decodes(row)


@pytest.mark.parametrize("suffix", [*SOUND_SUFFIXES, *VIDEO_SUFFIXES])
def test_suffixes_are_read_in_any_case_at_any_depth(suffix, tmp_path):
    kind = "audio" if suffix in SOUND_SUFFIXES else "video"
    folder = write(tmp_path, {f"b/1.{suffix.upper()}": b"", f"a/deep/2.{suffix}": b"", f"a/._2.{suffix}": b""})
    source = open_source(folder, needed=(kind, "label"))
    assert names(source, kind) == [f"2.{suffix}", f"1.{suffix.upper()}"]
    assert [row["label"] for row in all_rows(source)] == ["deep", "b"]
    assert [source.key(0, i) for i in range(2)] == [f"{tmp_path}:0", f"{tmp_path}:1"]


def test_opening_reads_no_sound_and_no_video(tmp_path, monkeypatch):
    folder = write(tmp_path, {f"{i}.{suffix}": b"x" for i in range(3) for suffix in ("mp4", "wav", "txt", "json")})
    opened = []
    monkeypatch.setattr("builtins.open", lambda file, *a, own=open, **k: opened.append(str(file)) or own(file, *a, **k))
    for needed in (("video",), (AUDIO,), (AUDIO, "video"), ("video", "text")):
        open_source(folder, needed=needed)
    assert {path.rpartition(".")[2] for path in opened if path.startswith(folder)} == {"txt"}  # only the last


def test_each_folder_is_listed_and_each_file_is_asked_for_its_size_once(tmp_path, monkeypatch):
    folder = write(tmp_path, {f"c{i % 10}/{i}.{suffix}": b"x" for i in range(200) for suffix in ("mp4", "txt")})
    calls = []
    for name in ("scandir", "stat"):
        own = getattr(__import__("os"), name)
        monkeypatch.setattr(f"os.{name}", lambda *a, own=own, **k: calls.append(str(a[0])) or own(*a, **k))
    assert len(open_source(folder, needed=("video",))) == 200
    below = [path for path in calls if path.startswith(folder)]
    assert len([path for path in below if path.endswith(".mp4")]) == 200
    assert len([path for path in below if not path.endswith(".mp4")]) <= 1 + 10 + 5  # folders; is it a folder, ...


def test_splits_of_class_folders(tmp_path):
    files = {f"{split}/{label}/{i}.wav": b"" for split in ("train", "val", "test") for label in "ab" for i in range(3)}
    splits = open_splits(write(tmp_path, files), needed=(AUDIO, "label"))
    assert {name: len(source) for name, source in splits.items()} == {"train": 6, "validation": 6, "test": 6}
    assert [row["label"] for row in all_rows(splits["test"])] == ["a"] * 3 + ["b"] * 3
    with pytest.raises(ValueError, match="no split 'dev'. Choose one of: test, train, val"):
        open_source(str(tmp_path), "dev", needed=(AUDIO,))


def test_the_label_column_is_that_of_all_splits(tmp_path):
    """A split with one class has class folders if another split has two; folders of splits are no classes."""
    places = ("train/a/0", "train/b/1", "validation/a/2", "test/a/3")
    files = {f"{place}.{suffix}": content for place in places for suffix, content in (("wav", b""), ("json", LABEL))}
    splits = open_splits(write(tmp_path / "classes", files), needed=(AUDIO, "label"))
    labels = {name: [row["label"] for row in all_rows(source)] for name, source in splits.items()}
    assert labels == {"train": ["a", "b"], "validation": ["a"], "test": ["a"]}
    for no_classes in (("train/0", "test/1"), ("train/a/0", "test/a/1"), ("train/a/0", "test/a/1", "extra/b/2")):
        files = {f"{place}.{suffix}": text for place in no_classes for suffix, text in (("wav", b""), ("json", LABEL))}
        splits = open_splits(
            write(tmp_path / str(len(no_classes[0]) + len(no_classes)), files), needed=(AUDIO, "label")
        )
        assert [source.columns["label"] for source in splits.values()] == ["json.label"] * 2
        assert all_rows(splits["test"])[0]["label"] == "L"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", ["audio", "video"])
def test_metadata_of_sounds_and_videos(kind, suffix, tmp_path, said):
    media = {"audio": "wav", "video": "mkv"}[kind]
    rows = [(f"sub/0.{media}", "zero", 0), (f"./1.{media}", "one", 1), (f"gone.{media}", "none", 2)]
    lines = [f'{{"file_name": "{name}", "text": "{text}", "label": {n}}}' for name, text, n in rows]
    if suffix == "csv":
        lines = ["file_name,text,label", *(f"{name},{text},{n}" for name, text, n in rows)]
    other = {"csv": "file_name,text,label\n../2.%s,two,2\n", "jsonl": '{"file_name": "../2.%s", "text": "two"}'}[suffix]
    files = {f"{name}.{media}": b"" for name in ("sub/0", "1", "2", "3")}
    write(tmp_path, {**files, f"metadata.{suffix}": "\n".join(lines), f"sub/metadata.{suffix}": other % media})
    write(tmp_path, {"2.txt": "not read", "sub/0.srt": "1"})
    source = open_source(str(tmp_path), needed=(kind, "text"), columns={"label": "label"})
    assert [row["text"] for row in all_rows(source)] == ["one", "two", None, "zero"]
    one = {"audio": "sound", "video": "video"}[kind]
    assert said() == [
        f"{tmp_path}: 1 of 4 metadata rows have no {one} (column file_name): gone.{media}",
        f"{tmp_path}: 1 of 4 {one}s have no metadata row: 3.{media}",
        f"{tmp_path}: 1 files are left out, by suffix: 1 .txt.",
    ]
    (tmp_path / f"metadata.{suffix}").write_text(lines[0].replace("file_name", "name"))
    (tmp_path / "sub" / f"metadata.{suffix}").unlink()
    if suffix == "jsonl":
        with pytest.raises(ValueError, match=f"has no column file_name. Add it, with the path of each row's {one}"):
            open_source(str(tmp_path), needed=(kind,))


@pytest.mark.parametrize(
    "ours, others, types",
    [
        ("1", '"one"', ("int64", "string")),
        ("1", "[1]", ("int64", r"list<item: int64>")),
        ("true", "1", ("bool", "int64")),
        ('{"a": 1}', '{"a": "x"}', (r"struct<a: int64>", r"struct<a: string>")),
    ],
)
def test_metadata_files_whose_columns_differ_in_type_are_named(ours, others, types, tmp_path):
    row = '{"file_name": "%s.wav", "ok": %s, "label": %s}'
    lines = {"a": row % (0, 0.5, ours), "b": row % (1, 1, "null"), "c": row % (2, "null", others)}
    files = {f"{name}/{i}.wav": b"" for i, name in enumerate(lines)}
    files |= {f"{name}/metadata.jsonl": line for name, line in lines.items()}
    with pytest.raises(ValueError, match=f"^The column 'label' is {types[0]} in .*a.metadata.jsonl, but {types[1]} in "
                       ".*c.metadata.jsonl. Give it one type in all metadata files"):  # fmt: skip
        open_source(str(write(tmp_path, files)), needed=("audio",))
    (tmp_path / "c" / "metadata.jsonl").unlink()
    source = open_source(str(tmp_path), needed=("audio", "label"), columns={"label": "ok"})
    assert [row["label"] for row in all_rows(source)] == [0.5, 1.0, None]  # numbers of two types have a common one


def test_numbers_in_csv_and_in_json_lines_are_of_two_types(tmp_path):
    files = {"0.wav": b"", "a/1.wav": b"", "metadata.csv": "file_name,label\n0.wav,0\n"}
    write(tmp_path, {**files, "a/metadata.jsonl": '{"file_name": "1.wav", "label": 1}'})
    with pytest.raises(ValueError, match=r"'label' is .* in .*metadata.* \(values in .csv are texts\)"):
        open_source(str(tmp_path), needed=("audio",))


def test_of_several_kinds_in_a_folder_the_one_that_is_needed_is_read_and_the_rest_is_counted(tmp_path, said):
    files = {"a.png": png(), "b.gif": b"", "1.wav": b"", "2.mp3": b"", "3.mp4": b"", "4.MOV": b"", "5.mkv": b""}
    folder = write(tmp_path, {**files, "x.pdf": b"", "README.md": b"", "2.txt": "about a sound"})
    for needed, kind, paths, left_out in (
        (("image",), "image", ["a.png", "b.gif"], "7 files are left out, by suffix: 1 .wav, 1 .mp3, 1 .txt, 1 .mp4, "
         "1 .mov, 1 .mkv, 1 .pdf."),
        ((AUDIO,), "audio", ["1.wav", "2.mp3"], "6 files are left out, by suffix: 1 .mp4, 1 .mov, 1 .mkv, 1 .png, "
         "1 .gif, 1 .pdf."),
        (("video",), "video", ["3.mp4", "4.MOV", "5.mkv"], "6 files are left out, by suffix: 1 .wav, 1 .mp3, 1 .txt, "
         "1 .png, 1 .gif, 1 .pdf."),
    ):  # fmt: skip
        before = len(said())
        assert names(open_source(folder, needed=needed), kind) == paths
        assert said()[before:] == [f"{tmp_path}: {left_out}"]


def test_videos_next_to_texts_are_reported_if_only_texts_are_needed(tmp_path, said):
    folder = write(tmp_path, {f"c{i}.{suffix}": f"text {i}" for i in range(3) for suffix in ("mp4", "txt")})
    assert [row["text"] for row in all_rows(open_source(folder, needed=("text",)))] == [f"text {i}" for i in range(3)]
    assert said()[-1:] == [f"{tmp_path}: 3 files are left out, by suffix: 3 .mp4."]
    captions = open_source(folder, needed=("text",), further=(("video",), ("text",)))  # those of pairs
    assert type(captions.rows).__name__ == "MapRows" and len(all_rows(captions)) == 3


@pytest.mark.parametrize(
    ("files", "needed", "message"),
    [
        (["1.mp4", "2.mp4", "3.mov"], ("image",), r"has 3 videos \(2 .mp4, 1 .mov\) and no images, which this "
         r"objective takes. .*objective that takes videos.*ffmpeg -i"),
        (["1.mp4", "1.txt", "1.json"], ("image",), "has 1 videos .* and no images"),  # texts about videos are no data
        (["1.wav", "metadata.csv"], ("image",), "has 1 sounds .* and no images.*an objective that takes sounds"),
        (["1.wav"], ("video",), "has 1 sounds .* and no videos"),
        (["1.png"], (AUDIO,), "has 1 images .* and no sounds or videos"),
        (["1.png", "2.wav"], ("video",), r"has 1 sounds \(1 .wav\) and 1 images \(1 .png\) and no videos"),
        (["1.mp4"], ("text",), "has 1 videos .* and no tars, Parquet files or tables of texts"),
        (["1.xyz"], (AUDIO,), r"contains no sound \(.aac, .*.wav\) and no video \(.avi, .* 1 files are left out.*.xyz"),
        (["1.wav"], (AUDIO, "video"), "has 1 sounds .* and no videos"),
        (["1.mp4.gz"], ("video",), "contains no video .*1 files are left out, by suffix: 1 .gz"),
    ],
)  # fmt: skip
def test_a_folder_of_another_kind_is_an_error_that_names_both(files, needed, message, tmp_path):
    folder = write(tmp_path, dict.fromkeys(files, b"x"))
    with pytest.raises(ValueError, match=f"^--eval_dataset {folder} {message}"):
        open_source(folder, needed=needed, option="eval_")


def test_a_glob_and_a_url_of_videos_are_errors_with_the_fix(tmp_path):
    write(tmp_path, {"1.mp4": b"x", "2.mp4": b"x"})
    for dataset in (tmp_path / "*.mp4", tmp_path / "1.mp4"):
        with pytest.raises(ValueError, match=r"formats .mp4.*Images, sounds and videos are read from their folder"):
            open_source(str(dataset), needed=("video",))
    with serve(tmp_path) as server:
        for url in (f"{server.url}/", f"{server.url}/1.mp4"):
            with pytest.raises(ValueError, match="can't be opened.*videos are read from local folders.*video2dataset"):
                open_source(url, needed=("video",))


def test_a_table_is_opened_next_to_media_that_are_not_needed(tmp_path, said):
    films = write(tmp_path / "films", {"1.mp4": film(seconds=0.5)})
    folder = write(
        tmp_path / "data", {"a.png": png(), "a.txt": "about a", "films.csv": f"video,text\n{films}/1.mp4,b\n"}
    )
    (row,) = all_rows(open_source(folder, needed=("video", "text")))
    assert row == {"video": {"bytes": None, "path": f"{films}/1.mp4"}, "text": "b"}
    assert said()[-1:] == [f"{folder}: 2 files are left out, by suffix: 1 .png, 1 .txt."]


def test_a_table_next_to_the_media_is_named_where_a_column_is_missing(tmp_path):
    folder = write(tmp_path, {"1.mp4": b"x", "2.mp4": b"x", "rows.jsonl": '{"text": "a"}'})
    with pytest.raises(ValueError, match="no column of texts.*In the folder, 1 files are left out.*1 .jsonl"):
        open_source(folder, needed=("video", "text"))


# pairs


def test_sounds_with_the_names_of_videos_are_their_sounds(tmp_path, said):
    silent = film(seconds=1.0, silent=1.0)
    files = {f"{split}/{i}.{suffix}": content for split in ("train", "test") for i in range(2)
             for suffix, content in (("mp4", silent), ("flac", sound("FLAC")), ("Wav", sound()))}  # fmt: skip
    folder = write(tmp_path, files)
    source = open_source(folder, needed=(AUDIO, "video"))
    assert source.columns == {"audio": "audio", "video": "video"}
    assert names(source, "video") == ["0.mp4", "1.mp4"] and names(source, "audio") == ["0.Wav", "1.Wav"]
    assert said() == [f"{tmp_path}: 4 files are left out, by suffix: 4 .flac."]  # one sound for each
    row = source.read(0, 1, 2)[0]
    loud, quiet = (finished(audio(), values)["input_values"] for values in (row, {"video": row["video"]}))
    assert loud.std() > 0.9 > 0.1 > quiet.std() and decodes(row)
    (tmp_path / "train" / "1.Wav").unlink()
    (tmp_path / "train" / "1.flac").unlink()
    source = open_source(folder, needed=(AUDIO, "video"))
    assert names(source, "audio") == ["0.Wav", None]
    assert (
        f"{tmp_path}: 1 of 2 videos have no file of sounds with their name, so their own sound is used: train/1.mp4"
        in said()
    )


def test_the_sound_of_a_video_without_a_sound_file_is_its_own_row_by_row(tmp_path):
    content = film(seconds=0.5)
    folder = write(tmp_path, {"1.mp4": content, "1.wav": sound(samples=[0.0] * 16_000), "2.mp4": content})
    source, inputs = open_source(folder, needed=(AUDIO, "video")), Inputs(audio(), video())
    rows = all_rows(source)
    assert rows[1]["audio"] is None
    silence, own = (inputs.finish(collate([inputs(row, None)]))["input_values"] for row in rows)
    assert silence.std() < 1e-3 and own.std() > 0.9
    with pytest.raises(BadSample):
        inputs({"audio": None, "video": None}, None)


def test_sounds_with_the_names_of_images(tmp_path):
    folder = write(tmp_path, {"1.png": png(), "1.ogg": sound("OGG"), "2.png": png(), "2.mp4": film(seconds=0.5)})
    source = open_source(folder, needed=("image", AUDIO))
    assert source.columns == {"image": "image", "audio": "audio"} and names(source, "audio") == ["1.ogg", None]
    (tmp_path / "1.ogg").unlink()
    source = open_source(folder, needed=("image", AUDIO))
    assert source.columns == {"image": "image", "video": "video"} and names(source, "video") == [None, "2.mp4"]
    (tmp_path / "2.mp4").rename(tmp_path / "3.mp4")
    with pytest.raises(
        ValueError, match="none of the 2 images has a sound or a video of the same name.*1.png and 1.wav"
    ):
        open_source(folder, needed=("image", AUDIO))


def test_a_column_of_metadata_is_not_taken_for_sounds(tmp_path):
    """Though it has a usual name: the sound is that of the video, unless another column is asked for."""
    folder = write(tmp_path, {"1.mp4": b"x", "metadata.csv": "file_name,sound\n1.mp4,loud\n"})
    assert open_source(folder, needed=(AUDIO, "video")).columns == {"video": "video"}
    asked = {"audio": "sound", "video": None}
    assert open_source(folder, columns=asked, needed=(AUDIO, "video")).columns == {"audio": "sound", "video": "video"}


# what may change, and the stream


def test_changed_files_change_the_fingerprint_only_if_they_are_read(tmp_path):
    files = {f"{i}.{suffix}": b"x" for i in range(3) for suffix in ("mp4", "wav", "txt")}
    folder = write(tmp_path, files)
    wanted = dict.fromkeys((("video",), (AUDIO, "video"), ("video", "text")))

    def facts(needed):
        rows = open_source(folder, needed=needed).rows
        return rows.fingerprint(), rows.contents

    before = {needed: facts(needed) for needed in wanted}
    records = {needed: contents.record() for needed, (_, contents) in before.items()}
    assert [len(record) for record in records.values()] == [3, 6, 6]
    for name, changed in (
        ("1.mp4", [True, True, True]),
        ("1.wav", [False, True, False]),
        ("1.txt", [False, False, True]),
    ):
        (tmp_path / name).write_bytes(b"longer")
        assert [facts(needed)[0] != before[needed][0] for needed in wanted] == changed
        (tmp_path / name).write_bytes(b"y")  # of the same size
        now = {needed: facts(needed) for needed in wanted}
        assert [fingerprint == before[needed][0] for needed, (fingerprint, _) in now.items()] == [True] * 3
        assert [now[needed][1].changed(records[needed]) == [name] for needed in wanted] == changed
        (tmp_path / name).write_bytes(b"x")


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_the_stream_of_a_folder_is_equal_for_any_workers_and_start(kind, tmp_path):
    contents = {"audio": lambda i: sound(samples=torch.sin(torch.arange(8000) * (i + 1) / 50).numpy()),
                "video": lambda i: film(seconds=0.5 + 0.1 * (i % 4))}[kind]  # fmt: skip
    suffix, inputs = {"audio": ("wav", Inputs(audio())), "video": ("mp4", Inputs(video()))}[kind]
    folder = write(tmp_path, {f"{i % 2}/{i}.{suffix}": contents(i) for i in range(12)})

    def batches(count, **options):
        loader = StreamLoader(open_source(folder, needed=inputs.needed), inputs, 2, seed=1, **options)
        result = [batch for _, batch in zip(range(count), loader, strict=False)]
        loader.close()
        return [{name: torch.as_tensor(value) for name, value in batch.items()} for batch in result]

    unbroken = batches(6)
    for others, expected in ((batches(6, num_workers=2), unbroken), (batches(3, start=6), unbroken[3:])):
        for batch, same in zip(others, expected, strict=True):
            assert batch.keys() == same.keys() and all(torch.equal(batch[name], same[name]) for name in same)
    assert not torch.equal(*(next(iter(batch.values())) for batch in unbroken[:2]))


def test_the_order_is_that_of_sorted_paths_and_what_can_not_be_listed_is_reported(tmp_path, said):
    files = ["a/1.wav", "a.wav", "a-b/2.wav", "B.wav", "a/b/3.wav", "a/b.wav", "10.wav", "9.wav"]
    folder = write(tmp_path, dict.fromkeys(files, b""))
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing")
    (tmp_path / "linked.wav").symlink_to(tmp_path / "9.wav")
    with open(str(tmp_path).encode() + b"/caf\xe9.wav", "wb"):
        pass
    source = open_source(folder, needed=(AUDIO,), reading=Reading())
    expected = [str(path) for path in sorted(tmp_path.rglob("*.wav")) if path.is_file() and "caf" not in path.name]
    assert [row["audio"]["path"] for row in all_rows(source)] == expected and len(expected) == 9
    assert said() == [rf"{tmp_path}: 1 files or folders are left out: 'caf\udce9.wav' (its name is not UTF-8)"]
