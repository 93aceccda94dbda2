"""The films of hf_pretext/samples/emoji_films: the script makes them again, and sound and frames say the same."""

import importlib
import io

import datasets
import numpy as np
import pytest
import torch
from recipe_runs import RECIPES

from hf_pretext.data.clips import to_clip
from hf_pretext.data.sources import open_splits
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.samples import SAMPLES

FILMS = SAMPLES / "emoji_films"
TIMES = {"train": 8, "validation": 2, "test": 2}  # films of a game


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES / "data"))
    return importlib.import_module("emoji_films")


@pytest.fixture(scope="module")
def rows():
    """All films by split, in order, undecoded, with their fields."""
    fields = ("game", "session", "clip", "split")
    sources = open_splits(str(FILMS), {name: f"json.{name}" for name in fields}, (("audio", "video"), *fields))
    places = {
        split: [(i, j) for i, count in enumerate(source.counts) for j in range(count)]
        for split, source in sources.items()
    }
    return {split: list(source.take(places[split])) for split, source in sources.items()}


def decoded(content):
    clip = to_clip(content, 2.0, 10, 20, sampling_rate=16_000)
    assert clip.mask.all() and clip.start == 0
    return clip.frames.permute(0, 2, 3, 1).numpy(), (clip.sound.numpy() * 32768).astype(np.int16)


def test_splits_are_by_session_and_have_all_games(rows):
    assert {split: len(some) for split, some in rows.items()} == {split: 10 * n for split, n in TIMES.items()}
    for split, some in rows.items():
        games = [row["game"] for row in some]
        assert len(set(games)) == 10 and {games.count(game) for game in games} == {TIMES[split]}
        assert {row["split"] for row in some} == {split}
        assert {row["session"] for row in some} == {"train": {0, 1, 2, 3}, "validation": {4}, "test": {5}}[split]
    assert sum(path.stat().st_size for path in FILMS.iterdir()) < 2e6


def test_the_script_makes_the_same_frames_and_samples(module, rows):
    by_key = {(row["game"], row["session"], row["clip"]): row for some in rows.values() for row in some}
    assert len(by_key) == 120
    for number, (emoji, motion) in enumerate(module.games()):
        game = f"{module.EMOJI[emoji]} {module.MOTIONS[motion].__name__}"
        session, clip = number % 6, number % 2
        frames, samples = module.film(emoji, motion, session, clip)
        stored = decoded(by_key[game, session, clip]["video"])
        assert np.array_equal(frames, stored[0]) and np.array_equal(samples, stored[1])
        assert len(np.unique(frames, axis=0)) > 4 and samples.std() > 1000  # neither still nor silent


def test_a_film_is_written_without_loss_and_always_alike(module):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (20, 64, 64, 3)).astype(np.uint8)
    samples = random.integers(-32768, 32768, 32_000).astype(np.int16)
    film = module.mp4(frames, samples, 10, 16_000)
    assert film == module.mp4(frames, samples, 10, 16_000)
    stored = decoded(film)
    assert np.array_equal(frames, stored[0]) and np.array_equal(samples, stored[1])


def test_one_cue_does_not_give_the_game(module):
    """Each emoji (with its timbre), way to move and melody belongs to two games; a pair of them to one."""
    games = module.games()
    assert len(set(games)) == len(games) == 10
    for part in zip(*games, strict=True):
        assert sorted(part) == sorted(2 * list(range(5)))
    assert len({tuple(sorted(melody)) for melody in module.MELODIES}) == 1  # their notes have one mean spectrum
    cycles = {melody[i:] + melody[:i] for melody in module.MELODIES for i in range(4)}
    assert len(cycles) == 20  # the order differs, wherever a clip begins


def test_a_note_begins_when_the_emoji_jumps(module):
    for emoji in range(5):
        for session in range(6):
            frames, samples = module.film(emoji, 4, session, 0)
            jumps = np.flatnonzero((np.diff(frames.astype(int), axis=0) != 0).any((1, 2, 3))) + 1  # frames
            heard = np.flatnonzero(samples)
            begins = heard[np.diff(heard, prepend=-400) > 400]  # after 25 ms of silence, longer than a period
            expected = {int(np.ceil(begin / 1600 - 0.5)) for begin in begins}  # frames show the middle of 1,600 samples
            assert 3 <= len(jumps) <= 8 and set(jumps) == expected & set(range(1, 20))


def test_the_folder_is_a_labelled_set_of_films():
    labelled = LabelledSet(str(FILMS), Inputs(Video(default_video_processor(32), 4)), "json.game")
    assert len(labelled.labels.names) == 10 and not labelled.left_out and not labelled.cut_from_train
    assert {split: len(labels) for split, labels in labelled.labels.splits.items()} == {
        split: 10 * n for split, n in TIMES.items()
    }
    assert labelled.pixels["test"].shape == (20, 3, 32, 32) and labelled.pixels["test"].dtype == torch.uint8


def test_datasets_reads_the_tars():
    data = datasets.load_dataset("webdataset", data_files=str(FILMS / "test-00000.tar"), split="train", streaming=True)
    row = next(iter(data.cast_column("mp4", datasets.Video(decode=False))))
    assert row["json"]["game"] == "frog bounce" and row["json"]["split"] == "test"
    assert io.BytesIO(row["mp4"]["bytes"]).read(8)[4:] == b"ftyp"
