"""TensorBoard, wandb and trackio have the curves of a run, its results, its report and its card, and no private folder.

Runs in this file train two seeds as a user starts them. The results of all seeds are in the tracker's run of the last.
"""

import json
import sqlite3
from pathlib import Path

import pytest
from conftest import CONFIGS, REPOSITORY
from recipe_runs import ROTATION, requested, smoke_run
from transformers import AutoModel, ResNetConfig, TrainingArguments

from hf_pretext.run.trackers import LoggedArguments, hide_folders, metrics, named_run

PRIVATE, TOKEN = "a_private_folder", "hf_" + "NotARealTokenButLongEnough"
METRIC = "linear_probe_top1"


def recorded(name: str) -> dict:
    return json.loads((REPOSITORY / "model_cards" / name / "results.json").read_text(encoding="utf-8"))


def test_metrics_are_means_on_test_of_all_encoders():
    results = recorded("rotation_emoji")
    values = dict(metrics(results))
    assert values[f"test_trained/{METRIC}"] == results["transfer"]["figures"]["trained"][METRIC]["mean"]
    assert {name.split("/")[0] for name in values} >= {"test_trained", "test_random", "test_majority"}
    both = dict(metrics(recorded("audio_visual_atari")))
    assert {f"test_trained/{kind}/knn_top1" for kind in ("audio", "video")} <= both.keys()
    assert all(isinstance(value, (int, float)) for value in both.values())


def test_metrics_without_a_value_are_left_out():
    measures = {"trained": {"loss": {"mean": None, "std": None}, "rank": {"mean": float("nan")}, "top1": {"mean": 0.5}}}
    assert dict(metrics({"measures": measures})) == {"test_trained/top1": 0.5}


def test_each_seed_has_a_run_with_a_name():
    assert named_run({}, "runs/a", 0, [0, 1]) == named_run({"report_to": "none"}, "runs/a", 0, [0]) == {}
    assert named_run({"report_to": "wandb", "run_name": "mine"}, "runs/a", 1, [0, 1]) == {"run_name": "mine-seed-1"}
    (name,) = named_run({"report_to": "wandb"}, "runs/a", 0, [0]).values()
    assert name.startswith("a-2") and not name.endswith("seed-0")


def test_logged_arguments_have_neither_folder_nor_token(tmp_path):
    folder = tmp_path / PRIVATE / "run"
    args = LoggedArguments(output_dir=str(folder), hub_token=TOKEN, use_cpu=True, report_to="none")
    text = args.to_json_string()
    assert PRIVATE not in text and TOKEN not in text and json.loads(text)["output_dir"] == ".../run"
    assert args.output_dir == str(folder)
    assert isinstance(requested(ROTATION).first, LoggedArguments)
    assert PRIVATE in TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none").to_json_string()


def test_folders_of_configs_are_shortened(tmp_path):
    config, inside = CONFIGS["vit"](), CONFIGS["bert"]()
    config.text_config = inside
    config._name_or_path = inside._name_or_path = str(tmp_path / PRIVATE / "encoder")
    hide_folders(config)
    assert config._name_or_path == inside._name_or_path == ".../encoder"


@pytest.fixture
def tracked(cache, tmp_path, monkeypatch):
    """Returns a function that trains with a tracker, from an encoder in a private folder. It returns the run's."""
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1], layer_type="basic")
    AutoModel.from_config(config).save_pretrained(tmp_path / PRIVATE / "encoder")
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def train(tracker: str) -> Path:
        encoder = ("--encoder", tmp_path / PRIVATE / "encoder", "--hub_token", TOKEN)
        folder = tmp_path / PRIVATE / "run"
        return smoke_run(ROTATION, "--seeds", 0, 1, *encoder, "--report_to", tracker, output_dir=folder)[0]

    return train


def check_private(*files: Path) -> None:
    assert files
    for file in files:
        content = file.read_bytes()
        assert PRIVATE.encode() not in content and TOKEN.encode() not in content, file


@pytest.mark.slow
def test_tensorboard_has_the_results(tracked):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    run = tracked("tensorboard")
    (first,), (last,) = run.glob("runs/*"), run.glob("seed-1/runs/*")
    curves, results = (events.EventAccumulator(str(folder)).Reload() for folder in (first, last))
    assert all("train/loss" in each.Tags()["scalars"] for each in (curves, results))
    assert curves.Tags()["images"] == []
    written = json.loads((run / "results.json").read_text())["transfer"]["figures"]["trained"][METRIC]["mean"]
    assert results.Scalars(f"test/trained/{METRIC}")[-1].value == pytest.approx(written)
    (image,) = results.Images("report")
    assert image.width > 600 and image.height > 300
    names = ("card", "settings", "args", "model_config")
    texts = [results.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode() for name in names]
    words = ("# ResNetModel, rotation pretraining", '"num_rotations"', '"learning_rate"', '"hidden_sizes"')
    for text, word in zip(texts, words, strict=True):
        assert word in text and not text.startswith("---")
    check_private(*first.iterdir(), *last.iterdir())


@pytest.mark.slow
def test_wandb_has_the_results(tracked, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    quiet = {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true", "CONSOLE": "off", "X_DISABLE_META": "true"}
    for name, value in quiet.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    tracked("wandb")
    first, last = sorted(tmp_path.glob("wandb/offline-run-*"))
    files = [next(run.glob("run-*.wandb")) for run in (first, last)]
    for file, seed in zip(files, (0, 1), strict=True):
        assert b"train/loss" in file.read_bytes() and f"-seed-{seed}".encode() in file.read_bytes()
    assert f"test/trained/{METRIC}".encode() in files[1].read_bytes() and b"num_rotations" in files[1].read_bytes()
    assert {file.name.split("_")[0] for file in last.glob("files/media/*/*")} == {"report", "card"}
    assert list(first.glob("files/media/*/*")) == []
    check_private(*files)


@pytest.mark.slow
def test_trackio_has_the_results(tracked, tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    tracked("trackio")
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        metrics_of_runs = database.execute("select run_name, metrics from metrics").fetchall()
        configs = database.execute("select config from configs order by run_name").fetchall()
    rows, configs = [(name, json.loads(one)) for name, one in metrics_of_runs], [json.loads(one) for (one,) in configs]
    runs = sorted({name for name, _ in rows})
    assert [name[-7:] for name in runs] == ["-seed-0", "-seed-1"]
    assert {name for name, values in rows if "train/loss" in values} == set(runs)
    ends = {key: name for name, values in rows for key in values if key in ("report", "card", f"test/trained/{METRIC}")}
    assert ends == dict.fromkeys(("report", "card", f"test/trained/{METRIC}"), runs[1])
    assert [config.get("hf_pretext", {}).get("objective", {}).get("name") for config in configs] == [None, "rotation"]
    assert all(config["hidden_sizes"] == [16, 16] and config["learning_rate"] > 0 for config in configs)
    check_private(file)
