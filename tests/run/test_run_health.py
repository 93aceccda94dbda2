"""Health without labels in a run: while training, at the end, in results.json, the card and the terminal."""

import json

import pytest
from conftest import EMOJI
from PIL import Image
from recipe_runs import CONTRASTIVE, MASKED_LM, ROTATION, SHAKESPEARE, main, planned, refused, requested

from hf_pretext.data.hold_out import hold_out
from hf_pretext.data.sources import open_source
from hf_pretext.evaluation import health_rows

pytestmark = pytest.mark.usefixtures("cache")
UNLABELLED = ("--eval_dataset", "none")
FEATURES = {"spread_image", "effective_rank_image", "dead_channels_image", "neighbours_image"}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, cache):
    """A run without labels that is measured every two of its steps, its results and its log."""
    folder = tmp_path_factory.mktemp("unlabelled") / "run"
    best = ("--load_best_model_at_end", "--metric_for_best_model", "dead_channels_image", "--save_total_limit", 3)
    options = ("--eval_strategy", "steps", "--eval_steps", 2, *best)
    results = main(ROTATION, *UNLABELLED, *options, output_dir=folder)
    state = json.loads((folder / "trainer_state.json").read_text())
    return folder, results, [entry for entry in state["log_history"] if "eval_loss" in entry]


def test_a_run_without_labels_is_measured_while_training_and_at_its_end(unlabelled):
    _, results, logs = unlabelled
    assert [entry["step"] for entry in logs] == [2, 4]
    of, wanted = results["health"], {"loss", "accuracy", *FEATURES}
    assert {f"eval_{name}" for name in wanted} <= logs[0].keys()
    assert of["rows"] == 64 and not of["trained_on"] and of["split"] is None and of["channels"] == {"image": 16}
    assert set(of["trained"]) == set(of["random"]) == wanted
    assert of["chance"] == {"loss": pytest.approx(1.38629, abs=1e-4), "accuracy": 0.25, "neighbours_image": 1 / 64}


def test_the_metrics_of_the_end_are_those_of_the_last_evaluation_bit_for_bit(unlabelled):
    _, results, logs = unlabelled
    step = results["seeds"][0]["weights"]["step"]
    last = next(entry for entry in logs if entry["step"] == step)
    assert {f"eval_{name}": value["mean"] for name, value in results["health"]["trained"].items()} == {
        name: value for name, value in last.items() if name.startswith("eval_")
    }


def test_fewer_dead_channels_are_better(unlabelled):
    weights = unlabelled[1]["seeds"][0]["weights"]
    assert weights["metric"] == "eval_dead_channels_image" and weights["chosen"] == "smallest"


@pytest.mark.parametrize(
    ("metric", "larger"), [("loss", False), ("neighbours_image", True), ("eval_accuracy", True), ("perplexity", False)]
)
def test_whether_larger_is_better(metric, larger):
    options = ("--load_best_model_at_end", "--eval_strategy", "steps", "--eval_steps", 2, "--save_steps", 2)
    assert requested(ROTATION, *options, "--metric_for_best_model", metric).first.greater_is_better is larger
    given = (*options, "--metric_for_best_model", metric, "--greater_is_better", not larger)
    assert requested(ROTATION, *given).first.greater_is_better is not larger


def test_the_effective_rank_is_no_score():
    options = ("--load_best_model_at_end", "--eval_strategy", "steps", "--eval_steps", 2, "--save_steps", 2)
    message = refused(ROTATION, *options, "--metric_for_best_model", "eval_effective_rank_image")
    assert "eval_effective_rank_image: the effective rank is a warning, not a score. Give loss, or neighb" in message


def test_the_card_shows_them_next_to_random_and_chance(unlabelled):
    card = (unlabelled[0] / "README.md").read_text()
    section = card.partition("## Health without labels")[2].partition("\n## ")[0]
    assert "Measured on 64 rows of `" in section and "which were not trained on; features of 16 channels" in section
    assert "| | trained | random | chance |" in section and "| effective rank, a warning only (image) |" in section
    assert "a warning if it is low, not a score" in section
    neighbours = next(line for line in section.splitlines() if line.startswith("| neighbours, R@1 (image) |"))
    assert neighbours.endswith("| 0.016 |")
    assert "Not measured: the run had no evaluation" in card


def test_the_report_shows_neighbours_of_held_out_images_below_the_curves(unlabelled):
    with Image.open(unlabelled[0] / "report.png") as report:
        assert report.height > 1_000  # the curves alone have 400
    assert (
        "![Training curves and nearest neighbours of images](report.png)" in (unlabelled[0] / "README.md").read_text()
    )


def test_held_out_rows_are_not_trained_on(tmp_path):
    run = planned(ROTATION, *UNLABELLED, output_dir=tmp_path)
    (others,), (held,) = hold_out([open_source(str(EMOJI))])
    assert run.held_out[0].places == held.places and len(run.data) == len(others)
    keys = {others.key(piece, i) for piece, count in enumerate(others.counts) for i in range(count)}
    assert not keys & {held.source.key(*place) for place in held.places}


def test_a_run_with_labels_trains_on_all_rows_and_is_measured_on_the_validation_split(tmp_path, monkeypatch):
    run = planned(ROTATION, "--eval_rows", 40, output_dir=tmp_path)
    assert len(run.data) == len(open_source(str(EMOJI))) and run.held_out == []
    rows = run.health_rows
    assert len(rows) == len(run.labelled.rows("validation")) > 30 and not rows.trained_on
    monkeypatch.setattr(health_rows, "MOST", 16)
    assert len(planned(ROTATION, "--eval_rows", 40, output_dir=tmp_path).health_rows) == 16


def test_with_labels_evaluations_while_training_have_both(tmp_path):
    options = ("--eval_rows", 40, "--eval_strategy", "steps", "--eval_steps", 4)
    results = main(ROTATION, *options, output_dir=tmp_path / "run")
    logs = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    (entry,) = [entry for entry in logs if "eval_loss" in entry]
    assert {"eval_knn_top1", "eval_accuracy", *(f"eval_{name}" for name in FEATURES)} <= entry.keys()
    assert results["health"]["split"] == "validation" and 30 < results["health"]["rows"] <= 40


def test_little_data_is_trained_on_in_full_and_that_is_named(tmp_path, capsys):
    options = ("--dataset", SHAKESPEARE, *UNLABELLED, "--vocab_size", 300)
    results = main(MASKED_LM, *options, output_dir=tmp_path / "run")
    assert results["health"]["trained_on"] and results["health"]["channels"].keys() == {"text"}
    assert "**which were trained on**" in (tmp_path / "run" / "README.md").read_text()
    assert "rows that were trained on" in capsys.readouterr().out
    with Image.open(tmp_path / "run" / "report.png") as report:
        assert report.height < 500  # curves alone


def test_texts_are_held_out_before_they_are_packed(tmp_path):
    lines = [f"the {i} cats of number {i * i} sat on a mat" for i in range(800)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    options = ("--dataset", tmp_path / "texts.txt", *UNLABELLED, "--vocab_size", 300)
    run = planned(MASKED_LM, *options, output_dir=tmp_path / "run")
    (held,), corpus = run.held_out, run.inputs.by_name["text"]
    texts = corpus.rows[0].pieces.texts
    assert len(texts) == 800 - 64 and len(run.health_rows) == 64
    training = {
        corpus.tokenizer.decode(texts.tokens[a:b]) for a, b in zip(texts.offsets, texts.offsets[1:], strict=False)
    }
    assert not training & {row["text"] for row in held.source.take(held.places)} and len(training) == 736


def test_pairs_without_labels_have_metrics_of_each_encoder(tmp_path):
    results = main(CONTRASTIVE, *UNLABELLED, "--max_steps", 2, output_dir=tmp_path / "run")
    assert results["health"]["channels"].keys() == {"image", "text"}
    assert {"neighbours_image", "neighbours_text"} <= results["health"]["chance"].keys()


def test_the_number_of_held_out_rows(tmp_path):
    run = planned(ROTATION, *UNLABELLED, "--held_out_rows", 10, output_dir=tmp_path / "run")
    assert len(run.health_rows) == 10 and not run.health_rows.trained_on
    assert planned(ROTATION, *UNLABELLED, "--held_out_rows", 0, output_dir=tmp_path / "run").health_rows.trained_on
    assert "--held_out_rows 2,000 is too many of 3,448 rows" in refused(ROTATION, *UNLABELLED, "--held_out_rows", 2000)
    assert "--held_out_rows 9 has no effect with --eval_dataset" in refused(ROTATION, "--held_out_rows", 9)


def test_rows_that_cannot_be_read_lose_no_results(tmp_path, monkeypatch, capsys):
    def unreadable(*args):
        raise ValueError("emoji: no row can be read to measure the model without labels.")

    monkeypatch.setattr("hf_pretext.run.health.HealthRows", unreadable)
    results = main(ROTATION, *UNLABELLED, output_dir=tmp_path / "run")
    assert "health" not in results and results["seeds"][0]["steps"] == 4
    assert "No metrics without labels: emoji: no row can be read" in capsys.readouterr().out
    assert "Health without labels" not in (tmp_path / "run" / "README.md").read_text()


@pytest.fixture
def collapsing(monkeypatch):
    """Options of a run of 40 steps. All features count as constant."""
    monkeypatch.setattr("hf_pretext.stream.collapse.CONSTANT", 100.0)
    return (*UNLABELLED, "--max_steps", 40, "--save_steps", 15, "--per_device_train_batch_size", 4)


def test_a_run_that_collapses_may_be_stopped_with_an_error_and_keeps_its_checkpoints(tmp_path, collapsing):
    with pytest.raises(SystemExit) as stopped:
        main(ROTATION, *collapsing, "--stop_on_collapse", True, output_dir=tmp_path / "run")
    message = stopped.value.code
    assert message.startswith("error: Training collapsed: in steps 1 to 40, the features of all rows are the same")
    kept = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert kept == {"checkpoint-30"} and not (tmp_path / "run" / "results.json").exists()


def test_else_the_card_says_that_it_collapsed(tmp_path, collapsing):
    results = main(ROTATION, *collapsing, output_dir=tmp_path / "run")
    assert results["seeds"][0]["collapsed"] == ["the features of all rows are the same, from about step 1"]
    limits = (tmp_path / "run" / "README.md").read_text().partition("## Limits")[2]
    assert "- The training of seed 0 collapsed: the features of all rows are the same, from about step 1.\n" in limits
