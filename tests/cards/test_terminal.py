"""The terminal output at the end of a run."""

import json

import pytest
from recorded import recorded_results

from hf_pretext.cards import terminal
from hf_pretext.cards.tables import figure

results = pytest.fixture(recorded_results)


@pytest.fixture
def shown(tmp_path, capsys):
    """What `show` prints of results."""

    def printed(results: dict) -> str:
        (tmp_path / "results.json").write_text(json.dumps(results))
        terminal.show(tmp_path, "python recipes/my_recipe.py --dataset path/to/your/data")
        return capsys.readouterr().out

    return printed


def test_metrics_verdicts_and_what_to_do_next_are_shown(results, shown, tmp_path):
    text, transfer = shown(results), results["transfer"]
    for who in ("trained", "random"):
        assert all(figure(transfer["figures"][who][f"{method}_top1"]) in text for method in transfer["methods"])
        assert figure(results["measures"][who]["image_to_text_r1"]) in text
    assert text.count(" over random, ") == len(transfer["methods"])
    assert f'from_pretrained("{tmp_path}"' in text
    assert "python recipes/my_recipe.py" in text and f"hf-pretext push {tmp_path} you/your-encoder" in text


def test_without_transfer_that_is_said_and_nothing_is_claimed(results, shown):
    del results["transfer"]
    text = shown(results)
    assert "No labelled set, so no transfer was measured (--eval_dataset)." in text and "random" not in text


def test_a_test_split_that_was_trained_on_is_confessed(results, shown):
    results["transfer"]["test_seen_in_pretraining"] = False
    assert "not on unseen data" not in shown(results)
    results["transfer"]["test_seen_in_pretraining"] = True
    assert "these metrics are not on unseen data" in shown(results)


def test_names_are_no_markup(results, shown):
    results["transfer"]["label"] = "[red]kind[/]"
    assert "[red]kind[/] of " in shown(results)


def test_a_narrow_terminal_wraps_no_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert terminal.console().width == terminal.TABLE_WIDTH
    monkeypatch.setenv("COLUMNS", "200")
    assert terminal.console().width == 200


HEALTH = {
    "dataset": "emoji", "rows": 64, "trained_on": False, "split": None, "channels": {"image": 16},
    "trained": {"loss": {"mean": 1.2, "std": None}, "neighbours_image": {"mean": 0.5, "std": 0.01}},
    "random": {"neighbours_image": {"mean": None, "std": None}}, "chance": {"neighbours_image": 1 / 64},
    "warnings": ["The image encoder [red] has collapsed"],
}  # fmt: skip


def test_metrics_without_labels_and_warnings_are_shown(results, shown):
    assert "health" not in shown(results)
    text = shown({**results, "health": HEALTH})
    assert "health without labels, 64 rows held out of training" in text
    assert "0.500 ± 0.010" in text and "0.016" in text and "pretext loss" in text
    assert "WARNING: The image encoder [red] has collapsed.\n" in text
    assert "rows that were trained on" in shown({**results, "health": {**HEALTH, "trained_on": True}})
    assert "as it was" not in text
    text = shown({**results, "health": {**HEALTH, "start": {"neighbours_image": {"mean": 0.321, "std": None}}}})
    head, row = (next(line for line in text.splitlines() if name in line) for name in ("as it was", "neighbours, R@1"))
    assert [cell.strip() for cell in head.split("┃")[1:-1]] == ["metric", "trained", "as it was", "random", "chance"]
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["0.500 ± 0.010", "0.321", "—", "0.016"]
