"""Every seed of a run: trained, resumed where it was stopped, and what is said of it."""

import json
import math
import os
import re
import shutil
import subprocess
import weakref
from types import SimpleNamespace

import datasets
import pytest
import torch
from conftest import EMOJI
from recipe_runs import (
    BRIEFLY,
    CONTRASTIVE,
    FLAVA,
    MASKED_LM,
    MULTIWAY,
    ONE_THREAD,
    ROTATION,
    command,
    kill_once_there,
    main,
)
from safetensors.torch import load_file, save_file

from hf_pretext.run.build import Blueprint
from hf_pretext.run.evaluate import evaluate
from hf_pretext.run.train import finite, say_bad_samples, train_seed, while_training
from hf_pretext.stream.sample_log import read_lines

pytestmark = pytest.mark.usefixtures("cache")


def experiment(**request) -> tuple[SimpleNamespace, list[str]]:
    """A run, and the lines that it says."""
    said = []
    return SimpleNamespace(request=SimpleNamespace(say=said.append, **request)), said


# what is written and said of a seed


def test_a_log_keeps_what_json_can_hold():
    entry = {"loss": 0.5, "step": 3, "grad_norm": math.inf, "accuracy": math.nan, "epoch": 0.0}
    assert finite(entry) == {"loss": 0.5, "step": 3, "epoch": 0.0}


def test_a_seed_that_is_finished_is_not_trained_again(tmp_path):
    record = {"seed": 3, "steps": 40, "identity": {}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    of, said = experiment()
    assert train_seed(of, 3, SimpleNamespace(output_dir=str(tmp_path), max_steps=40)) == record
    assert said == [f"seed 3: already finished, in {tmp_path}"]


def test_nothing_is_measured_while_training_without_an_eval_strategy():
    assert while_training(experiment(first=SimpleNamespace(eval_strategy="no"))[0]) is None


def test_bad_samples_are_counted_and_the_first_are_listed(tmp_path):
    of, said = experiment()
    say_bad_samples(of, 3, {}, str(tmp_path))
    assert said == []
    lines = [{"shard": "a.tar", "row": row, "path": None, "reason": "damaged"} for row in range(7)]
    lines[1]["path"] = "b.png"
    (tmp_path / "bad_samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    say_bad_samples(of, 3, {"damaged": 6, "empty": 1}, str(tmp_path))
    assert said[0].startswith("seed 3: samples that could not be used were replaced (damaged: 6, empty: 1). See ")
    assert said[1:] == [f"  {'b.png' if row == 1 else 'a.tar'}:{row}: damaged" for row in range(5)]


def test_corrupt_pictures_are_reported_at_the_end(tmp_path, emoji, capsys):
    rows = emoji(count=30).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[4]["image"]["bytes"] = rows[4]["image"]["bytes"][:60]
    datasets.Dataset.from_list(rows, emoji(count=1).features).to_parquet(tmp_path / "data.parquet")
    main(ROTATION, "--dataset", tmp_path / "data.parquet", "--eval_dataset", "none", output_dir=tmp_path / "run")
    output = capsys.readouterr().out
    assert "could not be used were replaced" in output and "data.parquet:4: damaged image" in output


def test_captions_that_are_cut_are_counted(tmp_path, capsys):
    main(CONTRASTIVE, "--max_length", 4, "--eval_dataset", "none", "--max_steps", 2, output_dir=tmp_path)
    assert (
        "of the captions of this process were longer than 4 tokens (--max_length) and were truncated."
        in capsys.readouterr().out
    )


def test_parts_that_nothing_trains_are_reported(tmp_path, capsys):
    options = ("--dataset", EMOJI, *BRIEFLY, "--contrastive_weight", 0)
    main(MULTIWAY, *options, output_dir=tmp_path / "run")
    output = capsys.readouterr().out
    assert "weights get no gradient and are frozen" in output and "experts.vision" in output


def test_a_seed_leaves_no_model_in_memory_to_the_next(tmp_path, monkeypatch):
    built, alive, fresh = [], [], Blueprint.fresh

    def watched(blueprint, seed, random=False):
        alive.append(sum(model() is not None for model in built))
        model, missing = fresh(blueprint, seed, random)
        built.append(weakref.ref(model))
        return model, missing

    monkeypatch.setattr(Blueprint, "fresh", watched)
    main(ROTATION, "--seeds", 0, 1, 2, *BRIEFLY, output_dir=tmp_path / "run")
    assert len(built) >= 3 and alive[-2:] == [0, 0]


def test_a_run_that_diverges_ends_with_one_line_and_without_results(tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(ROTATION, "--learning_rate", 1e30, "--max_grad_norm", 0, "--save_total_limit", 1, output_dir=tmp_path)
    assert re.fullmatch(
        r"error: Training diverged: the loss of step \d+ is NaN .* --learning_rate 1e\+30 .*", ended.value.code
    )
    for name in ("run.json", "results.json", "README.md", "model.safetensors"):
        assert not (tmp_path / name).exists()


def test_results_of_weights_that_are_not_finite_are_refused(tmp_path):
    save_file({"weight": torch.tensor([math.nan])}, tmp_path / "model.safetensors")
    of, _ = experiment(arguments={3: SimpleNamespace(output_dir=str(tmp_path))})
    with pytest.raises(ValueError, match="model.safetensors has weights that are NaN or infinite: weight"):
        evaluate(of, {3: {"seed": 3}})


# a run that was stopped


@pytest.fixture(scope="module")
def stopped(cache, tmp_path_factory):
    """A run of several kinds of data that is not finished."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    main(MULTIWAY, "--eval_dataset", "none", "--max_steps", 2, "--eval_rows", 40, output_dir=folder)
    (folder / "run.json").unlink()
    return folder


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--codebook_size", 32), "was trained with codebook_size=64, not 32"),
        (("--per_device_train_batch_size", 16), "with 8 samples per step, but this run has 16"),
    ],
)
def test_an_unfinished_run_is_resumed_with_the_same_settings(stopped, tmp_path, option, message):
    shutil.copytree(stopped, tmp_path / "run")
    options = ("--eval_dataset", "none", "--max_steps", 2, "--eval_rows", 40, "--resume_from_checkpoint", "last")
    with pytest.raises(SystemExit, match=message):
        main(MULTIWAY, *options, *option, output_dir=tmp_path / "run")


# a finished run


@pytest.fixture(scope="module")
def done(cache, tmp_path_factory):
    """A finished run of two steps, and what it gives."""
    folder = tmp_path_factory.mktemp("done") / "run"
    return folder, main(ROTATION, "--eval_dataset", "none", "--max_steps", 2, output_dir=folder)


def test_a_finished_run_is_lengthened_and_says_so(done, tmp_path, caplog):
    folder, before = done
    shutil.copytree(folder, tmp_path / "run")
    options = ("--eval_dataset", "none", "--resume_from_checkpoint", "last")
    results = main(ROTATION, *options, "--max_steps", 5, output_dir=tmp_path / "run")
    assert "Lengthened at step 2 from 16 to 40 samples" in caplog.text
    (run,) = results["seeds"]
    assert (run["steps"], run["samples_seen"]) == (5, 5 * 8) and run["digest"] != before["seeds"][0]["digest"]
    assert run["lengthened"] == [{"step": 2, "from": 16, "to": 40}] and run["weights"] == {"step": 5}
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Seed 0 was lengthened at step 2 from 16 to 40 samples." in card and "`max_steps` 5" in card
    trained, first = (load_file(path / "model.safetensors") for path in (tmp_path / "run", folder))
    assert any(not torch.equal(trained[name], first[name]) for name in trained)
    assert main(ROTATION, *options, "--max_steps", 5, output_dir=tmp_path / "run")["seeds"] == results["seeds"]
    with pytest.raises(SystemExit, match="a finished run of --max_steps 5, and --max_steps 4 can't lengthen it"):
        main(ROTATION, *options, "--max_steps", 4, output_dir=tmp_path / "run")
    with pytest.raises(SystemExit, match="contains a finished run with learning_rate"):
        main(ROTATION, *options, "--max_steps", 9, "--learning_rate", 9, output_dir=tmp_path / "run")


def test_a_finished_run_is_lengthened_in_epochs(tmp_path, emoji):
    emoji(count=20).to_parquet(tmp_path / "data.parquet")
    options = ("--dataset", tmp_path / "data.parquet", "--eval_dataset", "none")
    first = main(ROTATION, *options, "--max_steps", -1, "--num_train_epochs", 1, output_dir=tmp_path / "run")
    options += ("--resume_from_checkpoint", "last", "--max_steps", -1)
    results = main(ROTATION, *options, "--num_train_epochs", 2, output_dir=tmp_path / "run")
    steps = first["seeds"][0]["steps"]
    assert results["seeds"][0]["lengthened"] == [{"step": steps, "from": 8 * steps, "to": 16 * steps}]
    assert steps == 3 and results["seeds"][0]["steps"] == 6


def test_weights_of_the_best_step_are_said_to_be_of_that_step(tmp_path, monkeypatch):
    values = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(
        "hf_pretext.run.train.while_training", lambda experiment: lambda model: {"badness": next(values)}
    )
    options = (
        "--eval_rows",
        30,
        "--max_steps",
        3,
        "--save_steps",
        1,
        "--save_total_limit",
        3,
        "--eval_strategy",
        "steps",
        "--eval_steps",
        1,
    )
    options += ("--load_best_model_at_end", "--metric_for_best_model", "badness", "--greater_is_better", False)
    results = main(ROTATION, *options, output_dir=tmp_path / "run")
    weights = {"step": 2, "metric": "eval_badness", "value": 1.0, "chosen": "smallest"}
    assert results["seeds"][0]["weights"] == weights and results["seeds"][0]["steps"] == 3
    said = "The weights of seed 0 are those of step 2 of 3: the one with the smallest `eval_badness` (1) of all evaluat"
    assert said in (tmp_path / "run" / "README.md").read_text()
    best, last = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("checkpoint-2", "checkpoint-3"))
    final = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(final[name], best[name]) for name in final)
    assert any(not torch.equal(final[name], last[name]) for name in final)


@pytest.mark.slow  # of texts, and of the trainer alone, it is shown each time
def test_killed_run_goes_on_and_ends_as_one_never_killed(tmp_path):
    """Two seeds, stopped by SIGKILL in the middle; then resumed from the last checkpoint."""
    options = ["--use_cpu", "--seeds", "0", "1", "--max_steps", "30", "--save_steps", "5", "--eval_rows", "30"]
    typed, whole = (command(ROTATION, *options, output_dir=tmp_path / name) for name in ("run", "whole"))
    unbroken = subprocess.Popen(whole, stdout=subprocess.DEVNULL)  # at the same time
    kill_once_there(typed, tmp_path / "run" / "checkpoint-10" / "trainer_state.json")
    assert not (tmp_path / "run" / "results.json").exists()

    refused = subprocess.run(typed, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "contains an unfinished run" in refused.stderr and "--resume_from_checkpoint last" in refused.stderr

    resumed = subprocess.run([*typed, "--resume_from_checkpoint", "last"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumes from" in resumed.stdout
    assert unbroken.wait() == 0
    outcome, unbroken = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "whole"))
    assert outcome["transfer"]["figures"] == unbroken["transfer"]["figures"]
    assert [run["samples_seen"] for run in outcome["seeds"]] == [240, 240]
    assert [e["loss"] for e in outcome["seeds"][0]["history"]] == [e["loss"] for e in unbroken["seeds"][0]["history"]]


@pytest.mark.slow
def test_killed_in_the_middle_of_packing_and_resumed_bit_for_bit(tmp_path):
    options = ["--max_steps", "24", "--save_steps", "3", "--eval_dataset", "none"]
    options += ["--logging_steps", "1", "--record_samples", "--unit", "span"]
    typed = command(MASKED_LM, "--use_cpu", *options, output_dir=tmp_path / "run")
    kill_once_there(typed, tmp_path / "run" / "checkpoint-6")
    assert not (tmp_path / "run" / "results.json").exists()
    resumed = subprocess.run([*typed, "--resume_from_checkpoint", "last"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumes from" in resumed.stdout
    main(MASKED_LM, *options, output_dir=tmp_path / "whole")
    runs = [json.loads((tmp_path / name / "results.json").read_text())["seeds"][0] for name in ("run", "whole")]
    assert runs[0]["digest"] == runs[1]["digest"]
    losses = [[entry["loss"] for entry in run["history"]] for run in runs]
    assert len(losses[0]) == 24 and losses[0] == losses[1]
    samples = [read_lines(tmp_path / name / "samples-rank0.jsonl") for name in ("run", "whole")]
    assert samples[0] == samples[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_killed_run_of_several_kinds_ends_as_one_never_killed(tmp_path):
    options = [
        "--use_cpu",
        "--disable_tqdm",
        "True",
        "--eval_rows",
        "40",
        "--eval_dataset",
        "none",
        "--max_steps",
        "24",
        "--save_steps",
        "7",
    ]
    typed = {
        name: command(FLAVA, *options, "--record_samples", output_dir=tmp_path / name) for name in ("whole", "run")
    }
    kill_once_there(typed["run"], tmp_path / "run" / "checkpoint-14", **ONE_THREAD)
    assert not (tmp_path / "run" / "run.json").exists()
    for again in ([*typed["run"], "--resume_from_checkpoint", "last"], typed["whole"]):
        subprocess.run(again, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD})
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    first, second = ((tmp_path / name / "samples-rank0.jsonl").read_text() for name in ("whole", "run"))
    assert first == second and len(first.splitlines()) == 24
