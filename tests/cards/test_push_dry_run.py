"""A push that sends nothing: the same checks and files as a push."""

import json
import socket

import pytest
import torch
from finished import MODEL, finished_run, online_hub

from hf_pretext import cli
from hf_pretext.cards.dry_run import dry_run, head
from hf_pretext.cards.push import push

hub = pytest.fixture(online_hub)
run = pytest.fixture(finished_run)


@pytest.fixture
def without_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a dry run opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def shown(run, *arguments, **options) -> tuple[bool, str]:
    lines = []
    passed = dry_run(run, *arguments, **options, say=lines.append)
    return passed, "\n".join(lines)


def test_it_lists_the_files_of_a_push_and_sends_nothing(hub, run):
    passed, text = shown(run, MODEL, checkpoints="all", training_state=True)
    assert passed and hub.requests == 0
    assert not list(run.glob(".push-*"))
    push(run, MODEL, checkpoints="all", training_state=True, say=lambda line: None)
    for revision in ("main", "checkpoint-2"):
        files = hub.files("model", MODEL, revision)
        of_revision = text.partition(f"{MODEL}, revision {revision}:")[2].partition("README.md begins")[0]
        assert {line.split()[-1] for line in of_revision.splitlines()[1:] if line} == files.keys() - {".gitattributes"}
        for name in files.keys() - {".gitattributes"}:
            assert f"{len(files[name]):,} bytes  {name}" in of_revision


def test_the_head_of_the_card_is_shown_without_its_metrics(run, without_network):
    passed, text = shown(run, MODEL)
    assert passed and "license: apache-2.0" in text and "pipeline_tag: image-feature-extraction" in text
    assert "model-index: (4 metrics)" in text and "value:" not in text
    assert "# ResNetModel, rotation pretraining" in text
    assert "2 metrics" in "\n".join(head("---\nlicense: mit\nmodel-index:\n- value: 1\n- value: 2\n---\n\n# a\n"))
    assert not any("metrics" in line for line in head("---\nlicense: mit\n---\n\n# a\n"))


def test_each_check_that_fails_is_shown(run, without_network):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text("{}")
    passed, text = shown(run, "model", revision="a b", checkpoints="some")
    assert not passed and text.count("failed  ") == 4 and "passed  " not in text
    for reason in (
        "no user or organisation",
        "is not a branch name",
        "--checkpoints some",
        "missing. Run the recipe again",
    ):
        assert reason in text
    assert "not checked  files" in text and "bytes  " not in text
    (run / "results.json").write_text(json.dumps(results))
    torch.save({}, run / "pytorch_model.bin")
    passed, text = shown(run, MODEL)
    assert not passed and "failed  files" in text and "may be a pickle" in text and "bytes  " not in text


def test_the_command_ends_with_a_status(run, without_network, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["push", str(run), MODEL, "--dry_run", "--private"])
    assert ended.value.code == 0 and "if it does not exist, as private" in capsys.readouterr().out
    (run / "config.json").unlink()
    with pytest.raises(SystemExit) as ended:
        cli.main(["push", str(run), MODEL, "--dry_run"])
    assert ended.value.code == 1 and "contains no checkpoint" in capsys.readouterr().out
