"""Clips of rows: decoded once for all kinds, kept where they are the whole file; views lie apart in time."""

import io

import av
import datasets
import numpy as np
import pytest
import torch
from media import RATE, film, sound
from transformers import ASTFeatureExtractor, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs, _clips
from hf_pretext.modalities._clips import Part
from hf_pretext.modalities.audio import Audio, AudioArguments
from hf_pretext.modalities.image import Augmentation
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.modules.shifted import near, same_sounds
from hf_pretext.stream.collate import collate
from hf_pretext.stream.loader import StreamLoader

SECONDS, ROWS, FILM = 0.5, 20, film(seconds=2.0)
CHANGES = Augmentation(crop_scale=0.5)


def audio(seconds=SECONDS, **options) -> Audio:
    return Audio(Wav2Vec2FeatureExtractor(do_normalize=False), seconds, padded=True, **options)


def video(seconds=SECONDS, augmentation=None) -> Video:
    return Video(default_video_processor(16), 3, seconds=seconds, augmentation=augmentation)


def row(content=FILM, **more) -> dict:
    return {"video": {"bytes": content, "path": None}, **more}


@pytest.fixture
def decodings(monkeypatch):
    """Arguments of each `to_clip`."""
    calls, decode = [], _clips.to_clip

    def counted(value, **options):
        calls.append(options)
        return decode(value, **options)

    monkeypatch.setattr(_clips, "to_clip", counted)
    return calls


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])) for name in first
    )


def test_a_film_is_decoded_once_for_its_frames_and_its_sound(decodings):
    sounds, films = audio(), video()
    together = Inputs(sounds, films)(row(), np.random.default_rng(0))
    at = np.random.default_rng(0).random()
    (call,) = decodings
    assert (call["frames"], call["sampling_rate"], call["seconds"], call["at"]) == (3, RATE, SECONDS, at)
    assert equal(together, {**sounds(row(), None, at), **films(row(), None, at)})


def test_kinds_that_need_other_seconds_are_decoded_one_by_one(decodings):
    sounds, films = audio(0.5), video(1.0)
    together = Inputs(sounds, films)(row(), None)
    assert [call["seconds"] for call in decodings] == [0.5, 1.0]
    assert equal(together, {**sounds(row(), None, 0.5), **films(row(), None, 0.5)})


def test_limits_and_loudness_of_each_kind_hold_when_they_are_decoded_together():
    from hf_pretext.data.limits import Limits

    few, short = Limits(frames=5), Limits(seconds=1.0)
    frames, sounds = Part(0.5, frames=3, limits=few), Part(0.5, sampling_rate=RATE, min_loudness=-3.0, limits=short)
    for joined in (frames.joined(sounds), sounds.joined(frames)):
        assert joined.limits == Limits(frames=5, seconds=1.0) and joined.min_loudness == -3.0 and joined.frames == 3
    loud = Inputs(audio(), video())
    loud.by_name["audio"].settings.min_loudness = -3.0
    with pytest.raises(BadSample, match="less than -3 dB"):
        loud(row(), None)


def test_a_clip_that_is_the_whole_file_is_kept_and_cropped_again(decodings):
    inputs, whole = Inputs(audio(), video(augmentation=CHANGES)), row(film(seconds=0.5), key="a:1")
    first, second = (inputs(whole, np.random.default_rng(seed)) for seed in (0, 1))
    assert len(decodings) == 1
    assert torch.equal(first["input_values"], second["input_values"])
    fresh = Inputs(audio(), video(augmentation=CHANGES))
    assert equal(second, fresh(whole, np.random.default_rng(1)))  # as if it had not been kept
    ((name, clip),) = inputs._clips._kept.items()
    inputs._clips._kept[name] = clip._replace(frames=torch.randint(0, 256, clip.frames.shape, dtype=torch.uint8))
    crops = [inputs(whole, np.random.default_rng(seed))["pixel_values_videos"] for seed in (0, 1)]
    assert not torch.equal(*crops)
    assert not inputs.evaluation()._clips._kept


def test_a_part_of_a_file_is_drawn_again_each_time(decodings):
    inputs, longer = Inputs(audio(), video()), row(key="a:1")
    first, second = (inputs(longer, np.random.default_rng(seed)) for seed in (0, 1))
    assert len(decodings) == 2 and not torch.equal(first["input_values"], second["input_values"])
    assert {call["at"] for call in decodings} == {np.random.default_rng(seed).random() for seed in (0, 1)}


def test_evaluation_with_a_generator_draws_the_place_of_a_clip_and_nothing_else(decodings):
    """As for the features of all rows between the steps of training."""
    settings = AudioArguments(loudness_jitter=6.0, noise_level=0.1, time_mask=0.5)
    inputs = Inputs(audio(settings=settings), video(augmentation=Augmentation(crop_scale=0.5, color_jitter=0.4)))
    at = np.random.default_rng(3).random()
    plain = inputs.evaluation()
    drawn = plain(row(), np.random.default_rng(3))
    assert [call["at"] for call in decodings] == [at] and at != 0.5
    expected = {**audio()(row(), None, at), **video()(row(), None, at)}
    assert equal(drawn, expected) and not equal(inputs(row(), np.random.default_rng(3)), expected)
    batch = {name: torch.as_tensor(value)[None] for name, value in drawn.items()}
    simple = Inputs(audio(), video())
    assert equal(plain.finish(batch), simple.finish(batch))


def test_clips_without_key_or_room_are_not_kept(decodings, monkeypatch):
    inputs, short = Inputs(audio(), video()), film(seconds=0.5)
    for _ in range(2):
        inputs(row(short), None)
    assert len(decodings) == 2
    monkeypatch.setattr(_clips, "KEPT_BYTES", 40_000)  # one clip has 3 * 3 * 48 * 64 bytes of frames, and its sound
    crowded = Inputs(video())
    for key in ("a:1", "a:2", "a:1", "a:2"):
        crowded(row(short, key=key), None)
    assert len(decodings) == 2 + 3 and set(crowded._clips._kept) == {("a:1", "video")}


def test_views_of_a_timed_kind_lie_half_of_all_positions_apart(decodings):
    sounds, films = audio(), video()
    inputs = Inputs(sounds, films, views={"audio": 2})
    example, at = inputs(row(), np.random.default_rng(0)), np.random.default_rng(0).random()
    other = (at + 0.5) % 1
    assert [(call["at"], call["frames"]) for call in decodings] == [(at, 3), (other, 0)]
    expected = torch.stack([sounds(row(), None, place)["input_values"] for place in (at, other)])
    assert torch.equal(example["input_values"], expected) and not torch.equal(expected[0], expected[1])
    assert torch.equal(example["pixel_values_videos"], films(row(), None, at)["pixel_values_videos"])
    batch = inputs.finish({name: torch.as_tensor(value)[None] for name, value in example.items()})
    assert batch["input_values"].shape == (1, 2, RATE // 2)
    assert inputs.noise()[0]["input_values"].shape == (2, 2, RATE // 2)


def test_a_view_whose_place_is_silent_is_of_the_first_place():
    inputs = Inputs(audio(settings=AudioArguments(min_loudness=-40.0)), video(), views={"audio": 2})
    silent_at_first = row(film(seconds=2.0, silent=1.0))
    example = inputs(silent_at_first, None)  # the middle, and the start
    assert example["sound_start"].tolist() == [0.75, 0.75]
    assert torch.equal(*example["input_values"])
    with pytest.raises(BadSample, match="quiet|silen|loud"):
        inputs(row(film(seconds=2.0, silent=2.0)), None)


def test_views_of_a_whole_file_are_the_same_and_decoded_once(decodings):
    inputs = Inputs(audio(), video(), views={"audio": 2})
    example = inputs(row(film(seconds=0.5), key="a:1"), np.random.default_rng(0))
    assert len(decodings) == 1 and torch.equal(*example["input_values"])


CHANGED = AudioArguments(noise_level=-10.0, time_mask=0.3, loudness_jitter=6.0)


def noise(seconds: float, period: float | None = None) -> bytes:
    """Noise, which repeats after a period in seconds."""
    once = 0.1 * np.random.default_rng(0).standard_normal(round((period or seconds) * RATE)).astype(np.float32)
    return sound(samples=np.resize(once, round(seconds * RATE)))


def finished(contents: list[bytes], extractor, settings=None) -> dict:
    """A batch of two views of each sound, with random changes."""
    inputs = Inputs(Audio(extractor, SECONDS, settings=settings), views={"audio": 2})
    draws = np.random.default_rng(0)
    made = [inputs({"audio": {"bytes": content, "path": None}}, draws) for content in contents]
    return inputs.finish(collate(made, fills=inputs.fills))


@pytest.mark.parametrize("settings", [AudioArguments(), CHANGED], ids=["unchanged", "changed"])
@pytest.mark.parametrize("front_end", ["log-mel", "waveform", "in the workers"])
def test_views_have_their_starts_and_equal_sounds_one_start(front_end, settings):
    """Random changes differ by view, so that they hide equal sounds from who looks at finished values."""
    extractor = {
        "log-mel": ASTFeatureExtractor(num_mel_bins=16, max_length=48),
        "waveform": Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True),
        "in the workers": SeamlessM4TFeatureExtractor(feature_size=80),
    }[front_end]
    contents = [noise(2.0), noise(0.55), noise(0.4), noise(2.0, period=0.25), sound(samples=np.zeros(2 * RATE))]
    batch = finished(contents, extractor, settings)
    apart = (batch["sound_start"][:, 1] - batch["sound_start"][:, 0]).abs()
    torch.testing.assert_close(apart, torch.tensor([0.75, 0.025, 0.0, 0.0, 0.0]), atol=1e-4, rtol=0)
    assert near(batch["sound_start"], 0.5).tolist() == [False, True, True, True, True]
    assert set(batch) - {"attention_mask"} == {extractor.model_input_names[0], "sound_start"}
    if settings is CHANGED and front_end != "in the workers":  # what finished values would say
        assert not same_sounds(batch[extractor.model_input_names[0]])[:4].any()


def test_starts_are_those_of_the_file():
    batch = finished([noise(2.5)] * 5, Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True))
    draws = np.random.default_rng(0)
    at = torch.tensor([draws.random() for _ in range(5)], dtype=torch.float32)
    expected = torch.stack([at, (at + 0.5) % 1], 1) * 2.0
    torch.testing.assert_close(batch["sound_start"], expected)


def test_noise_has_the_columns_of_views():
    inputs = Inputs(audio(), video(), views={"audio": 2})
    example = inputs(row(), np.random.default_rng(0))
    batch = inputs.finish({name: torch.as_tensor(value)[None] for name, value in example.items()})
    assert {name: values.shape[1:] for name, values in inputs.noise()[0].items()} == {
        name: values.shape[1:] for name, values in batch.items()
    }
    assert not near(inputs.noise()[0]["sound_start"], 100.0).any()
    alone = Inputs(audio(), video())
    assert "sound_start" not in alone.noise()[0]
    example = alone(row(), np.random.default_rng(0))
    assert "sound_start" not in alone.finish({name: torch.as_tensor(value)[None] for name, value in example.items()})


def test_views_of_other_kinds_stay_at_the_position_that_was_drawn():
    inputs = Inputs(video(augmentation=CHANGES), views={"video": 3})
    example = inputs(row(), np.random.default_rng(0))
    assert example["pixel_values_videos"].shape == (3, 3, 3, 16, 16) and example["colors"].shape == (3, 8)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Films: every third one is the whole clip, the others are longer."""
    contents = [film(seconds=0.5 if i % 3 == 0 else 1.0 + 0.1 * (i % 7)) for i in range(ROWS)]
    path = tmp_path_factory.mktemp("films") / "films.parquet"
    values = {
        "video": [{"bytes": content, "path": None} for content in contents],
        "label": [i % 2 for i in range(ROWS)],
    }
    features = datasets.Features({"video": datasets.Video(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(values, features).to_parquet(path)
    return str(path)


@pytest.mark.parametrize("views", [None, {"audio": 2}])
def test_batches_are_equal_for_any_workers_and_start(films, views):
    """Kept clips change no batch, whichever worker keeps them, and neither does a run that was resumed."""

    def batches(count, workers=0, start=0):
        inputs = Inputs(audio(), video(augmentation=CHANGES), views=views)
        loader = StreamLoader(
            open_source(films, needed=inputs.needed), inputs, 5, seed=5, num_workers=workers, start=start
        )
        made = []
        while len(made) < count:
            made += [inputs.finish(batch) for batch in loader]
        loader.close()
        return made[:count]

    expected = batches(9)  # more than two epochs
    for workers in (2, 4):
        assert all(map(equal, batches(9, workers), expected))
    for workers in (0, 2):
        assert all(map(equal, batches(4, workers, start=25), expected[5:]))
    assert not equal(expected[0], expected[3])


def test_a_labelled_set_decodes_each_film_once(films, decodings):
    labelled = LabelledSet(films, Inputs(audio(), video()), "label", batch_size=4)
    assert len(decodings) == len(labelled) == ROWS and all(call["at"] == 0.5 for call in decodings)
    batch = next(iter(labelled.pretext_batches("train")))
    assert batch["input_values"].shape[1:] == (RATE // 2,) and batch["pixel_values_videos"].shape[1:] == (3, 3, 16, 16)


def test_a_sound_file_next_to_a_film_is_decoded_for_itself(decodings):
    inputs = Inputs(audio(), video())
    both = {**row(), "audio": {"bytes": sound(samples=np.zeros(RATE, np.float32)), "path": None}}
    example = inputs(both, None)
    assert [bool(call["frames"]) for call in decodings] == [False, True] and not example["input_values"].any()


# films and sounds in two files


def flash_and_click(seconds: tuple[float, float], event: float) -> dict:
    """A row of a film of black frames, ten a second, with a white one, and a silent sound with a click, at a time."""
    buffer, (of_film, of_sound) = io.BytesIO(), seconds
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for i in range(round(10 * of_film)):
            pixels = np.full((16, 16, 3), 255 if i == round(10 * event) else 0, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    samples = np.zeros(round(of_sound * RATE), np.float32)
    samples[round((event + 0.05) * RATE)] = 0.9  # in the middle of the frame
    return row(buffer.getvalue(), audio={"bytes": sound(samples=samples), "path": None})


def times_of_events(frames: torch.Tensor, samples: torch.Tensor) -> tuple[float, float]:
    """Seconds in a clip of the middle of its brightest frame, and of its loudest sample."""
    brightness = frames.flatten(1).float().mean(1)
    assert brightness.max() > 200 and samples.abs().max() > 0.5
    return 0.1 * float(brightness.argmax()) + 0.05, float(samples.abs().argmax()) / RATE


@pytest.mark.parametrize("seconds", [(9.0, 10.0), (9.0, 6.0), (9.0, 9.0)])
def test_a_click_and_a_flash_of_two_files_of_different_length_stay_together(seconds):
    clips = 2.0
    films = Video(default_video_processor(16), 20, fps=10, seconds=clips)
    inputs, shared = Inputs(audio(clips), films), min(seconds) - clips
    both = flash_and_click(seconds, event=3.0)
    for start in (1.23, 2.0, 2.86):
        decoded = inputs.decoded(both, start / shared)
        assert decoded["audio"].start == pytest.approx(decoded["video"].start) == pytest.approx(start)
        flash, click = times_of_events(decoded["video"].frames, decoded["audio"].sound)
        assert flash == pytest.approx(click, abs=0.101)  # a frame


def test_one_kind_alone_has_the_columns_and_the_clips_that_it_has_among_all(decodings):
    """Also next to a file of another length, and the files of the others are not decoded."""
    inputs = Inputs(audio(), video(augmentation=CHANGES))
    longer = {**row(film(seconds=1.0)), "audio": {"bytes": sound(samples=np.linspace(0, 0.9, 4 * RATE)), "path": None}}
    for each in (row(), longer):
        together = inputs(each, np.random.default_rng(3))
        decodings.clear()
        alone = inputs.only(["audio"])(each, np.random.default_rng(3))
        assert [call["frames"] for call in decodings] == [0]
        assert equal(alone, {name: together[name] for name in alone}) and "input_values" in alone
        assert together.keys() - alone.keys() == {"pixel_values_videos", "colors"}
    frames = inputs.only(["video"]).evaluation()(longer, None)
    assert frames.keys() == {"pixel_values_videos"}
    finished = inputs.only(["audio"]).finish({name: torch.as_tensor(value)[None] for name, value in alone.items()})
    assert finished.keys() == {"input_values"}
    with pytest.raises(BadSample, match="^no audio in this row"):
        inputs.only(["audio"])({"text": "a"}, None)


def test_a_whole_sound_alone_is_kept(decodings):
    alone = Inputs(audio(), video()).only(["audio"])
    for seed in (0, 1):
        alone(row(film(seconds=0.5), key="a:1"), np.random.default_rng(seed))
    assert [call["frames"] for call in decodings] == [0]


def test_views_of_a_sound_next_to_a_film_lie_within_the_shorter_file(decodings):
    inputs = Inputs(audio(), video(), views={"audio": 2})
    silence_at_the_end = np.concatenate([np.full(2 * RATE, 0.5, np.float32), np.zeros(8 * RATE, np.float32)])
    both = {**row(), "audio": {"bytes": sound(samples=silence_at_the_end), "path": None}}
    for seed in range(5):
        first, second = inputs(both, np.random.default_rng(seed))["input_values"]
        assert first.all() and second.all()


def test_a_whole_film_next_to_a_longer_sound_is_kept_with_its_first_seconds(decodings):
    """The sound has one place, too, although it is longer than the clip."""
    inputs = Inputs(audio(), video())
    both = {
        **row(film(seconds=0.5), key="a:1"),
        "audio": {"bytes": sound(samples=np.linspace(0, 0.9, RATE)), "path": None},
    }
    first, second = (inputs(both, np.random.default_rng(seed)) for seed in (0, 1))
    assert len(decodings) == 2 and equal(first, second) and float(first["input_values"][0]) == 0
