"""Narrated films: each clip gets the narrations nearest to its own seconds, on real mp4 files, in the stream."""

import copy
import json

import datasets
import numpy as np
import pytest
import torch
from media import film, sound
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext.data.captions import Captions, label_number
from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.settings import StreamSettings

SECONDS, FILM_SECONDS, STEP = 0.5, 3.0, 0.5
WORDS = ["zero", "one and more", "two", "three", "four is a longer text", "five", "far after the end"]
FILM = film(seconds=FILM_SECONDS)  # ten frames a second, frame i of brightness 8 i
STARTS = [*(STEP * i for i in range(6)), 600.0]
LISTS = {"text": WORDS, "start": STARTS, "end": [start + STEP for start in STARTS]}
SRT = "\n\n".join(
    f"{i + 1}\n{int(start // 60):02}:{start % 60:06.3f} --> {int(start // 60):02}:{start % 60 + STEP:06.3f}\n{word}"
    for i, (start, word) in enumerate(zip(STARTS, WORDS, strict=True))
)


@pytest.fixture(scope="module")
def texts(cache):
    return Text(train_tokenizer(open_source([{"text": word} for word in WORDS], needed=("text",)), size=200), 16)


def video(seconds=SECONDS) -> Video:
    return Video(default_video_processor(16), 5, seconds=seconds)


def row(content=FILM, **more) -> dict:
    return {"video": {"bytes": content, "path": None}, **more}


def words_of(texts, example) -> list[str]:
    """The texts of an example's views; "" for an empty one."""
    return [
        texts.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
        for ids, mask in zip(example["input_ids"], example["attention_mask"], strict=True)
    ]


def middle_of(example) -> float:
    """Seconds in the film of the middle of a clip, from the brightness of its frames."""
    return (example["pixel_values_videos"].float().mean() / 8 * 0.1 + 0.05).item()


@pytest.mark.parametrize("form", [LISTS, {"subtitles": SRT}], ids=["lists", "subtitles"])
def test_each_clip_gets_the_narrations_of_what_it_shows(texts, form):
    inputs, seen = Inputs(video(), texts, views={"text": 3}), set()
    for seed in range(12):
        example = inputs(row(**form), np.random.default_rng(seed))
        middle = np.random.default_rng(seed).random() * (FILM_SECONDS - SECONDS) + SECONDS / 2
        assert middle_of(example) == pytest.approx(middle, abs=0.06)
        by_middle = sorted(range(6), key=lambda i: abs(STARTS[i] + STEP / 2 - middle))  # all of one length
        words = words_of(texts, example)
        assert words == [WORDS[i] for i in by_middle[:3]]
        seen.add(words[0])
    assert len(seen) > 3
    example = inputs.evaluation()(row(**form), None)
    assert middle_of(example) == pytest.approx(1.5, abs=0.06)
    assert words_of(texts, example) == [WORDS[2], WORDS[3], WORDS[1]]  # of two at one distance, the first


def test_narrations_draw_nothing_and_leave_the_clip_as_it_was(texts):
    draws, same = np.random.default_rng(3), np.random.default_rng(3)
    example = Inputs(video(), texts, views={"text": 3})(row(**LISTS), draws)
    alone = Inputs(video())(row(), same)
    assert torch.equal(example["pixel_values_videos"], alone["pixel_values_videos"])
    assert draws.bit_generator.state == same.bit_generator.state


def test_few_narrations_are_filled_up_with_empty_texts(texts):
    inputs = Inputs(video(), texts, views={"text": 4})
    few = {name: values[:2] for name, values in LISTS.items()}
    for form, words in (
        (few, WORDS[1::-1]),
        ({"text": "two"}, ["two"]),
        ({"text": ["two"]}, ["two"]),
        ({"subtitles": SRT.split("\n\n")[3]}, ["three"]),
    ):
        example = inputs(row(**form), None)
        assert words_of(texts, example) == words + [""] * (4 - len(words))
        assert example["input_ids"].shape == example["attention_mask"].shape and example["cut"].tolist() == [0] * 4
        empty = example["input_ids"][len(words) :]
        assert (empty == texts.tokenizer.pad_token_id).all() and not example["attention_mask"][len(words) :].any()
    padded = Text(texts.tokenizer, 16, padded=True)
    example = Inputs(video(), padded, views={"text": 4})(row(**few), None)
    assert example["input_ids"].shape == (4, 16) and words_of(texts, example) == [*WORDS[1::-1], "", ""]


def test_empty_texts_need_a_tokenizer_that_marks_them(texts):
    siglip = copy.copy(texts.tokenizer)
    siglip.model_input_names = ["input_ids"]
    inputs = Inputs(video(), Text(siglip, 16), views={"text": 4})
    assert inputs(row(**LISTS), None).keys() == {"pixel_values_videos", "input_ids", "cut"}
    with pytest.raises(ValueError, match="gives no attention_mask .model_input_names: input_ids.*can't be marked"):
        inputs(row(text="two"), None)


def test_captions_without_times_are_different_ones(texts):
    inputs, captions = Inputs(video(), texts, views={"text": 3}), {"text": ["zero", " ", "two", "three", "five"]}
    assert words_of(texts, inputs(row(**captions), None)) == ["zero", "two", "three"]
    drawn = [words_of(texts, inputs(row(**captions), np.random.default_rng(seed))) for seed in range(8)]
    assert all(len(set(words)) == 3 and set(words) <= set(WORDS) for words in drawn) and len(set(map(tuple, drawn))) > 2


def test_without_views_a_clip_has_the_one_nearest_narration(texts):
    inputs = Inputs(video(), texts)
    example = inputs(row(subtitles=SRT), None)
    assert example["input_ids"].ndim == 1 and texts.tokenizer.decode(example["input_ids"], True) == "two"
    plain = inputs(row(text="three"), None)
    assert texts.tokenizer.decode(plain["input_ids"], True) == "three"


def test_the_seconds_of_a_sound_are_those_of_its_narrations(texts):
    sounds = Audio(Wav2Vec2FeatureExtractor(), SECONDS, padded=True)
    inputs = Inputs(sounds, texts, views={"text": 2})
    narrated = {"audio": {"bytes": sound(), "path": None}, "text": WORDS[:2], "start": [0.1, 0.9], "end": [0.1, 0.9]}
    starts = [np.random.default_rng(seed).random() * 0.5 for seed in range(8)]
    for seed, start in enumerate(starts):
        words = words_of(texts, inputs(narrated, np.random.default_rng(seed)))
        assert words == (WORDS[:2] if start < 0.25 else WORDS[1::-1])
    assert min(starts) < 0.25 < max(starts)
    together = Inputs(sounds, video(), texts, views={"text": 2})(row(**LISTS), None)
    assert words_of(texts, together) == [WORDS[2], WORDS[3]]
    with pytest.raises(ValueError, match="clips have several lengths: 0.5, 1.0. Give all modalities the same seconds"):
        Inputs(sounds, video(1.0), texts)
    Inputs(sounds, video(1.0))


def test_a_clip_of_a_full_film_is_as_long_as_the_film(texts):
    inputs = Inputs(video(seconds=None), texts, views={"text": 2})
    assert set(words_of(texts, inputs(row(**LISTS), None))) == {WORDS[2], WORDS[3]}


def test_the_label_of_a_pair_is_its_nearest_narration(texts):
    for views in ({"text": 2}, {}):
        inputs = Inputs(video(), texts, views=views, pair_label="text")
        for form in (LISTS, {"subtitles": SRT}):
            assert inputs(row(**form), None)["labels"] == label_number("two")
        assert inputs(row(text="Five"), None)["labels"] == label_number("five")


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"subtitles": None}, "no narration"),
        ({"subtitles": "1\n\nno times"}, "not subtitles"),
        ({"text": [" "], "start": [0.0], "end": [1.0]}, "no narration"),
        ({"text": ["a"], "start": [], "end": [1.0]}, "have 1, no and 1 values"),
        ({"text": None, "start": None, "end": None}, "text is NoneType"),
    ],
)
@pytest.mark.parametrize("views", [{"text": 2}, {}], ids=["views", "one"])
def test_a_film_whose_narrations_can_not_be_used_is_a_bad_sample(texts, form, reason, views):
    with pytest.raises(BadSample, match=reason):
        Inputs(video(), texts, views=views)(row(**form), None)


def test_a_film_alone_and_narrations_alone_are_examples_of_one_kind(texts):
    inputs = Inputs(video(), texts)
    assert set(inputs(row(), None)) == {"pixel_values_videos"}
    for form in (LISTS, {"subtitles": SRT}):
        assert texts.tokenizer.decode(inputs(form, None)["input_ids"], True) == WORDS[0]
        drawn = [inputs(form, np.random.default_rng(seed)) for seed in range(20)]
        assert all(set(example) == {"input_ids", "attention_mask", "cut"} for example in drawn)
        assert len({texts.tokenizer.decode(example["input_ids"], True) for example in drawn}) > 3
    several = Inputs(video(), texts, views={"text": 3})
    assert words_of(texts, several(LISTS, None)) == WORDS[:3]
    drawn = [words_of(texts, several(LISTS, np.random.default_rng(seed))) for seed in range(20)]
    assert all(words == (WORDS + [""] * 3)[WORDS.index(words[0]) :][:3] for words in drawn)


def test_further_captions_next_to_narrations_are_refused(texts):
    drawn = Text(texts.tokenizer, 16, Captions(["other_captions/more"]))
    columns = {"other_captions/more": "more"}
    for form in (LISTS, {"subtitles": SRT}):
        needed = (*Inputs(video(), drawn).needed, *columns)
        with pytest.raises(ValueError, match="--other_captions has no effect on texts with times. Leave it out"):
            drawn.check_columns(open_source([row(**form, more="a")], columns=columns, needed=needed))


# the stream

FILMS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of films with subtitles: of 24, one has none, one has other content, one has no text."""
    made = tmp_path_factory.mktemp("films")
    for i in range(FILMS):
        (made / f"{i:02}.mp4").write_bytes(film(seconds=1.0 + 0.1 * (i % 5)))
        content = {3: "no subtitles", 9: "1\n00:00:01,000 --> 00:00:02,000\n\n", 15: None}.get(i, SRT)
        if content is not None:
            (made / f"{i:02}.srt").write_text(content)
    return str(made)


def run(source, texts, count, views=None, batch_size=4, **options):
    inputs = Inputs(video(), texts, views={"text": 2} if views is None else views)
    lenient = StreamSettings(max_bad_fraction=0.5)
    loader = StreamLoader(source, inputs, batch_size, seed=5, settings=lenient, **options)
    made = []
    while len(made) < count:
        made += [inputs.finish(batch) for batch in loader]
    loader.close()
    return made[:count], loader


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_bad_subtitles_are_replaced_and_counted(folder, texts):
    source = open_source(folder, needed=Inputs(video(), texts).needed)
    batches, loader = run(source, texts, FILMS // 4)
    assert all(len(batch["input_ids"]) == 4 and batch["attention_mask"][:, 0].any(1).all() for batch in batches)
    counted = {reason.partition(":")[0]: count for reason, count in loader.sample_log.reasons.items()}
    assert counted == {"not subtitles": 1, "no narration": 2}


def test_a_run_resumes_exactly_for_any_workers_and_ranks(folder, texts):
    source = open_source(folder, needed=Inputs(video(), texts).needed)
    expected, _ = run(source, texts, 9)  # more than an epoch
    assert not equal(expected[0], expected[6])
    helped, _ = run(source, texts, 9, num_workers=2)
    assert all(map(equal, helped, expected))
    for workers in (0, 2):
        resumed, _ = run(source, texts, 4, num_workers=workers, start=20)
        assert all(map(equal, resumed, expected[5:]))
    ranks = [run(source, texts, 9, batch_size=2, rank=rank, ranks=2)[0] for rank in range(2)]
    for step, batch in enumerate(expected):
        for rank, parts in enumerate(ranks):
            assert torch.equal(parts[step]["pixel_values_videos"], batch["pixel_values_videos"][rank::2])
            assert words_of(texts, flat(parts[step])) == words_of(
                texts, flat({k: v[rank::2] for k, v in batch.items()})
            )


def flat(batch: dict) -> dict:
    return {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}


def test_films_and_narrations_alone_train_as_their_own_kinds(folder, texts, tmp_path_factory):
    inputs = Inputs(video(), texts)
    table = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    table.write_text("\n".join(json.dumps(LISTS) for _ in range(8)))
    sources = [
        open_source(folder, needed=inputs.needed),
        open_source(folder, needed=("video",)),
        open_source(str(table), needed=(inputs.needed[1],)),
    ]
    batches, _ = run(Mixture(sources, one_source_a_step=True), texts, 12, views={})
    kinds = {tuple(sorted({"pixel_values_videos", "input_ids"} & batch.keys())) for batch in batches}
    assert kinds == {("pixel_values_videos",), ("input_ids",), ("input_ids", "pixel_values_videos")}


def test_a_labelled_set_has_the_captions_of_its_clips(texts, tmp_path):
    columns = {
        "video": [{"bytes": FILM, "path": None}] * 20,
        "text": [WORDS[i % 6] for i in range(20)],
        "label": [i % 2 for i in range(20)],
    }
    features = datasets.Features(
        {"video": datasets.Video(), "text": datasets.Value("string"), "label": datasets.Value("int64")}
    )
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "a.parquet")
    labelled = LabelledSet(str(tmp_path / "a.parquet"), Inputs(video(), texts, views={"text": 2}), "label")
    (batch,) = labelled.pretext_batches("test")
    assert [words_of(texts, {k: v[i] for k, v in batch.items()}) for i in range(len(batch["input_ids"]))] == [
        [text, ""] for text in labelled.texts("test")
    ]
