"""results.json is read in any version, and refused if it is damaged or incomplete."""

import copy
import json

import pytest
from conftest import REPOSITORY
from recorded import recorded_results

from hf_pretext.cards import read_results
from hf_pretext.cards.refresh import refresh_card
from hf_pretext.cards.results import expanded, hardware, transfers, upgraded

results = pytest.fixture(recorded_results)


@pytest.mark.parametrize(
    "change",
    [{"objective": "rotation"}, {"objective": {"name": "../x"}}, {"seeds": None}, {"transfer": {}}, {"machine": {}}],
    ids=str,
)
def test_results_that_are_none(results, tmp_path, change):
    (tmp_path / "results.json").write_text(json.dumps({**results, **change}))
    before = sorted(tmp_path.iterdir()), (tmp_path / "results.json").read_text()
    with pytest.raises(ValueError, match="incomplete or damaged|No objective|of the wrong type"):
        refresh_card(tmp_path)
    assert before == (sorted(tmp_path.iterdir()), (tmp_path / "results.json").read_text())


def test_numbers_too_large_are_missing(results, tmp_path):
    text = json.dumps(results).replace(str(results["seeds"][0]["seconds"]), "1e999")
    (tmp_path / "results.json").write_text(text)
    assert read_results(tmp_path)["seeds"][0]["seconds"] is None


def test_results_of_version_1_are_read_in_the_form_of_version_2():
    old = json.loads((REPOSITORY / "model_cards" / "flava_emoji" / "results.json").read_text())
    results = upgraded(old)
    assert "modality" in old and "modality" not in results and results["inputs"] == ["image", "text"]
    assert {kind: encoder["class"] for kind, encoder in results["encoders"].items()} == {
        "image": "FlavaImageModel",
        "text": "FlavaTextModel",
    }
    assert upgraded(results) == results and results["measures"] == old["measures"]


def test_paths_are_written_short_and_read_in_full(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", "/elsewhere/cache")
    monkeypatch.setenv("HOME", "/somebody")
    assert expanded("$HF_HOME/emoji") == "/elsewhere/cache/emoji"
    assert expanded("~/emoji") == "/somebody/emoji" and expanded("user/emoji") == "user/emoji"


def test_the_accelerator_is_what_trained_where_there_was_one():
    machine = {"cores": 2, "processor": "Xeon"}
    assert hardware(machine) == "2 cores of Xeon"
    assert hardware({**machine, "accelerator": "one of its kind"}) == "one of its kind"


def test_transfer_of_the_first_kind_of_data_comes_first(results):
    other = copy.deepcopy(results["transfer"])
    assert transfers({**results, "other_transfers": {"text": other}}) == [results["transfer"], other]
    del results["transfer"]
    assert transfers(results) == []
