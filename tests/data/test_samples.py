"""Data sets that the package contains."""

import pytest

from hf_pretext.data.sources import open_source, open_splits
from hf_pretext.samples import DATA_SETS, SAMPLES, located


@pytest.mark.parametrize("name", DATA_SETS)
def test_each_is_opened_by_its_name(name):
    needed = {"emoji": ("image",), "shakespeare": ("text",)}.get(name, ("video",))
    sources = open_splits(name, {}, needed)
    assert sources.keys() == {"train", "validation", "test"}
    assert {source.name for source in sources.values()} == {name}
    assert len(open_source(str(SAMPLES / name), needed=needed)) == len(sources["train"])


def test_a_folder_of_the_user_with_the_same_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located("emoji") == str(SAMPLES / "emoji")
    (tmp_path / "emoji").mkdir()
    assert located("emoji") == "emoji"


@pytest.mark.parametrize("name", ["", "..", "emoji/..", "emoji/", "user/name", "babyai_films", "tiny_teacher"])
def test_other_names_stay(name):
    assert located(name) == name
