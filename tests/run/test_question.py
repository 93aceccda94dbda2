"""A run on the user's data is judged by a label of that data, on rows that were left out of training."""

import json
import re

import datasets
import numpy as np
import pytest
from conftest import EMOJI
from PIL import Image
from recipe_runs import CONTRASTIVE, ROTATION, main, on_two_processes, planned, refused

from hf_pretext import registry
from hf_pretext.data.hold_out import OtherRows
from hf_pretext.recipe import default_recipe
from hf_pretext.run import question
from hf_pretext.run.experiment import ask, plan

BRIEF = ["--max_steps", 1, "--image_size", 32, "--eval_rows", 120]


@pytest.fixture(scope="module")
def rows():
    return datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*.parquet"), split="train[:120]")


@pytest.fixture
def folder(rows, tmp_path):
    """Images in folders of their classes, a table with numbers of the rows, and one with a label."""
    for i, row in enumerate(rows):
        (tmp_path / "classes" / row["group"]).mkdir(parents=True, exist_ok=True)
        row["image"].save(tmp_path / "classes" / row["group"] / f"{i}.png")
    images = rows.select_columns(["image"])
    images.add_column("label", list(range(len(rows)))).to_parquet(tmp_path / "numbered.parquet")
    images.add_column("label", [row % 3 for row in range(len(rows))]).to_parquet(tmp_path / "thirds.parquet")
    images.add_column("kind", [row % 3 for row in range(len(rows))]).to_parquet(tmp_path / "kinds.parquet")
    return tmp_path


def test_class_folders_are_the_labels_and_test_rows_are_never_trained_on(folder, tmp_path):
    experiment = planned(ROTATION, "--dataset", folder / "classes", *BRIEF, output_dir=tmp_path / "run")
    (source,) = experiment.data.sources
    labelled = experiment.labelled
    assert isinstance(source, OtherRows) and labelled.cut_from_train == {"test", "validation"} and experiment.left_out
    sizes = {split: len(some) for split, some in labelled.labels.splits.items()}
    assert sizes == {"train": 87, "validation": 9, "test": 24} and len(source) == 87
    trained = {
        bytes(row["image"]["bytes"]) if row["image"].get("bytes") else row["image"]["path"]
        for row in everything(source)
    }
    judged = {row["image"]["path"] for split in ("validation", "test") for row in labelled._undecoded(split)}
    assert len(judged) == 33 and not trained & judged


@pytest.mark.parametrize("kind", ["object", "path", "other spelling"])
def test_the_same_data_in_another_form_is_cut_too(folder, tmp_path, kind, monkeypatch):
    """Else test rows would be trained on without notice."""
    monkeypatch.chdir(tmp_path)
    given = {
        "object": {"dataset": [datasets.Dataset.from_parquet(str(folder / "thirds.parquet"))]},
        "path": {"dataset": [folder / "classes"]},
        "other spelling": {"dataset": [str(folder / "classes")], "eval_dataset": f"{folder}/../{folder.name}/classes/"},
    }[kind]
    recipe = default_recipe("rotation", given)
    objective, line = registry.objective_class("rotation"), recipe._command_line()
    given |= {"eval_rows": 120, "image_size": 32, "output_dir": str(tmp_path / "run")}
    experiment = plan(ask(recipe, objective, line, line.with_defaults(given)))
    (source,) = experiment.data.sources
    assert isinstance(source, OtherRows) and len(source) == 87 and not experiment.sees("test")


def test_rows_without_end_are_not_searched(folder, tmp_path, capsys):
    class Endless:
        def __iter__(self):
            while True:
                yield {"image": Image.new("RGB", (40, 40)), "label": 1}

    recipe = default_recipe("rotation", {"dataset": [Endless()]})
    objective, line = registry.objective_class("rotation"), recipe._command_line()
    given = {"dataset": [Endless()], "max_steps": 1, "image_size": 32, "output_dir": str(tmp_path / "run")}
    experiment = plan(ask(recipe, objective, line, line.with_defaults(given)))
    assert experiment.labelled is None and "has no known length" in capsys.readouterr().out


def test_large_data_is_judged_only_if_it_is_named(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(question, "MOST_UNASKED", 100)
    given = ["--dataset", folder / "classes", *BRIEF]
    assert planned(ROTATION, *given, output_dir=tmp_path / "a").labelled is None
    assert "120 rows, which are many to search for a label. --eval_dataset names" in capsys.readouterr().out
    named = planned(ROTATION, *given, "--eval_dataset", folder / "classes", output_dir=tmp_path / "b")
    assert named.left_out and len(named.data) == 87


def everything(source):
    return [row for piece, count in enumerate(source.counts) for row in source.read(piece, 0, count)]


def test_the_card_says_what_it_was_judged_by(folder, tmp_path):
    results = main(ROTATION, "--dataset", folder / "classes", *BRIEF, output_dir=tmp_path / "run")
    assert results["data"]["rows"] == 87
    assert results["transfer"]["label"] == "label" and results["transfer"]["rows"]["test"] == 24
    assert results["transfer"]["test_seen_in_pretraining"] is False
    assert results["health"]["rows"] == 9 and results["health"]["trained_on"] is False
    again = main(
        ROTATION,
        "--dataset",
        folder / "classes",
        *BRIEF,
        "--resume_from_checkpoint",
        "last",
        output_dir=tmp_path / "run",
    )
    assert again["transfer"]["figures"] == results["transfer"]["figures"]


@pytest.mark.slow
def test_two_ranks_leave_out_the_same_rows(folder, tmp_path):
    on_two_processes(ROTATION, "--dataset", folder / "classes", *BRIEF, output_dir=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["data"]["rows"] == 87 and results["transfer"]["rows"]["test"] == 24


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("numbered.parquet", "the column 'label' of .*numbered.parquet has 120 values in 120 rows"),
        ("kinds.parquet", ""),
    ],
)
def test_data_without_a_label_is_trained_on_and_not_judged(folder, tmp_path, capsys, name, says):
    experiment = planned(ROTATION, "--dataset", folder / name, *BRIEF, output_dir=tmp_path / "run")
    assert experiment.labelled is None and not experiment.left_out and len(experiment.data) == 120
    assert re.search(f"No transfer is measured: .*{says}", capsys.readouterr().out)


def test_rows_without_a_label_are_no_second_class(rows, tmp_path, capsys):
    for split, labels in {"train": ["one"] * 120, "test": ["one"] * 60 + [""] * 60}.items():
        pairs = rows.select_columns(["image", "name"]).rename_column("name", "text").add_column("label", labels)
        pairs.to_parquet(tmp_path / "pairs" / f"{split}.parquet")
    experiment = planned(CONTRASTIVE, "--dataset", tmp_path / "pairs", *BRIEF, output_dir=tmp_path / "run")
    assert experiment.labelled is None and not experiment.left_out
    assert re.search("all 240 rows of .*pairs have the same label", capsys.readouterr().out)


def test_a_label_that_is_named_is_used(folder, tmp_path):
    given = ["--dataset", folder / "kinds.parquet", "--eval_label", "kind", *BRIEF]
    experiment = planned(ROTATION, *given, output_dir=tmp_path / "run")
    assert experiment.labelled.label == "kind" and np.ptp(experiment.labelled.labels.splits["test"]) == 2
    message = refused(ROTATION, *given[:2], "--eval_label", "colour", *BRIEF)
    assert "colour" in message


def test_none_skips_and_another_set_is_used_only_if_asked(folder, tmp_path):
    given = ["--dataset", folder / "classes", *BRIEF]
    assert planned(ROTATION, *given, "--eval_dataset", "none", output_dir=tmp_path / "a").labelled is None
    other = planned(ROTATION, *given, "--eval_dataset", "emoji", "--eval_label", "group", output_dir=tmp_path / "b")
    assert other.labelled.name == "emoji" and not other.left_out and len(other.data) == 120
    message = refused(ROTATION, *given, "--eval_dataset", "none", "--eval_label", "group")
    assert "--eval_label group needs a labelled set, but --eval_dataset is none" in message
    message = refused(ROTATION, *given, "--eval_dataset", "none", "--fine_tune", 1)
    assert "--fine_tune 1 needs a labelled set, but --eval_dataset is none" in message
