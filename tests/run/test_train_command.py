"""`hf-pretext train` and `hf_pretext.pretrain`, on the user's own data."""

import json
import subprocess
import sys

import datasets
import pytest
import torch
from conftest import CONFIGS, EMOJI
from recipe_runs import requested
from transformers import AutoModel

import hf_pretext
from hf_pretext.presets import CONTINUED_RATE
from hf_pretext.recipe import default_recipe
from hf_pretext.run import default
from hf_pretext.run.experiment import ask, plan

SHORT = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "image_size": 32}


@pytest.fixture(scope="module")
def rows():
    return datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*.parquet"), split="train[:40]")


@pytest.fixture
def place(rows, tmp_path, monkeypatch):
    """A folder with images, where the commands run."""
    (tmp_path / "images").mkdir()
    for i, row in enumerate(rows):
        row["image"].save(tmp_path / "images" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words, cwd):
    typed = [sys.executable, "-m", "hf_pretext.cli", *map(str, words)]
    return subprocess.run(typed, capture_output=True, text=True, cwd=cwd)


def test_the_command_trains_on_own_images_and_says_what_is_next(place):
    done = command(
        "train", "rotation", "--dataset", "images", "--max_steps", 2, "--per_device_train_batch_size", 4, cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert "rotation on 40 images of images" in done.stdout
    assert "hf-pretext evaluate runs/rotation --dataset" in done.stdout
    results = json.loads((place / "runs" / "rotation" / "results.json").read_text())
    assert results["seeds"][0]["steps"] == 2 and results["card"]["license"] is None
    assert AutoModel.from_pretrained(place / "runs" / "rotation").config.model_type == "resnet"
    repeated = command("train", "rotation", "--dataset", "images", "--max_steps", 2, cwd=place)
    assert repeated.returncode == 1 and "Resume it with --resume_from_checkpoint last" in repeated.stderr


def test_wrong_names_end_with_a_hint(place):
    done = command("train", "rottation", cwd=place)
    assert done.returncode == 1 and "no objective 'rottation'. Did you mean rotation?" in done.stderr
    done = command("train", "rotation", "--dataset", "nowhere", "--output_dir", "x", cwd=place)
    assert done.returncode == 1 and done.stderr.startswith("error: --dataset nowhere")
    assert "Traceback" not in done.stderr and not (place / "x").exists()


def test_python_trains_on_a_dataset_object_and_returns_results(place, rows):
    results = hf_pretext.pretrain("rotation", dataset=rows, output_dir="mine", **SHORT)
    assert results["data"]["rows"] == 40 and results.folder.name == "mine"
    assert results.report.size[0] > 100
    assert results._repr_html_().count("<img") == 1
    assert "rotation: mine/results.json" in repr(results)


@pytest.mark.slow
def test_python_on_the_embedded_set_shows_tables(place):
    results = hf_pretext.pretrain("rotation", eval_rows=40, **SHORT)
    (title,) = results.tables
    assert title == "transfer, image encoder: group of emoji, test split"
    names, trained, *_ = results.tables[title]
    assert names[:2] == ["encoder", "linear probe, top-1"] and trained[0] == "trained (rotation)"
    assert trained[1] in repr(results) and f"<td>{trained[1]}</td>" in results._repr_html_()
    assert results["card"]["license"] == "apache-2.0"


@pytest.mark.slow
def test_the_results_of_a_smoke_run_are_its_own(place):
    hf_pretext.pretrain("rotation", dataset="images", **SHORT)
    assert hf_pretext.pretrain("rotation", dataset="images", smoke=True).folder.name == "rotation-smoke"


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({"encoder": "some/model"}, CONTINUED_RATE),
        ({"image_encoder": "a/b", "text_encoder": "c/d"}, CONTINUED_RATE),
        ({"image_encoder": "a/b"}, 1e-3),  # the other one begins fresh
        ({"image_encoder": None, "text_encoder": "c/d"}, 1e-3),
        ({}, 1e-3),
    ],
)
def test_the_learning_rate_is_small_only_if_all_encoders_are_trained(given, rate):
    assert default_recipe("contrastive", given).settings["learning_rate"] == rate


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dataset": []}, "--dataset is missing"),
        ({"lerning_rate": 1}, "no option lerning_rate. Did you mean --learning_rate"),
        ({"dataset": "nowhere/at/all"}, "--dataset nowhere/at/all: no such file or folder"),
        ({"num_rotations": 3}, "num_rotations"),
    ],
)
def test_python_raises_before_anything_is_written(options, reason, place):
    with pytest.raises(ValueError, match=reason):
        hf_pretext.pretrain("rotation", **{"dataset": "images", "output_dir": "x", **options})
    assert not (place / "x").exists()


@pytest.mark.parametrize("objective", ["rotation", "masked_image", "colorization"])
@pytest.mark.parametrize("encoder", ["vit", "resnet"])
def test_defaults_fit_a_pretrained_encoder(place, objective, encoder):
    """What only fresh encoders of the defaults support is left out."""
    AutoModel.from_config(CONFIGS[encoder]()).save_pretrained("encoder")
    given = {"dataset": ["images"], "encoder": "encoder", "image_size": 32}
    recipe = default_recipe(objective, given)
    line = recipe._command_line()
    planned = plan(ask(recipe, hf_pretext.registry.objective_class(objective), line, line.with_defaults(given)))
    assert planned.request.first.learning_rate == CONTINUED_RATE and len(planned.data) == 40


def test_length_and_encoder_follow_the_data(place, monkeypatch):
    few = default_recipe("rotation", {"dataset": ["images"]})
    assert few.settings["num_train_epochs"] == 100 and few.encoder is hf_pretext.registry.preset("rotation").encoder
    assert "eval_dataset" not in few.settings and "license" not in few.settings
    monkeypatch.setattr(default, "samples_of", lambda *_: 100_000)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert default_recipe("rotation", {}).settings["num_train_epochs"] == 1.17
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    large = default_recipe("rotation", {})
    assert large.encoder is hf_pretext.registry.preset("rotation").large and large.settings["image_size"] == 224
    assert default_recipe("rotation", {"use_cpu": True}).settings["image_size"] == 64


def test_packed_texts_are_counted_in_sequences(place):
    (place / "texts.txt").write_text("\n\n".join(["a word " * 300] * 20))
    values = {"dataset": ["texts.txt"], "max_length": 256}
    size = 20 * 300 * len("a word ")
    objective = hf_pretext.registry.objective_class("masked_lm")
    assert default.samples_of(objective, values) == pytest.approx(size / (4 * 256), rel=0.15)
    assert default.samples_of(hf_pretext.registry.objective_class("sentence"), values) == 20


def test_epochs_that_are_given_win_over_steps_of_the_recipe(tmp_path):
    """Else --num_train_epochs would have no effect."""
    first = requested("contrastive_emoji", "--num_train_epochs", 2, output_dir=tmp_path / "run").first
    assert first.max_steps == -1 and first.num_train_epochs == 2
