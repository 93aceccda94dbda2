"""A card is written again and keeps its author's entries."""

import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from recorded import RECORDED, recorded_results
from safetensors.torch import save_file

from hf_pretext.cards.refresh import refresh_card
from hf_pretext.cli import main

results = pytest.fixture(recorded_results)


def test_a_card_from_the_command_line(results, tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(results))
    for options, said in ((["--license", "mit"], "README.md"), (["--language", "english"], "--language english")):
        with pytest.raises(SystemExit) as ended:
            main(["card", str(tmp_path), *options])
        assert said in capsys.readouterr().out + str(ended.value.code)
    assert ModelCard((tmp_path / "README.md").read_text()).data.license == "mit"


def test_what_only_its_author_can_say_is_kept(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    refresh_card(tmp_path, "mit", ["en"], "Photographs were not tried.")
    card = ModelCard((tmp_path / "README.md").read_text())
    refresh_card(tmp_path, license="apache-2.0")  # the rest stays
    again = ModelCard((tmp_path / "README.md").read_text())
    assert (card.data.license, again.data.license) == ("mit", "apache-2.0")
    assert "Photographs were not tried." in card.text and card.text == again.text
    with pytest.raises(ValueError, match=r"no licence of this name\. Is it cc-by-4\.0 or"):
        refresh_card(tmp_path, license="CC-BY-4")
    assert ModelCard((tmp_path / "README.md").read_text()).data.license == "apache-2.0"


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_the_card_of_every_run_is_written_again(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    card = refresh_card(tmp_path / "run", license="mit").read_text()
    assert ModelCard(card).data.license == "mit"
    assert ("It prints:" in card) == ("It prints:" in (folder / "README.md").read_text())  # no weights: as it was


def test_no_card_is_written_for_weights_that_are_not_finite(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    save_file({"weight": torch.tensor([1.0, float("inf")])}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors has weights that are NaN or infinite: weight"):
        refresh_card(tmp_path, "mit")
    assert not (tmp_path / "README.md").exists()
