"""`hf-pretext compare OBJECTIVE... --dataset`: several objectives on the same data, with as many samples."""

import subprocess
import sys

import datasets
import pytest
from conftest import EMOJI

from hf_pretext.cards.compare import compare
from hf_pretext.cli import main
from hf_pretext.recipe import Recipe, pretrain_each


@pytest.fixture
def images(tmp_path):
    """A labelled folder of images, in class folders."""
    rows = datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*.parquet"), split="train[:120]")
    for i, row in enumerate(rows):
        folder = tmp_path / "images" / ("even" if i % 2 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{i}.png")
    return str(tmp_path / "images")


@pytest.fixture
def asked(monkeypatch):
    """The options of each run, in place of the run."""
    given = {}
    monkeypatch.setattr(Recipe, "run", lambda self, options: given.setdefault(self.name, options))
    return given


def test_all_see_as_many_samples_and_are_audited(images, tmp_path, asked):
    folders, failed = pretrain_each(["rotation", "masked_image"], 640, str(tmp_path / "runs"), dataset=[images])
    assert folders == [str(tmp_path / "runs" / name) for name in ("rotation", "masked_image")] and not failed
    assert {name: options["max_steps"] for name, options in asked.items()} == {"rotation": 20, "masked_image": 10}
    assert all(options["audit"] and options["dataset"] == [images] for options in asked.values())


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["rotation", "rotation"], {}, "rotation is named twice"),
        (["rotation", "runs"], {}, "runs"),
        (["rotation", "masked_lm"], {}, "masked_lm: .*text"),
        (["rotation", "jigsaw"], {"num_rotations": 2}, "jigsaw: There is no option num_rotations"),
    ],
    ids=["twice", "unknown", "data", "option"],
)
def test_nothing_is_trained_if_one_objective_can_not_be(images, tmp_path, asked, names, options, message):
    with pytest.raises(ValueError, match=message):
        pretrain_each(names, 64, str(tmp_path / "runs"), dataset=[images], **options)
    assert not asked


def test_a_folder_that_exists_is_kept(images, tmp_path, asked):
    (tmp_path / "runs" / "jigsaw").mkdir(parents=True)
    with pytest.raises(ValueError, match="jigsaw exists. Give another --output_dir, or compare finished runs"):
        pretrain_each(["rotation", "jigsaw"], 64, str(tmp_path / "runs"), dataset=[images])
    assert not asked


def test_one_that_fails_does_not_end_the_others(images, tmp_path, monkeypatch):
    def run(self, options):
        if self.name == "rotation":
            raise ValueError("no room")

    monkeypatch.setattr(Recipe, "run", run)
    folders, failed = pretrain_each(["rotation", "jigsaw"], 64, str(tmp_path / "runs"), dataset=[images])
    assert folders == [str(tmp_path / "runs" / "jigsaw")] and failed == ["rotation: no room"]


@pytest.mark.parametrize("arguments", [["--samples", "64"], ["--dataset", "emoji"]], ids=["samples", "dataset"])
def test_training_takes_data_and_samples(arguments):
    with pytest.raises(SystemExit, match="error: --(samples|dataset) trains objectives: give --dataset and --samples"):
        main(["compare", "rotation", *arguments])


@pytest.mark.slow
def test_the_command_trains_each_and_shows_the_table(images, tmp_path):
    typed = [sys.executable, "-m", "hf_pretext.cli", "compare", "rotation", "colorization", "--dataset", images]
    typed += ["--samples", "64", "--output_dir", str(tmp_path / "runs"), "--sort", "transfer"]
    done = subprocess.run(typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "best cue's bits, % of the model's" in " ".join(done.stdout.split())
    assert (tmp_path / "runs" / "compare.png").stat().st_size > 10_000
    rows = compare([tmp_path / "runs" / name for name in ("rotation", "colorization")])
    assert all(row["label_bits"] is not None for row in rows)
