"""What is said of a folder or repository."""

import pytest
from finished import MODEL, READER, finished_run, online_hub

from hf_pretext.cards.info import show_info
from hf_pretext.cards.push import push

hub = pytest.fixture(online_hub)
run = pytest.fixture(finished_run)


def test_a_gated_repository_is_explained(hub, run, monkeypatch):
    push(run, MODEL, say=lambda text: None)
    hub.repository("model", MODEL).gated = True
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(ValueError, match="is gated: ask for access"):
        show_info(MODEL)


@pytest.mark.parametrize("content", ["[]", "{", '{"architectures": ["x[/red]"], "model_type": "vit"}'])
def test_what_is_told_of_a_config_is_no_markup_and_what_is_none_is_refused(tmp_path, content, capsys):
    (tmp_path / "config.json").write_text(content)
    if content.startswith('{"'):
        show_info(tmp_path)
        assert "x[/red] (vit)" in capsys.readouterr().out
    else:
        with pytest.raises(ValueError, match=r"config\.json is no"):
            show_info(tmp_path)


def test_info_tells_what_a_run_was(run, capsys):
    show_info(run)
    told = capsys.readouterr().out
    assert "ResNetModel" in told and "rotation: " in told and "117,504 samples in 3,672 steps" in told
    with pytest.raises(ValueError, match="holds neither"):
        show_info(run.parent)
