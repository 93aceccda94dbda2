"""What a run leaves when it is done, whatever fails while it is drawn, shown or pushed."""

import json
import os
import time
from functools import partial
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY
from recipe_runs import ROTATION, main

from hf_pretext.cards.report import draw, draw_fractions
from hf_pretext.run import publish as module
from hf_pretext.run.publish import publish
from hf_pretext.run.trackers import Trackers

FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "results.json", "README.md", "report.png"}

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def steps(monkeypatch):
    """What publishing does, step by step, in place of doing it; each step fails where its name is in `failing`."""
    done = SimpleNamespace(names=[], failing=set(), arguments={})

    def step(name, result=None):
        def take(*arguments):
            done.names.append(name)
            done.arguments[name] = arguments
            if name in done.failing:
                raise OSError(f"no room to {name}")
            return result

        return take

    monkeypatch.setattr(module, "tried", step("try the lines", {"lines": "import", "output": None}))
    monkeypatch.setattr(module, "panels_of", step("make a panel", [("panel", 3.0)]))
    monkeypatch.setattr(module, "panels_without_labels", step("draw neighbours", [("neighbours", 6.4)]))
    monkeypatch.setattr(module, "draw", step("draw"))
    monkeypatch.setattr(module, "write_card", step("write the card"))
    monkeypatch.setattr(module, "show", step("show"))
    monkeypatch.setattr(module, "publish_on_hub", step("push"))
    return done


@pytest.fixture
def experiment(tmp_path):
    """A run in a folder, pushed or not, with or without a labelled set."""

    def of(labelled=None, push=False):
        first = SimpleNamespace(output_dir=str(tmp_path), push_to_hub=push, device="cpu")
        recipe = SimpleNamespace(name="bread", command="bake bread")
        request = SimpleNamespace(first=first, recipe=recipe, given={}, say=print, trackers=Trackers())
        sets = SimpleNamespace(shown=labelled)
        return SimpleNamespace(request=request, labelled=labelled, sets=sets, panel_models=dict, health_rows="rows")

    return of


def test_results_are_written_as_they_are_returned(steps, experiment, tmp_path):
    results = publish(experiment(), {"recipe": "bread"}, None, time.perf_counter() - 5)
    assert steps.names == ["try the lines", "draw", "write the card", "show"]
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["usage"] == {"lines": "import", "output": None} and 5 < results["evaluation_seconds"] < 60


def test_a_card_is_there_before_the_test_set_is_drawn(steps, experiment):
    publish(experiment(labelled="some"), {}, None, time.perf_counter())
    assert steps.names == ["try the lines", "write the card", "make a panel", "draw", "write the card", "show"]
    assert steps.arguments["draw"][-1] == [("panel", 3.0)]


def test_without_a_labelled_set_held_out_images_are_drawn_and_nothing_of_texts(steps, experiment):
    publish(experiment(), {"health": {"channels": {"text": 8}}}, None, time.perf_counter())
    assert steps.names == ["try the lines", "draw", "write the card", "show"]
    steps.names.clear()
    publish(experiment(), {"health": {"channels": {"image": 8, "text": 8}}}, None, time.perf_counter())
    assert steps.names == ["try the lines", "write the card", "draw neighbours", "draw", "write the card", "show"]
    assert steps.arguments["draw neighbours"] == ({}, "rows", "cpu")
    assert steps.arguments["draw"][-1] == [("neighbours", 6.4)]


def test_what_fails_at_the_end_loses_no_results(steps, experiment, tmp_path, caplog):
    steps.failing = {"make a panel", "draw", "write the card", "show"}
    results = publish(experiment(labelled="some", push=True), {"recipe": "bread"}, "me/bread", time.perf_counter())
    assert json.loads((tmp_path / "results.json").read_text()) == results
    for words in ("report has no examples", "report was not written", "card was not written", "metrics can't be shown"):
        assert words in caplog.text
    assert steps.arguments["draw"][-1] == [] and steps.names[-1] == "push"


def test_a_tracker_that_fails_loses_no_results(steps, experiment, tmp_path, caplog):
    run = experiment()
    run.request.trackers.active = [object()]  # it has no writer
    publish(run, {"recipe": "bread"}, None, time.perf_counter())
    assert (tmp_path / "results.json").exists() and "object of --report_to has no results" in caplog.text
    assert steps.names[-1] == "show"


def test_it_is_pushed_where_that_is_asked_for_alone(steps, experiment, tmp_path):
    publish(experiment(), {}, "me/bread", time.perf_counter())
    assert "push" not in steps.names
    publish(experiment(push=True), {}, "me/bread", time.perf_counter())
    assert steps.arguments["push"][1:] == (tmp_path, print, "me/bread")


def test_without_an_evaluation_set_the_card_says_so(tmp_path):
    results = main(ROTATION, "--eval_dataset", "none", output_dir=tmp_path / "run")
    assert "transfer" not in results
    assert set(os.listdir(tmp_path / "run")) >= FILES
    assert "Not measured" in (tmp_path / "run" / "README.md").read_text()


def test_texts_with_signs_of_mathematics_are_drawn_as_they_are(tmp_path):
    results = json.loads((REPOSITORY / "model_cards" / "masked_lm_reviews" / "results.json").read_text())
    predictions = [("the $100 million #1 hit made $____, 50% off", "$200", {"$_": ["$5", "\\frac", "_", "^"]})]
    panel = partial(draw_fractions, transfer=results["transfer"], predictions=predictions)
    draw(tmp_path / "r.png", results, [(panel, 4.2)])
    assert (tmp_path / "r.png").stat().st_size > 10_000
