"""The recipe on images, from the command line to the results and what loads them."""

import json
import os
import re
import subprocess
import sys

import datasets
import pytest
import torch
from conftest import EMOJI
from PIL import Image
from recipe_runs import ROTATION, main, on_two_processes, refused, smoke_run
from transformers import AutoImageProcessor, AutoModel, pipeline

import hf_pretext
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.features import extract
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.stream.sample_log import read_lines

FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "results.json", "README.md", "report.png"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run, as a user starts it."""
    return smoke_run(ROTATION, "--use_cpu", output_dir=tmp_path_factory.mktemp("smoke") / "run")


def test_smoke_run_leaves_every_file(smoke):
    folder, _ = smoke
    assert set(os.listdir(folder)) >= FILES
    assert Image.open(folder / "report.png").size[0] > 800
    assert not [name for name in os.listdir(folder) if name.endswith((".bin", ".pt", ".tmp", ".pkl"))]


def test_output_shows_table_loading_lines_and_what_next(smoke):
    folder, output = smoke
    for words in (
        "trained (rotation)",
        "random",
        "pixels",
        "majority",
        "linear probe",
        "kNN",
        "accuracy",
        "Next steps:",
        "hf-pretext push",
    ):
        assert words in output
    lines = [line.strip() for line in output.splitlines() if "from_pretrained" in line or "import Auto" in line]
    assert len(lines) == 3
    code = "\n".join([*lines, "print(type(encoder).__name__, processor.crop_size['height'])"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder.parent)
    assert done.stdout.split() == ["ResNetModel", "64"], done.stderr


def test_results_hold_what_a_reader_needs(smoke):
    folder, _ = smoke
    results = json.loads((folder / "results.json").read_text())
    assert results["recipe"] == "rotation_emoji" and results["smoke"] is True
    assert results["objective"]["name"] == "rotation"
    assert results["seeds"][0]["samples_seen"] == 4 * 8 and results["seeds"][0]["seconds"] > 0
    assert results["settings"]["lr_scheduler_type"] == "cosine"
    assert results["versions"]["hf_pretext"] == hf_pretext.__version__
    transfer = results["transfer"]
    assert set(transfer["figures"]) == {"trained", "random", "pixels", "majority"}
    assert len(transfer["details"]["random"]) == 3
    assert set(transfer["details"]["trained"][0]["knn"]["layers"]) == {"-1", "-2", "-3"}
    assert transfer["beats_random"] == {"linear_probe_top1": None, "knn_top1": None}  # one seed shows nothing
    assert 0 <= results["pretext"]["accuracy"]["mean"] <= 1


def test_card_says_the_figures_of_the_results(smoke):
    folder, _ = smoke
    card, results = (folder / "README.md").read_text(), json.loads((folder / "results.json").read_text())
    for who in results["transfer"]["figures"].values():
        for value in who.values():
            assert f"{value['mean']:.3f}" in card
    assert "smoke run" in card and "report.png" in card
    assert "None" not in card.split("##")[1]


def test_a_plain_pipeline_gives_our_features(smoke):
    folder, _ = smoke
    pipe = pipeline("image-feature-extraction", model=str(folder), device="cpu")
    inputs = Inputs(ImageModality(AutoImageProcessor.from_pretrained(folder)))
    labelled = LabelledSet(str(EMOJI), inputs, "group", limit=30)
    ours = extract(AutoModel.from_pretrained(folder), labelled.batches("test"), description=None)[-1]
    rows = datasets.load_dataset("parquet", data_files=str(EMOJI / "test-*"), split="train")
    for i in (0, 7, 29):
        hidden = torch.tensor(pipe(rows[i * len(rows) // 30]["image"]))
        torch.testing.assert_close(hidden.mean((2, 3))[0], ours[i], atol=1e-4, rtol=1e-3)


def test_results_are_the_same_when_run_once_more(smoke, tmp_path):
    folder, _ = smoke
    second = main(ROTATION, output_dir=tmp_path / "again")
    before = json.loads((folder / "results.json").read_text())
    assert second["transfer"]["figures"] == before["transfer"]["figures"]
    assert second["pretext"] == before["pretext"]


def test_users_pictures_without_labels(tmp_path, emoji):
    """A folder of unlabelled images, one of them broken: trained on, and judged on another set that is asked for."""
    images = tmp_path / "images"
    images.mkdir()
    for i, row in enumerate(emoji(count=20)):
        row["image"].resize((50 + i, 70)).save(images / f"{i}.jpg")
    (images / "broken.jpg").write_bytes((images / "3.jpg").read_bytes()[:200])
    other = ["--eval_dataset", "emoji", "--eval_label", "group", "--eval_rows", 40]
    results = main(ROTATION, "--dataset", images, *other, output_dir=tmp_path / "run")
    assert results["data"]["rows"] == 21
    assert results["transfer"]["dataset"] == "emoji"
    assert sum(results["seeds"][0]["bad_samples"].values()) >= 1
    (bad,) = read_lines(tmp_path / "run" / "bad_samples.jsonl")
    assert bad == {"shard": str(images), "row": 20, "path": str(images / "broken.jpg"), "reason": bad["reason"]}


def test_a_mixture_of_users_data(tmp_path, emoji):
    for name, start in (("a", 0), ("b", 30)):
        (tmp_path / name).mkdir()
        for i in range(start, start + 20):
            emoji()[i]["image"].save(tmp_path / name / f"{i}.png")
    options = ["--dataset", tmp_path / "a", tmp_path / "b", "--mixture_weights", 3, 1, "--eval_dataset", "none"]
    results = main(ROTATION, *options, "--record_samples", output_dir=tmp_path / "run")
    assert results["data"]["rows"] == 40 and results["data"]["mixture_weights"] == [3, 1]
    keys = [key for line in read_lines(tmp_path / "run" / "samples-rank0.jsonl") for key in line["keys"]]
    assert len(keys) == 32 and 16 < sum(key.startswith(str(tmp_path / "a")) for key in keys) < 32
    assert any(re.fullmatch("epoch_of_source/.*/a", name) for name in results["seeds"][0]["history"][0])


def test_users_labelled_set(tmp_path, emoji):
    for row in emoji(count=60):
        folder = tmp_path / "labelled" / row["group"]
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{row['text']}-{row['style']}.png")
    results = main(
        ROTATION, "--eval_dataset", tmp_path / "labelled", "--eval_label", "label", output_dir=tmp_path / "run"
    )
    assert results["transfer"]["label"] == "label"
    assert sum(results["transfer"]["rows"].values()) == 60


def test_output_folder_of_a_finished_run(smoke):
    assert "contains a finished run" in refused(ROTATION, output_dir=smoke[0])
    message = refused(ROTATION, "--resume_from_checkpoint", "last", "--learning_rate", 9, output_dir=smoke[0])
    assert "contains a finished run with learning_rate 0.0015, not 9.0" in message
    message = refused(ROTATION, "--resume_from_checkpoint", "last", "--seed", 1, output_dir=smoke[0])
    assert "contains a finished run with seed 0, not 1" in message


@pytest.mark.slow
def test_two_processes(tmp_path):
    options = ["--eval_rows", "30", "--eval_strategy", "steps", "--eval_steps", "2"]
    output = on_two_processes(ROTATION, *options, output_dir=tmp_path / "run")
    assert output.count("Load the encoder with plain transformers") == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["processes"] == 2 and results["seeds"][0]["samples_seen"] == 4 * 8 * 2
