"""Whatever states figures comes from recorded results, to the last digit."""

import copy
import importlib.util
import json
import re

import pytest
from conftest import REPOSITORY

from hf_pretext.cards import figure, publish, read_results, render, table, verdict
from hf_pretext.cards.__main__ import CLAIM, TABLE, claim, readme_table

INDIFFERENT = ("logging_steps", "save_steps", "save_total_limit", "output_dir")
RECORDED = sorted(path.parent for path in (REPOSITORY / "model_cards").glob("*/results.json"))


@pytest.fixture
def results():
    return copy.deepcopy(read_results(RECORDED[0]))


def test_there_is_a_card_for_every_recipe_that_does_not_say_that_nothing_was_measured():
    texts = {path.stem: path.read_text() for path in (REPOSITORY / "recipes").glob("*.py")}
    recipes = {name for name, text in texts.items() if "recipe = Recipe(" in text}
    unmeasured = {name for name in recipes if "\nMeasured: nothing yet." in texts[name]}
    assert {folder.name for folder in RECORDED} == recipes - unmeasured


def recipe_of(name: str, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "recipes"))
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.recipe


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
class TestRecorded:
    def test_card_is_what_the_results_give(self, folder):
        has_report = (folder / "report.png").exists()
        assert (folder / "README.md").read_text() == render(read_results(folder), has_report)

    def test_recipe_claims_what_was_measured(self, folder):
        text = (REPOSITORY / "recipes" / f"{folder.name}.py").read_text()
        assert CLAIM.search(text)[0] == claim(read_results(folder))

    def test_results_are_of_a_full_run_with_three_seeds(self, folder):
        results = read_results(folder)
        assert results["smoke"] is False
        assert len(results["seeds"]) >= 3 and len(results["transfer"]["random_seeds"]) >= 3

    def test_the_trained_encoder_beats_the_random_one(self, folder):
        assert read_results(folder)["transfer"]["beats_random"] == dict.fromkeys(
            read_results(folder)["transfer"]["beats_random"], True
        )

    def test_the_recipe_still_says_what_was_run(self, folder, monkeypatch):
        results, recipe = read_results(folder), recipe_of(folder.name, monkeypatch)
        ran = {**results["settings"], **results.get("augmentation", {}), **results.get("captions", {})}
        ran |= {**results["objective"], "max_length": results.get("max_length")}
        said = {name: value for name, value in recipe.settings.items() if name in ran and name not in INDIFFERENT}
        assert len(said) >= 5
        assert said == {name: ran[name] for name in said}

    def test_packed_texts_are_hardly_padded(self, folder):
        results = read_results(folder)
        if results["modality"] != "text":
            pytest.skip("pictures are not packed")
        assert results["packed"] is True and results["padding"] < 0.03

    def test_no_paths_of_the_machine_that_ran_it(self, folder):
        assert not re.search(r"(/home/|/root|/work|/tmp|/Users/)", (folder / "results.json").read_text())


def test_what_the_readme_says_of_the_ablation_is_in_its_table():
    told = next(line for line in (REPOSITORY / "README.md").read_text().splitlines() if "What helps on emoji" in line)
    figures = re.findall(r"0\.\d+", told)
    assert len(figures) > 10
    assert set(figures) <= set(re.findall(r"0\.\d+", (REPOSITORY / "benchmarks/contrastive_ablation.md").read_text()))


def test_readme_table_is_what_the_results_give():
    found = TABLE.search((REPOSITORY / "README.md").read_text())
    assert found[0] == found[1] + readme_table([read_results(folder) for folder in RECORDED]) + found[2]


def test_figure():
    assert figure({"mean": 0.54321, "std": 0.0123, "values": []}) == "0.543 ± 0.012"
    assert figure({"mean": 0.5, "std": None, "values": [0.5]}) == "0.500"


def test_table_has_a_row_for_each_contender(results):
    rows, first = table(results), results["transfer"]["methods"][0]
    assert [row[0] for row in rows] == [
        f"trained ({results['objective']['name']})",
        *list(results["transfer"]["figures"])[1:],
    ]
    assert rows[0][1] == figure(results["transfer"]["figures"]["trained"][f"{first}_top1"])


def test_verdict_never_claims_more_than_was_shown(results):
    verdicts = results["transfer"]["beats_random"]
    for answer, words in ((True, "it beats random"), (False, "nothing is shown"), (None, "no verdict")):
        verdicts.update(dict.fromkeys(verdicts, answer))
        assert all(words in sentence for sentence in verdict(results))


def test_card_without_transfer_figures_says_so(results):
    del results["transfer"]
    card = render(results)
    assert "Not measured" in card and "top-1" not in card


def test_card_is_written_whole(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    publish(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "results.json"]
    with pytest.raises(ValueError, match="holds no results.json"):
        publish(tmp_path / "nothing")
