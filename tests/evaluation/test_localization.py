"""Temporal localization: models that know the film, the subtitle's time, chance, and its options."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captioned import WIDTH
from media import video
from torch import nn

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.localization import (
    MEASURE,
    MEDIAN,
    R1,
    LocalizationArguments,
    answers,
    chance_of,
    compute,
    described,
    of_chance,
    summary,
)
from hf_pretext.evaluation.measure import Subject, fitting
from hf_pretext.evaluation.timed_films import Plan, Sentence, TimedFilms
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.objectives.mil_nce import MilNceForPreTraining
from hf_pretext.objectives.videobert import VideobertForPreTraining
from hf_pretext.utils.settings import make_settings

FPS, STEP = 10, 0.5  # of `media.video`, and between windows
WORDS = ["dark", "grey", "bright"]  # a second of a film each: frames 0 to 9, 10 to 19, 20 to 29
TRUE = {"true_start": "true_start", "true_end": "true_end"}


@pytest.fixture(scope="module")
def inputs(cache):
    tokenizer = train_tokenizer(open_source([{"text": word} for word in WORDS], needed=("text",)), size=60)
    return Inputs(Video(default_video_processor(16), 2, seconds=0.2), Text(tokenizer, 8))


def rows(**columns) -> list[dict]:
    """A film of three seconds, each with a word, and subtitles that are a second late, the last one in time."""
    columns = {"text": WORDS, "true_start": [0.0, 1.0, 2.0], "true_end": [1.0, 2.0, 3.0], **columns}
    subtitles = {"start": [1.0, 2.0, 2.0], "end": [2.0, 3.0, 3.0]}
    return [{"video": {"bytes": video(frames=30), "path": None}, **columns, **subtitles, "class": c} for c in "ab"]


@pytest.fixture(scope="module")
def labelled(inputs):
    some = rows(text="dark")  # a film's class, with a plain caption
    made = LabelledSet({"train": some, "test": some, "validation": some}, inputs, "class")
    made.timed = TimedFilms(rows(), inputs, TRUE, step=STEP)
    return made


class Seeing(nn.Module):
    """Embeds a word as `place` of its number, and a window as the second that its first frame is in."""

    inputs, capabilities = ("video", "text"), ("embed",)

    def __init__(self, tokenizer, place=lambda number: number, second=lambda number: number):
        super().__init__()
        self.tokenizer, self.place, self.second = tokenizer, place, second

    def embed(self, kind, pixel_values_videos=None, input_ids=None, attention_mask=None):
        if kind == "text":
            words = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
            numbers = torch.tensor([self.place(WORDS.index(word)) for word in words])
        else:
            frame = ((pixel_values_videos[:, 0].mean((1, 2, 3)) + 1) * 127.5 / 8).round().long()
            numbers = self.second(frame // FPS)
        return F.one_hot(numbers, WIDTH).float()


def measured(labelled, **knowledge) -> dict[str, float]:
    tokenizer = labelled.inputs.by_name["text"].tokenizer
    return compute(Subject(Seeing(tokenizer, **knowledge).eval(), labelled))


def test_a_model_that_knows_the_film_finds_each_time(labelled):
    """Two windows are in each second, a quarter of a second from its middle."""
    assert measured(labelled) == {R1: 1.0, MEDIAN: 0.25}


def test_a_model_that_is_a_second_late_is_wrong_by_a_second(labelled):
    """As the subtitles: the last word is right."""
    late = measured(labelled, place=lambda number: min(number + 1, 2))
    assert late == {R1: pytest.approx(1 / 3), MEDIAN: 0.75}  # errors: 0.75 or 1.25, and 0.25 for the last word
    subtitles = described(labelled)["localization"]["subtitles"]
    assert subtitles == {R1: pytest.approx(1 / 3), MEDIAN: 1.0}


def test_a_model_that_embeds_all_alike_is_at_chance(labelled):
    alike = measured(labelled, place=lambda number: 0, second=torch.zeros_like)
    chance = chance_of(labelled, MilNceForPreTraining)
    assert alike == chance and chance[R1] == pytest.approx(1 / 3)


def test_a_set_without_films_is_not_measured(labelled, inputs):
    other = LabelledSet({split: rows(text="dark") for split in ("train", "test", "validation")}, inputs, "class")
    assert measured(other) == {} == chance_of(other, MilNceForPreTraining) == described(other)


def test_embeddings_that_are_not_finite_are_refused(labelled):
    broken = Seeing(labelled.inputs.by_name["text"].tokenizer)
    broken.embed = lambda kind, **columns: torch.full((len(next(iter(columns.values()))), 3), torch.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        compute(Subject(broken, labelled))


# numbers


def some_plans(random: np.random.Generator) -> list[Plan]:
    plans = []
    for windows in (1, 4, 7):
        times = np.arange(windows) + 0.5
        starts = random.uniform(-1, windows, (3, 2))
        intervals = [np.stack([some, some + random.uniform(0.5, 3, 2)], 1) for some in starts]
        intervals[0] = intervals[0][:1]
        plans.append(Plan(times, [Sentence(str(i), some, None) for i, some in enumerate(intervals)]))
    return plans


@pytest.mark.parametrize("seed", range(5))
def test_chance_is_what_random_windows_give(seed):
    random = np.random.default_rng(seed)
    plans = some_plans(random)
    chance = summary(map(of_chance, plans))
    right, errors = [], []
    for _ in range(4000):
        for plan in plans:
            for sentence in plan.sentences:
                time = random.choice(plan.times)
                right.append(any(start <= time < end for start, end in sentence.times))
                errors.append(min(abs(time - (start + end) / 2) for start, end in sentence.times))
    assert chance[R1] == pytest.approx(np.mean(right), abs=0.01)
    within = [np.mean(np.array(errors) <= chance[MEDIAN] + side) for side in (-1e-6, 1e-6)]
    assert within[0] <= 0.51 and within[1] >= 0.49


def test_the_median_of_single_answers_is_that_of_numpy():
    random = np.random.default_rng(0)
    for count in (1, 2, 5, 6):
        of_films = [np.stack([np.zeros(count), random.uniform(0, 9, count), np.ones(count)])]
        assert summary(of_films)[MEDIAN] == pytest.approx(np.median(of_films[0][1]))


def test_windows_that_are_equally_near_share_an_answer():
    sentence = Sentence("a", np.array([[0.0, 2.0]]), None)
    chosen = np.array([[True, False, True, False]])
    right, errors, weights = answers(chosen, np.array([0.5, 1.5, 2.5, 3.5]), [sentence])
    assert right.tolist() == [1, 0] and errors.tolist() == [0.5, 1.5] and weights.tolist() == [0.5, 0.5]


def test_a_sentence_that_occurs_twice_has_two_right_times():
    sentence = Sentence("a", np.array([[0.0, 1.0], [3.0, 4.0]]), None)
    right, errors, _ = answers(np.ones((1, 4), bool), np.array([0.5, 1.5, 2.5, 3.5]), [sentence])
    assert right.tolist() == [1, 0, 0, 1] and errors.tolist() == [0, 1, 1, 0]


# options and words


def test_objectives_that_embed_videos_and_texts_are_measured():
    assert MEASURE in fitting(MilNceForPreTraining) and MEASURE not in fitting(VideobertForPreTraining)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"localization_start_column": "start"}, "Give both, or neither"),
        ({"localization_step": 0.0, "localization_dataset": "films"}, "localization_step must be above 0"),
        ({"localization_seconds": 4.0}, "is for the films of localization_dataset"),
        ({"localization_step": 2}, "is for the films of localization_dataset"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_settings(LocalizationArguments, **settings)


def test_the_protocol_says_what_was_measured(labelled):
    protocol = MEASURE.protocol(described(labelled))
    for words in ("6 sentences", "2 films", "lasts 0.2 s", "every 0.5 s", "R@1 0.333, median error 1.0 s"):
        assert words in protocol
    assert [MEASURE.words(name) for name in MEASURE.headlines] == [
        "temporal localization, R@1",
        "temporal localization, median error in seconds",
    ]
    assert MEASURE.words("image_to_text_r1") is None
