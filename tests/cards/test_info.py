"""The summary of a folder or repository."""

import json
import os
import signal

import pytest
from finished import MODEL, READER, finished_run, online_hub
from recorded import recorded_results

from hf_pretext.cards.info import show_info, summary
from hf_pretext.cards.push import push
from hf_pretext.cards.tables import figure

hub = pytest.fixture(online_hub)
run = pytest.fixture(finished_run)


def test_a_gated_repository_is_explained(hub, run, monkeypatch):
    push(run, MODEL, say=lambda text: None)
    hub.repository("model", MODEL).gated = True
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(ValueError, match="is gated. Request access"):
        show_info(MODEL)


@pytest.mark.parametrize("content", ["[]", "{", '{"architectures": ["x[/red]"], "model_type": "vit"}'])
def test_names_of_a_config_are_no_markup_and_an_invalid_config_is_refused(tmp_path, content, capsys):
    (tmp_path / "config.json").write_text(content)
    if content.startswith('{"'):
        show_info(tmp_path)
        assert "x[/red] (vit)" in capsys.readouterr().out
    else:
        with pytest.raises(ValueError, match=r"config\.json is no"):
            show_info(tmp_path)


def test_info_describes_a_run(run, capsys):
    show_info(run)
    printed = capsys.readouterr().out
    assert "ResNetModel" in printed and "rotation: " in printed and "117,504 samples in 3,672 steps" in printed
    with pytest.raises(ValueError, match="contains neither"):
        show_info(run.parent)


def test_of_a_plain_checkpoint_it_is_said_that_nothing_is_known():
    lines = dict(summary({"architectures": ["ViTModel"], "model_type": "vit"}, None))
    assert lines["encoder"] == "ViTModel (vit)" and lines["objective"] == "none: a plain checkpoint"
    assert lines["results"] == "none: no results.json"


def test_results_without_weights_say_so_and_a_smoke_run_that_its_metrics_mean_nothing():
    results = recorded_results()
    lines = dict(summary({}, results))
    assert lines["encoder"] == "TimmWrapperModel (without its weights)" and lines["objective"] == "contrastive"
    assert "smoke" not in lines and "metrics mean nothing" in dict(summary({}, {**results, "smoke": True}))["smoke"]


def test_metrics_are_those_of_the_results_next_to_the_random_ones():
    results = recorded_results()
    lines = dict(summary({}, results))
    trained, random = (figure(results["transfer"]["figures"][who]["knn_top1"]) for who in ("trained", "random"))
    assert lines["kNN"].startswith(f"{trained} (random {random}), `{results['transfer']['label']}` of ")
    trained, random = (figure(results["measures"][who]["image_to_text_r1"]) for who in ("trained", "random"))
    assert lines["image to caption, R@1"] == f"{trained} (random {random})"


@pytest.mark.parametrize("content", [{"seeds": [3]}, {"objective": {}}, {"data": {"dataset": 1}}, {"seeds": [{}]}])
def test_results_that_lack_entries_are_explained(content, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({**recorded_results(), **content}))
    with pytest.raises(ValueError, match=r"results\.json of .* is incomplete or damaged"):
        show_info(tmp_path)


def test_files_that_never_end_are_refused(tmp_path):
    signal.alarm(20)
    for name in ("results.json", "config.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is .*a pipe, device"):
            show_info(tmp_path)
    signal.alarm(0)


def test_names_change_nothing_on_the_screen(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["x\x1b[2J"], "model_type": "vit"}))
    show_info(tmp_path)
    assert "\x1b" not in capsys.readouterr().out
