"""Correspondence: wrong sounds, accuracy and its error of models that know the class, the clip or the moment."""

import json
import logging

import numpy as np
import pytest
import torch
from clips import AUDIO, CONFIGS
from media import RATE, sound
from torch import nn
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext import AudioVisualForPreTraining
from hf_pretext.evaluation import correspondence
from hf_pretext.evaluation.correspondence import MEASURE, kinds, of_other_class, of_same_class, standard_error, times
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import chance_levels, measure_model
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.video import Video, default_video_processor

CLASSES = list("aaaaabbbbccc")  # of 12 clips
APART, LOWEST = 40, 200  # Hz between tones, and the lowest
KINDS = ("other_class", "same_class", "shifted")


def film(first: int, second: int) -> bytes:
    """A second of frames of one brightness, and one of another: 8 times the numbers."""
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for number in [first] * 10 + [second] * 10:
            pixels = np.full((32, 32, 3), 8 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def tones(*numbers: int) -> bytes:
    seconds = np.arange(RATE) / RATE
    return sound(samples=np.concatenate([0.3 * np.sin(2 * np.pi * (LOWEST + APART * n) * seconds) for n in numbers]))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Clip i has the tone and the brightness 2 i for a second, then 2 i + 1. The splits differ in their order."""
    folder, tables = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("tables")
    rows = []
    for i, label in enumerate(CLASSES):
        (folder / f"{i}.wav").write_bytes(tones(2 * i, 2 * i + 1))
        (folder / f"{i}.mp4").write_bytes(film(2 * i, 2 * i + 1))
        files = {"audio": folder / f"{i}.wav", "video": folder / f"{i}.mp4"}
        rows.append({**{kind: {"path": str(path), "bytes": None} for kind, path in files.items()}, "label": label})
    for turn, split in enumerate(("train", "validation", "test")):
        (tables / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows[turn:] + rows[:turn])))
    return tables


def opened(tables, seconds=0.5, encoder=None, **options) -> LabelledSet:
    sounds = Audio(Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True), seconds)
    videos = Video(default_video_processor(32), 2, fps=4.0)
    if encoder is not None:
        videos.fit(encoder)
    return LabelledSet(str(tables), Inputs(sounds, videos, **options), "label", batch_size=5)


@pytest.fixture(scope="module")
def labelled(tables):
    return opened(tables)


class Hearing(nn.Module):
    """Knows the number of a sound and of frames. `same` compares the two."""

    inputs, capabilities = ("audio", "video"), ("match",)

    def __init__(self, same):
        super().__init__()
        self.same = same

    def match(self, input_values, pixel_values_videos, **columns):
        loudest = torch.fft.rfft(input_values).abs().argmax(1) * RATE / input_values.shape[1]
        of_sound = ((loudest - LOWEST) / APART).round()
        of_frames = ((pixel_values_videos.mean((1, 2, 3, 4)) + 1) * 127.5 / 8).round()
        return self.same(of_sound, of_frames)


CLASS_OF = torch.tensor([ord(name) for name in CLASSES for _ in range(2)])


def of_class(numbers):
    return CLASS_OF[numbers.long()]


# wrong sounds


@pytest.mark.parametrize("seed", range(20))
def test_each_clip_is_the_wrong_one_of_at_most_one_other(seed):
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(random.integers(1, 7)))
    classes = random.choice(len(shares), random.integers(2, 40), p=shares)
    largest = np.bincount(classes).max()
    for draw, fits, left_out in (
        (of_other_class, np.not_equal, max(2 * largest - len(classes), 0)),
        (of_same_class, np.equal, (np.bincount(classes) == 1).sum()),
    ):
        partner = draw(classes)
        clips = np.flatnonzero(partner >= 0)
        assert len(classes) - len(clips) == left_out
        assert len(set(partner[clips])) == len(clips)
        assert (partner[clips] != clips).all() and fits(classes[partner[clips]], classes[clips]).all()
        assert sorted(classes[partner[clips]]) == sorted(classes[clips])  # sounds alone give no class away
        assert (draw(classes) == partner).all()


def test_wrong_clips_are_of_many_places():
    classes = np.repeat(np.arange(4), 50)
    for draw in (of_other_class, of_same_class):
        apart = (draw(classes) - np.arange(200)) % 200
        assert len(set(apart)) > 40


# models that know something


@pytest.mark.parametrize(
    ("knows", "same", "expected"),
    [
        ("moment", lambda a, v: 2.0 * (a // 2 == v // 2) + (a == v), (1.0, 1.0, 1.0)),
        ("clip", lambda a, v: (a // 2 == v // 2).float(), (1.0, 1.0, 0.5)),
        ("class", lambda a, v: (of_class(a) == of_class(v)).float(), (1.0, 0.5, 0.5)),
        ("sounds alone", lambda a, v: a, (0.5, 0.5, 0.5)),
        ("frames alone", lambda a, v: v, (0.5, 0.5, 0.5)),
        ("nothing", lambda a, v: torch.zeros(len(a)), (0.5, 0.5, 0.5)),
    ],
)
def test_accuracy_is_what_a_model_knows(labelled, knows, same, expected):
    model = Hearing(same)
    metrics, levels = measure_model(model, labelled), chance_levels(model, labelled)
    assert list(metrics) == list(levels) == [f"correspondence_{k}{e}" for k in KINDS for e in ("", "_error")]
    assert [metrics[f"correspondence_{kind}"] for kind in KINDS] == pytest.approx(expected)
    assert {levels[f"correspondence_{kind}"] for kind in KINDS} == {0.5}
    for kind, accuracy in zip(KINDS, expected, strict=True):
        if accuracy == 1.0:
            assert metrics[f"correspondence_{kind}_error"] == 0.0


def test_the_frames_and_sounds_are_of_the_times_asked_for(labelled):
    for position, offset in ((0.0, 0), (1.0, 1)):
        (batch, *_) = labelled.at(position).joined_batches("test")
        of_sounds, of_frames = Hearing(lambda a, v: (a, v)).match(**batch)
        expected = torch.arange(2, 7) * 2.0 + offset
        assert torch.equal(of_sounds, expected) and torch.equal(of_frames, expected)
    assert labelled.at(0.0) is labelled.at(0.0) and times(labelled, "test").all()
    middle = next(iter(labelled.batches("test", "audio")))["input_values"]
    assert not torch.equal(middle, next(iter(labelled.at(0.0).batches("test", "audio")))["input_values"])


def test_a_set_too_large_for_memory_gives_the_same_metrics(labelled, tables, monkeypatch):
    monkeypatch.setattr("hf_pretext.evaluation.labelled_set.KEPT_BYTES", 1000)
    large = opened(tables)
    assert large._examples is None
    draws = torch.Generator()

    def noisy(a, v):
        draws.manual_seed(int(a.sum() + 31 * v.sum()))
        return -(a - v).abs() + 30 * torch.rand(len(a), generator=draws)

    metrics = measure_model(Hearing(noisy), labelled)
    assert metrics == measure_model(Hearing(noisy), large)
    assert 0.5 < metrics["correspondence_other_class"] < 1 and metrics["correspondence_shifted_error"] > 0


def test_reordered_rows_are_those_asked_for(labelled, tables):
    for some in (labelled, opened(tables)):
        order = [7, 0, 0, 3]
        (batch,) = some.reordered("test", order).batches("test", "video")
        everything = torch.cat([each["pixel_values_videos"] for each in some.batches("test", "video")])
        assert torch.equal(batch["pixel_values_videos"], everything[order])


# error and threshold


def test_the_standard_error_is_that_of_clips():
    right, wrong = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]]), np.array([[0.0, 0.0], [2.0, 0.0], [-1.0, 4.0]])
    share = np.array([4, 2, 2]) / 4  # of 4 answers, at 0.5
    assert standard_error(right, wrong, 0.5) == pytest.approx(np.std(share, ddof=1) / np.sqrt(3))


def test_the_error_of_chance_is_the_spread_of_a_random_answer(labelled):
    levels = chance_levels(Hearing(None), labelled)
    random = np.random.default_rng(0)
    guesses = random.random((20_000, 24)) < 0.5
    assert levels["correspondence_same_class_error"] == pytest.approx(guesses.mean(1).std(), rel=0.02)
    assert levels["correspondence_shifted_error"] == pytest.approx(levels["correspondence_same_class_error"] / 2**0.5)


def test_the_threshold_is_that_of_validation(labelled, monkeypatch):
    seen = []
    scores = correspondence.scores_of
    monkeypatch.setattr(correspondence, "scores_of", lambda *a: seen.append(a[1:]) or scores(*a))
    threshold = correspondence.threshold
    monkeypatch.setattr(correspondence, "threshold", lambda *a: seen.append("threshold") or threshold(*a) + 100)
    metrics = measure_model(Hearing(lambda a, v: -(a - v).abs()), labelled)
    assert metrics["correspondence_other_class"] == 0.5  # all scores are below it
    assert seen[:3] == [("other_class", "validation"), ("other_class", "test"), "threshold"]


# what a set does not have


def test_clips_without_another_time_leave_out_shifted_sounds_and_say_so(tables, caplog, monkeypatch):
    short = opened(tables, seconds=2.0)
    assert kinds(short) == ["other_class", "same_class"] and not times(short, "test").any()
    monkeypatch.setattr(correspondence.log, "propagate", True)
    parents = logging.getLogger("transformers")
    monkeypatch.setattr(parents, "propagate", True)
    model = Hearing(lambda a, v: a)
    with caplog.at_level(logging.WARNING):
        levels = chance_levels(model, short)
    metrics = measure_model(model, short)
    assert list(levels) == list(metrics) and "correspondence_shifted" not in metrics
    assert "wrong sound of another time is not measured: the validation or test split has fewer" in caplog.text
    text = MEASURE.protocol({"measures": {"trained": metrics}})
    assert "A wrong sound of another time is not measured" in text and "of the same class is not" not in text
    assert "for clips in which these sounds start at least 0.5 seconds apart" in text


@pytest.mark.parametrize(("seconds", "measured"), [(1.95, False), (1.55, False), (1.5, True)])
def test_sounds_that_start_too_near_are_not_wrong(tables, seconds, measured):
    """Of clips of 2 s: at 1.95 s the two parts have 97 % of their samples in common."""
    labelled = opened(tables, seconds=seconds)
    assert times(labelled, "test").tolist() == [measured] * 12
    assert ("shifted" in kinds(labelled)) == measured


def test_classes_of_one_clip_have_no_sound_of_the_same_class(tables):
    labelled = opened(tables)
    labelled.labels.splits["test"] = np.arange(12)
    assert kinds(labelled) == ["other_class", "shifted"]


def test_words_and_headlines():
    assert MEASURE.words("correspondence_shifted") == "correspondence, sound of another time"
    assert MEASURE.words("correspondence_same_class_error") == "correspondence, sound of the same class, standard error"
    assert MEASURE.words("matching_hard") is None
    assert MEASURE.headlines == tuple(f"correspondence_{kind}" for kind in KINDS)


# the objective


@pytest.mark.parametrize(
    ("settings", "retrieved"),
    [
        ({}, True),
        ({"fusion": "distance", "negatives": "shifted"}, True),
        ({"fusion": "concat"}, False),
        ({"fusion": "distance", "locate": True}, False),
    ],
)
def test_the_objective_is_measured_by_its_capabilities(tables, settings, retrieved):
    model = AudioVisualForPreTraining.from_encoders(audio=AUDIO["wav2vec2"](), video=CONFIGS["resnet"](), **settings)
    labelled = opened(tables, encoder=model.encoders["video"], views=model.views_of(model.task))
    metrics, levels = measure_model(model, labelled), chance_levels(model, labelled)
    assert list(levels) == [name for name in metrics if not name.endswith("left_out")]
    assert {f"correspondence_{kind}" for kind in KINDS} <= set(metrics)
    assert ("audio_to_video_r10" in metrics) == retrieved
    if retrieved:
        assert levels["audio_to_video_r10"] == pytest.approx(10 / 12)
