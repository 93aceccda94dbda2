"""Sounds and videos in tars, Parquet files and `datasets` objects: the columns, undecoded, and their modality."""

import io
import json
import tarfile

import datasets
import pytest
from datasets import Audio, Value, Video
from made_files import fresh_cache
from made_images import all_rows, png
from media import RATE, film, finished, sound
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext.data.sources import open_source
from hf_pretext.modalities.audio import Audio as AudioModality
from hf_pretext.modalities.video import Video as VideoModality
from hf_pretext.modalities.video import default_video_processor

AUDIO = ("audio", "video")
own_cache = pytest.fixture(autouse=True)(fresh_cache)


def write_samples(path, samples):
    """samples: contents by suffix; bytes, or what becomes JSON."""
    with tarfile.open(path, "w") as tar:
        for i, sample in enumerate(samples):
            for suffix, content in sample.items():
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                info = tarfile.TarInfo(f"{i}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return str(path)


def examples(row):
    """The examples of a row: sound of a quarter second, three frames."""
    sounds = finished(AudioModality(Wav2Vec2FeatureExtractor(return_attention_mask=True), 0.25), row)
    assert sounds["input_values"].shape == (RATE // 4,)
    if "video" in row:
        frames = VideoModality(default_video_processor(16), 3)(row, None, 0.5)
        assert frames["pixel_values_videos"].shape == (3, 3, 16, 16)
    return sounds["input_values"]


def test_tars_of_videos_with_fields(tmp_path):
    fields = [{"game": "ab"[i % 2], "caption": f"text {i}"} for i in range(3)]
    path = write_samples(tmp_path / "a.tar", [{"mp4": film(seconds=0.5), "json": of_row} for of_row in fields])
    source = open_source(path, columns={"label": "json.game"}, needed=(AUDIO, "video", "text", "label"))
    assert source.columns == {"video": "mp4", "text": "json.caption", "label": "json.game"}
    rows = all_rows(source)
    assert [(row["text"], row["label"]) for row in rows] == [("text 0", "a"), ("text 1", "b"), ("text 2", "a")]
    assert len(examples(rows[2]))


def test_the_sound_of_a_tar_of_videos_and_sounds_is_the_sound_file(tmp_path):
    silent = film(seconds=0.5, silent=0.5)
    path = write_samples(tmp_path / "a.tar", [{"mp4": silent, "wav": sound()}] * 2)
    source = open_source(path, needed=(AUDIO, "video"))
    assert source.columns == {"audio": "wav", "video": "mp4"}
    row = all_rows(source)[1]
    assert examples(row).std() > 0.9 and examples({"video": row["video"]}).std() < 0.1
    assert open_source(path, needed=(AUDIO,)).columns == {"audio": "wav"}


def test_tars_of_sounds_with_texts_and_subtitles(tmp_path):
    notes = [{"txt": b"text %d" % i, "srt": b"1\n00:00"} for i in range(2)]
    path = write_samples(tmp_path / "a.tar", [{"FLAC": sound("FLAC"), **notes[0]}, {"wav": sound(), **notes[1]}])
    source = open_source(path, needed=(AUDIO, "text", "subtitles"))
    assert source.columns == {"audio": "FLAC", "text": "txt", "subtitles": "srt"}
    assert [(row["text"], row["subtitles"]) for row in all_rows(source)] == [
        (f"text {i}", "1\n00:00") for i in range(2)
    ]
    assert all(len(examples(row)) for row in all_rows(source))


@pytest.mark.parametrize("name", ["m4a", "AAC", "opus", "mov", "m4v", "mkv", "mpg", "mpeg", "ts"])
def test_members_of_further_suffixes_have_their_type(name, tmp_path):
    kind = "audio" if name.lower() in ("m4a", "aac", "opus") else "video"
    source = open_source(write_samples(tmp_path / "a.tar", [{name: b"x"}]), needed=(kind,))
    assert source.columns == {kind: name} and type(source.features[kind]) is {"audio": Audio, "video": Video}[kind]
    assert all_rows(source)[0][kind]["bytes"] == b"x"


@pytest.fixture
def table(tmp_path):
    """A `datasets` object with three rows, of bytes and of paths."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "1.wav").write_bytes(sound())
    (tmp_path / "files" / "1.mp4").write_bytes(film(seconds=0.5))
    columns = {
        kind: [{"bytes": content, "path": None}, {"bytes": None, "path": str(tmp_path / "files" / name)}, None]
        for kind, content, name in (("speech", sound(), "1.wav"), ("scene", film(seconds=0.5), "1.mp4"))
    }
    data = datasets.Dataset.from_dict({**columns, "image": [{"bytes": png(), "path": None}] * 3, "label": [1, 2, 3]})
    return data.cast_column("speech", Audio()).cast_column("scene", Video())


@pytest.mark.parametrize("form", ["object", "parquet", "saved", "stream"])
def test_columns_of_type_audio_and_video_stay_undecoded(form, table, tmp_path):
    data = table
    if form == "parquet":
        data.to_parquet(tmp_path / "a.parquet")
        data = str(tmp_path / "a.parquet")
    elif form == "saved":
        data.save_to_disk(tmp_path / "saved")
        data = str(tmp_path / "saved")
    elif form == "stream":
        data = data.to_iterable_dataset(num_shards=2)
    source = open_source(data, needed=(AUDIO, "video", "label"))
    assert source.columns == {"audio": "speech", "video": "scene", "label": "label"}
    assert isinstance(source.features["audio"], Audio) and source.features["label"] == Value("int64")
    first, second, empty = all_rows(source)
    assert first["audio"]["bytes"] == sound() and second["video"]["path"].endswith("1.mp4")
    assert empty["audio"] is None and empty["video"] is None
    for row in (first, second):
        assert len(examples({kind: row[kind] for kind in AUDIO}))
    assert open_source(data, needed=("video",)).columns == {"video": "scene"}
    with pytest.raises(ValueError, match=r"no column of texts.*speech \(Audio\), scene \(Video\)"):
        open_source(data, needed=("video", "text"))


def test_the_sound_of_a_parquet_file_of_videos_is_that_of_the_videos(tmp_path, table):
    table.remove_columns("speech").to_parquet(tmp_path / "a.parquet")
    source = open_source(str(tmp_path), needed=(AUDIO,))
    assert source.columns == {"video": "scene"} and len(examples(all_rows(source)[0]))
