"""Names that may be published."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from hf_pretext.utils.paths import hashed, opened, relative, with_names, without_paths


def test_a_path_elsewhere_keeps_its_last_name_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative("/mnt/client/emoji") == ".../emoji" and relative("/mnt/client/*.tar") == ".../*.tar"
    inside = str(tmp_path / "runs" / "a")
    assert relative(inside) == "runs/a" and relative(inside, to_current=False) == ".../a"


@pytest.mark.parametrize("place", ["home", "current"])
def test_the_root_is_no_folder_that_a_path_is_relative_to(place, monkeypatch):
    monkeypatch.setattr(Path, "cwd" if place == "current" else "home", lambda: Path("/"))
    assert relative("/mnt/client/emoji") == ".../emoji"


def test_hashes_find_their_names():
    state = [{"files": {"a.tar": 1, "b.tar": 2}, "rows": 3}]
    hidden = [{"files": {hashed("a.tar"): 1, hashed("b.tar"): 2}, "rows": 3}]
    assert "a.tar" not in str(hidden) and hashed(hashed("a.tar")) == hashed("a.tar")
    assert with_names(hidden, state) == state and with_names(state, state) == state
    assert with_names(hidden, [{"files": {"a.tar": 9}}]) == [{"files": {"a.tar": 1, hashed("b.tar"): 2}, "rows": 3}]
    assert with_names([{"files": "digest"}], state) == [{"files": "digest"}] and with_names(state, []) == state


def test_a_config_loses_the_folders_of_its_parts_and_nothing_else():
    inner = {"_name_or_path": "/mnt/client/encoder", "hidden_size": 4}
    config = {"vision_config": inner, "encoders": [inner], "name": "_name_or_path"}
    assert without_paths(config) == {
        "vision_config": {"hidden_size": 4}, "encoders": [{"hidden_size": 4}], "name": "_name_or_path",
    }  # fmt: skip


def test_a_published_path_is_opened_on_this_machine(tmp_path, monkeypatch):
    home = str(Path.home() / "data" / "images")
    for path in (home, str(Path(constants.HF_HOME) / "sets" / "a"), "emoji", "user/set", "sets/a"):
        assert opened(relative(path)) == path
    with pytest.raises(ValueError, match="/set has lost the folders before its name"):
        opened(relative("/private/set"))
