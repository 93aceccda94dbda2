"""MIL-NCE's recipe in smoke size: on missions, on narrated films, and in one model of transformers."""

import json

import pytest
from conftest import REPOSITORY
from recipe_runs import main, refused
from transformers import AutoModel, CLIPTextModel, ResNetModel

import hf_pretext

pytestmark = pytest.mark.usefixtures("cache")
MIL_NCE, UNMEASURED = "mil_nce_babyai", ("--eval_dataset", "none")
NARRATED = REPOSITORY / "hf_pretext" / "samples" / "babyai_films" / "babyai_narrated"


def test_a_run_on_narrated_films_leaves_two_encoders(tmp_path):
    run = tmp_path / "run"
    options = ("--dataset", NARRATED, "--bag_size", 3, "--seconds", 4, "--logging_steps", 1)
    main(MIL_NCE, *options, *UNMEASURED, output_dir=run)
    for kind, encoder in (("video", ResNetModel), ("text", CLIPTextModel)):
        plain, info = AutoModel.from_pretrained(run, subfolder=kind, output_loading_info=True)
        assert type(plain) is encoder and not info["missing_keys"] and not info["unexpected_keys"]
    history = json.loads((run / "run.json").read_text())["history"]
    narrations = [entry["narrations"] for entry in history if "narrations" in entry]
    assert narrations and all(values == 3 for values in narrations)  # each film has five
    assert hf_pretext.load(run).task.bag_size == 3


def test_the_nearest_narration_alone(tmp_path):
    options = ("--dataset", NARRATED, "--positives", "nearest", "--seconds", 4, "--max_steps", 1, "--logging_steps", 1)
    main(MIL_NCE, *options, *UNMEASURED, output_dir=tmp_path / "run")
    history = json.loads((tmp_path / "run" / "run.json").read_text())["history"]
    assert [entry["narrations"] for entry in history if "narrations" in entry] == [1]


def test_films_alone_are_refused():
    assert "mil_nce can learn only from pairs. Leave it out" in refused(MIL_NCE, "--videos_alone", NARRATED)
