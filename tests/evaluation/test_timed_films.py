"""Films with known times: their windows, which sentences are left out, and what is refused."""

import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from media import video

from hf_pretext.data.narration import BadSample
from hf_pretext.evaluation import timed_films
from hf_pretext.evaluation.timed_films import TimedFilms, middles, sentences_in, within
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.video import Video, default_video_processor

FPS, BRIGHTER = 10, 8  # of `media.video`: frames per second, and how much brighter the next one is
BABYAI = REPOSITORY / "hf_pretext" / "samples" / "babyai_films" / "babyai_narrated"
TRUE = {"text": "mission", "true_start": "true_start", "true_end": "true_end"}


def inputs(frames: int = 2, seconds: float | None = 0.4, fps: float | None = None) -> Inputs:
    return Inputs(Video(default_video_processor(16), frames, fps, seconds=seconds))


def table(folder, *rows: dict, frames: int = 20):
    """A table of films of 2 seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "film.mp4").write_bytes(video(frames=frames))
    (folder / "damaged.mp4").write_bytes(video(frames=frames)[:-300])
    lines = [json.dumps({"video_path": "film.mp4", **row}) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


def numbers_of(batches) -> np.ndarray:
    """The numbers of the frames of each window, by their brightness: `(n, F)`."""
    pixels = torch.cat([batch["pixel_values_videos"] for batch in batches])
    return ((pixels.mean((2, 3, 4)) + 1) * 127.5 / BRIGHTER).round().long().numpy()


# windows


def test_windows_show_the_frames_around_their_middles(tmp_path):
    films = TimedFilms(table(tmp_path, {"text": ["a"], "start": [0.5], "end": [1.5]}), inputs(), step=0.5)
    ((plan, batches),) = films
    assert plan.times.tolist() == [0.25, 0.75, 1.25, 1.75] and films.seconds == 0.4
    # two frames of a window of 0.4 s: those shown 0.1 s before and after its middle
    assert numbers_of(batches).tolist() == [[1, 3], [6, 8], [11, 13], [16, 18]]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1.0, [[0, 5], [5, 10], [10, 15], [15, 19]]),  # the first and the last window are partly outside
        (8.0, [[0, 19], [0, 19], [0, 19], [0, 19]]),  # longer than the film
    ],
)
def test_a_window_at_the_end_of_the_film_repeats_its_frame(tmp_path, seconds, expected):
    path = table(tmp_path, {"text": ["a"], "start": [0.5], "end": [1.5]})
    films = TimedFilms(path, inputs(), seconds=seconds, step=0.5)
    ((_, batches),) = films
    assert numbers_of(batches).tolist() == expected


def test_frames_at_a_rate_keep_their_distance(tmp_path):
    path = table(tmp_path, {"text": ["a"], "start": [0.5], "end": [1.5]})
    ((_, batches),) = TimedFilms(path, inputs(3, 1.0, fps=5.0), step=1.0)
    assert numbers_of(batches).tolist() == [[3, 5, 7], [13, 15, 17]]


def test_each_frame_is_decoded_and_resized_once(tmp_path, monkeypatch):
    path = table(tmp_path, {"text": ["a"], "start": [0.5], "end": [1.5]})
    films = TimedFilms(path, inputs(8, 1.5), step=0.1)
    (frames,) = films._frames
    assert len(films.plans[0].times) == 20 and frames.index.shape == (20, 8) and len(frames.distinct) == 20
    monkeypatch.setattr(timed_films, "KEPT_BYTES", 0)
    again = TimedFilms(path, inputs(8, 1.5), step=0.1, workers=1)
    assert again._frames is None
    for _ in range(2):  # decoded each time
        pairs = zip(films, again, strict=True)
        assert all(np.array_equal(numbers_of(one), numbers_of(other)) for (_, one), (_, other) in pairs)


def test_middles_are_in_the_film():
    assert middles(2.0, 1.0).tolist() == [0.5, 1.5] and middles(2.4, 1.0).tolist() == [0.5, 1.5]
    assert middles(2.6, 1.0).tolist() == [0.5, 1.5, 2.5] and middles(0.4, 1.0).tolist() == [0.2]


def test_the_end_of_a_time_is_the_start_of_the_next():
    times = np.array([0.0, 1.0, 2.0])
    assert within(times, np.array([[0.0, 1.0]])).tolist() == [True, False, False]
    assert within(times, np.array([[0.0, 1.0], [1.5, 9.0]])).tolist() == [True, False, True]


# sentences


def test_sentences_have_their_true_times_and_those_of_their_subtitles():
    row = {"text": ["b", "a"], "start": [1, 0], "end": [2, 1], "true_start": [0.5, 3], "true_end": [1.5, 4]}
    sentences, untimed = sentences_in(row)
    assert [(each.text, each.times.tolist(), each.subtitle) for each in sentences] == [
        ("b", [[0.5, 1.5]], (1.0, 2.0)),
        ("a", [[3.0, 4.0]], (0.0, 1.0)),
    ]
    assert untimed == 0


def test_without_true_times_those_of_the_texts_or_subtitles_are_true():
    of_list, _ = sentences_in({"text": ["b"], "start": [1], "end": [2]})
    of_file, _ = sentences_in({"subtitles": "WEBVTT\n\n00:01.000 --> 00:02.000\nb"})
    for (sentence,) in (of_list, of_file):
        assert (sentence.text, sentence.times.tolist(), sentence.subtitle) == ("b", [[1.0, 2.0]], None)


def test_a_sentence_that_occurs_twice_has_both_times():
    (first, other, last), _ = sentences_in({"text": ["Go on", "b", "go  on"], "start": [0, 1, 2], "end": [1, 2, 3]})
    assert first.times.tolist() == last.times.tolist() == [[0.0, 1.0], [2.0, 3.0]] and len(other.times) == 1


def test_sentences_without_a_text_or_a_time_are_counted():
    row = {"text": ["a", " ", None, "b"], "true_start": [0, 1, 2, None], "true_end": [1, 2, 3, 4]}
    sentences, untimed = sentences_in(row)
    assert [each.text for each in sentences] == ["a"] and untimed == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": ["a"], "true_start": [0.0], "true_end": [1.0, 2.0]}, "text, true_start and true_end have 1, 1 and 2"),
        ({"text": ["a"], "true_start": ["x"], "true_end": [1.0]}, "no numbers of seconds"),
        ({"text": ["a"], "true_start": [0.0], "true_end": [float("nan")]}, "no numbers of seconds"),
        ({"text": [None], "true_start": [0.0], "true_end": [1.0]}, "no sentence with a time"),
        ({"text": "a"}, "no sentence with a time"),
        ({"text": [], "start": [], "end": []}, "no narration"),
    ],
)
def test_rows_that_cant_be_used(row, reason):
    with pytest.raises(BadSample, match=reason):
        sentences_in(row)


def test_films_and_sentences_that_cant_be_used_are_counted(tmp_path):
    times = {"start": [0.0], "end": [1.0]}
    path = table(
        tmp_path,
        {"text": ["a"], **times},
        {"text": ["a"], **times, "video_path": "damaged.mp4"},
        {"text": ["a", "b", "c"], "start": [0.0, 0.6, 5.0], "end": [1.0, 0.7, 6.0]},  # short; after the end of the film
        {"text": ["b"], "start": [7.0], "end": [8.0]},
        {"text": [" "], **times},
    )
    films = TimedFilms(path, inputs(), step=0.5)
    assert films.left_out == {timed_films.UNREADABLE_FILMS: 2, timed_films.UNREACHED: 3}
    assert len(films) == len(films.plans) == len(list(films)) == 2


def test_the_test_split_comes_first():
    film = {"bytes": video(frames=20), "path": None}
    splits = {}
    for split in ("train", "validation", "test"):
        splits[split] = [{"video": film, "text": [split], "start": [0.0], "end": [1.0]}]
        (plan,) = TimedFilms(splits, inputs()).plans
        assert plan.sentences[0].text == split


def test_the_share_of_narrated_films_has_missions_with_true_times():
    columns = {name: f"json.{column}" for name, column in TRUE.items()}
    films = TimedFilms(str(BABYAI), inputs(4, 6.0), columns)
    assert len(films.plans) == 5 and len(films) == 25 and films.has_subtitles and not films.left_out
    for plan in films.plans:
        starts, ends = np.concatenate([sentence.times for sentence in plan.sentences]).T
        assert sorted(starts)[1:] == sorted(ends)[:-1] and max(ends) - 1 < plan.times[-1] + 0.5 <= max(ends) + 0.5
    narrations = TimedFilms(str(BABYAI), inputs(4, 6.0), {"text": "json.text"})  # their own times
    assert len(narrations) == 25 and not narrations.has_subtitles


# what is refused


def test_texts_without_times_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the texts in 'text' have no times.*--localization_start_column"):
        TimedFilms(table(tmp_path, {"text": ["a"]}), inputs())


def test_true_times_of_subtitles_are_refused(tmp_path):
    row = {"srt": "1\n00:00:00,000 --> 00:00:01,000\na", "true_start": [0.0], "true_end": [1.0]}
    with pytest.raises(ValueError, match="the texts are the subtitles in 'srt'"):
        TimedFilms(table(tmp_path, row), inputs(), {name: name for name in ("true_start", "true_end")})


def test_a_column_that_is_missing_is_refused(tmp_path):
    row = {"text": ["a"], "begin": [0.0], "true_end": [1.0]}
    with pytest.raises(ValueError, match="no column 'true_start'"):
        TimedFilms(table(tmp_path, row), inputs(), {name: name for name in ("true_start", "true_end")})


def test_films_without_a_sentence_are_refused(tmp_path):
    path = table(tmp_path, {"text": ["a"], "start": [0.0], "end": [1.0], "video_path": "damaged.mp4"})
    with pytest.raises(ValueError, match=r"no film with a sentence whose time is known \(1 films"):
        TimedFilms(path, inputs())


@pytest.mark.parametrize(
    ("some", "seconds", "message"),
    [
        (inputs(seconds=None), None, "windows have no length. Give --localization_seconds"),
        (inputs(4, 2.0, fps=2.0), 1.0, "4 frames at 2 a second take 2 s"),
    ],
)
def test_windows_without_a_length_are_refused_before_the_data_is_read(some, seconds, message):
    with pytest.raises(ValueError, match=message):
        TimedFilms("no such folder", some, seconds=seconds)
