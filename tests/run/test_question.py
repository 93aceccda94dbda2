"""A run on the user's data is judged by a label of that data, on rows that were left out of training."""

import json

import datasets
import numpy as np
import pytest
from conftest import EMOJI
from recipe_runs import ROTATION, main, on_two_processes, planned, refused

from hf_pretext.data.hold_out import OtherRows

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
    images.add_column("kind", [row % 3 for row in range(len(rows))]).to_parquet(tmp_path / "kinds.parquet")
    return tmp_path


def test_class_folders_are_the_labels_and_test_rows_are_never_trained_on(folder, tmp_path):
    experiment = planned(ROTATION, "--dataset", folder / "classes", *BRIEF, output_dir=tmp_path / "run")
    (source,) = experiment.data.sources
    labelled = experiment.labelled
    assert isinstance(source, OtherRows) and labelled.split_by_us and experiment.cut
    sizes = {split: len(some) for split, some in labelled.labels.splits.items()}
    assert sizes == {"train": 87, "validation": 9, "test": 24} and len(source) == 87
    trained = {
        bytes(row["image"]["bytes"]) if row["image"].get("bytes") else row["image"]["path"]
        for row in everything(source)
    }
    judged = {row["image"]["path"] for split in ("validation", "test") for row in labelled._undecoded(split)}
    assert len(judged) == 33 and not trained & judged


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
    import re

    experiment = planned(ROTATION, "--dataset", folder / name, *BRIEF, output_dir=tmp_path / "run")
    assert experiment.labelled is None and not experiment.cut and len(experiment.data) == 120
    assert re.search(f"No transfer is measured: .*{says}", capsys.readouterr().out)


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
    assert other.labelled.name == "emoji" and not other.cut and len(other.data) == 120
    message = refused(ROTATION, *given, "--eval_dataset", "none", "--fine_tune", 1)
    assert "--fine_tune 1 needs a labelled set, but --eval_dataset is none" in message
