"""Whatever states figures comes from recorded results, to the last digit."""

import ast
import copy
import importlib.util
import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import REPOSITORY
from hf_pretext.run.evaluate import about
from hf_pretext.run.publish import survived, try_to_write_card
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_pretext import registry
from hf_pretext.cards import publish, read_results, render, worded
from hf_pretext.cards.__main__ import CLAIM, TABLE, claim, readme_table
from hf_pretext.cards.metadata import eval_files
from hf_pretext.cards.refresh import refresh_card
from hf_pretext.cards.results import upgraded
from hf_pretext.cards.tables import KINDS, MISSING, figure, table, verdict
from hf_pretext.cards.usage import lines, printed_by
from hf_pretext.cli import main
from hf_pretext.evaluation.transfer import beats
from hf_pretext.utils.files import without_nan, write_json
from hf_pretext.utils.paths import relative

INDIFFERENT = ("logging_steps", "save_steps", "save_total_limit", "output_dir")
SHORT = {"flava_emoji": {"linear_probe_top1"}}  # what is known to fall short
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

    def test_the_trained_encoder_beats_the_random_one_or_the_card_says_that_it_does_not(self, folder):
        beats = read_results(folder)["transfer"]["beats_random"]
        lost = {name for name, answer in beats.items() if answer is not True}
        assert lost == SHORT.get(folder.name, set()) and len(lost) < len(beats)
        assert (folder / "README.md").read_text().count("NOT more than twice the spread of the seeds") == len(lost)

    def test_the_recipe_still_says_what_was_run(self, folder, monkeypatch):
        results, recipe = read_results(folder), recipe_of(folder.name, monkeypatch)
        ran = {**results["settings"], **results.get("augmentation", {}), **results.get("captions", {})}
        ran |= {**results["objective"], **results["card"], "max_length": results.get("max_length")}
        said = {name: value for name, value in recipe.settings.items() if name in ran and name not in INDIFFERENT}
        assert len(said) >= 5
        assert said == {name: ran[name] for name in said}
        assert results["about"] == recipe.doc.partition("\n")[0]

    def test_packed_texts_are_hardly_padded(self, folder):
        results = read_results(folder)
        if results["inputs"] != ["text"]:
            pytest.skip("images are not packed")
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
    rows, first = table(results, results["transfer"]), results["transfer"]["methods"][0]
    assert [row[0] for row in rows] == [
        f"trained ({results['objective']['name']})",
        *list(results["transfer"]["figures"])[1:],
    ]
    assert rows[0][1] == figure(results["transfer"]["figures"]["trained"][f"{first}_top1"])


def test_verdict_never_claims_more_than_was_shown(results):
    verdicts = results["transfer"]["beats_random"]
    for answer, words in ((True, "it beats random"), (False, "nothing is shown"), (None, "no verdict")):
        verdicts.update(dict.fromkeys(verdicts, answer))
        assert all(words in sentence for sentence in verdict(results["transfer"]))


# PIPELINE_TYPES of @huggingface/tasks 0.21.54, whose MODEL_LIBRARIES_UI_ELEMENTS have "transformers"
PIPELINE_TAGS = set((REPOSITORY / "tests" / "pipeline_tags.txt").read_text().split())


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_the_hub_reads_the_head_of_a_card(folder):
    results = read_results(folder)
    data = ModelCard.load(folder / "README.md").data
    native = results["objective"]["name"] != "multiway"  # whose whole plain transformers does not know
    assert data.library_name == "transformers" and data.pipeline_tag in (PIPELINE_TAGS if native else {None})
    assert {"hf_pretext", results["objective"]["name"]} <= set(data.tags)
    assert ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict() == data.to_dict()
    measured = {result.metric_name: result.metric_value for result in data.eval_results}
    trained = results["transfer"]["figures"]["trained"]
    assert sorted(measured.values()) == sorted(
        trained[f"{method}_{kind}"]["mean"] for method in results["transfer"]["methods"] for kind in KINDS
    )


def test_results_on_a_set_of_the_hub_go_to_its_page(results):
    assert eval_files(results) == {}
    revision = "0" * 40
    results["transfer"] |= {"dataset": "someone/birds", "revision": revision}
    results["data"]["revisions"] = {"someone/birds": revision}
    results["encoder"]["base_models"] = ["someone/vit"]
    (path, text), *_ = eval_files(results).items()
    assert path == ".eval_results/someone-birds.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert [entry.value for entry in entries] == [
        results["transfer"]["figures"]["trained"][f"{method}_top1"]["mean"] for method in results["transfer"]["methods"]
    ]
    data = ModelCard(render(results)).data
    assert (data.datasets, data.base_model) == (["someone/birds"], "someone/vit")
    assert f"Revision of `someone/birds`: {revision}" in render(results)


def test_of_a_smoke_run_nothing_is_claimed(results):
    results["smoke"] = True
    assert ModelCard(render(results)).data.eval_results is None


@pytest.mark.parametrize(
    "evil",
    [
        "x\n---\nlicense: stolen\n---\n",
        "<script>alert(1)</script>",
        "a | b | `c`",
        "![x](https://e.vil/t.png) [in](http://e)",
    ],
)
def test_hostile_names_are_no_more_than_text(results, evil):
    results["transfer"]["dataset"] = results["transfer"]["label"] = results["data"]["dataset"] = evil
    results["card"] = {"license": "mit", "language": ["en"], "limits": "<script>"}  # its author may write Markdown
    results["encoder"]["class"] = results["machine"]["processor"] = evil
    results["settings"]["names"] = [f"y](https://e.vil) {evil}"]  # whose own brackets a list brings
    results["usage"] = {"lines": lines(results, results["folder"]), "output": f"```\n{evil}"}
    card = ModelCard(render(results))
    assert card.data.license == "mit" and card.data.eval_results[0].dataset_name == evil
    assert f"'''\n{evil}" in card.text
    body = card.text.replace(f"'''\n{evil}", "")  # where it is shown as it was printed, in a block of its own
    body = re.sub(r"`[^`\n]*`", "", body)  # and in code, in which Markdown reads nothing
    assert not re.search(r"\[[^\]]*\]\(http", body)
    assert "<script>" not in body and "license: stolen\n" not in body
    rows = [line for line in body.splitlines() if line.startswith("| trained (")]
    assert len({row.count("|") for row in rows}) == 1


def test_what_results_say_is_never_run(results):
    results["usage"] = "open('stolen', 'w')"
    results["max_length"] = "1); open('stolen', 'w'); (1"
    results["folder"] = 'x"); open("stolen", "w"); print("'
    code = lines(results, results["folder"])
    called = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert "open" not in {name.id for name in called if isinstance(name, ast.Name)}
    assert results["folder"] in {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}


def test_figures_that_are_no_numbers_are_missing(results, tmp_path):
    trained = results["transfer"]["figures"]["trained"]
    trained["knn_top1"] = {"mean": math.nan, "std": math.nan, "values": [math.nan]}
    results["seeds"][0] |= {"seconds": math.inf, "samples_per_second": math.nan}
    (tmp_path / "results.json").write_text(json.dumps(results))
    card = ModelCard(publish(tmp_path).read_text())
    assert "nan" not in card.content.lower().replace("finance", "") and "inf" not in card.content.replace("infl", "")
    assert "kNN: not measured" in card.text and MISSING in card.text
    assert len(card.data.eval_results) == 3


def test_the_objective_is_told_in_words_with_its_formula_and_settings():
    card = render(read_results(REPOSITORY / "model_cards" / "masked_lm_reviews"))
    assert "mask some of the tokens" in card and "papers/1810.04805" in card and "$$-\\frac" in card
    assert "| `mask_ratio` | 0.4 | share of each sequence's tokens" in card


@pytest.mark.parametrize("objective", registry.names("objectives"))
def test_every_objective_says_its_formula_and_its_limits(objective):
    model_class = registry.objective_class(objective)
    assert model_class.formula and len(model_class.limits) >= 2
    assert "huggingface.co/papers" in registry.described(objective)["sources"]
    assert all(sentence.endswith(".") for sentence in model_class.limits)


def test_resumes_and_energy_are_told_where_they_are_known(results):
    assert "never stopped" not in render(results) and "kWh" not in render(results)
    results["seeds"][0] |= {"resumed": [{"samples_seen": 4000, "processes": 2}], "kwh": 0.5}
    results["seeds"][1]["resumed"] = []
    card = render(results)
    assert "4,000 samples (2 processes)" in card and "never stopped" in card and "0.5000 kWh" in card


def test_lines_that_fail_leave_no_output_and_end_nothing():
    assert printed_by("raise OSError('gone')") is None
    assert printed_by("print('found')") == "found"


def test_a_card_never_ends_a_run(tmp_path, caplog):
    (tmp_path / "results.json").write_text("{}")
    try_to_write_card(tmp_path)
    assert "No card was written" in caplog.text and f"hf-pretext card {tmp_path}" in caplog.text


def test_the_end_of_a_run_survives_what_fails(caplog):
    with survived("No report was drawn"):
        raise OSError("no room")
    assert "No report was drawn: OSError: no room" in caplog.text


def test_figures_that_json_can_not_hold_are_written_as_missing(tmp_path):
    write_json(tmp_path / "x.json", without_nan({"a": [1.5, math.nan], "b": {"c": math.inf, "d": "nan"}}))
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1.5, None], "b": {"c": None, "d": "nan"}}


def test_a_tie_beats_nothing():
    ours, other = (
        {"values": hits, "mean": sum(hits) / 3, "std": std}
        for hits, std in (([317, 310, 303], 7), ([255, 291, 264], 351**0.5))
    )
    assert ours["mean"] - other["mean"] == 40 and not beats(ours, other)
    assert beats({**ours, "mean": 310.001}, other)


def test_what_the_figures_say_against_a_model_is_in_its_limits(results):
    transfer = results["transfer"]["figures"]
    transfer["pixels"]["knn_top1"]["mean"] = transfer["trained"]["knn_top1"]["mean"] + 0.25
    limits = render(results).partition("## Limits")[2]
    assert "by kNN, raw pixels do better than its features, by 0.250." in limits
    for who, values in (("trained", [0.1, 0.11, 0.12]), ("random", [0.5, 0.51, 0.52])):
        results["measures"][who]["image_to_text_r1"] = {"mean": values[1], "std": 0.01, "values": values}
    assert "WORSE than random by more than that: image to caption, R@1." in render(results)


def test_lines_that_were_not_tried_show_no_output(results):
    results["usage"] = {"lines": lines(results, results["folder"]), "output": "it works"}
    assert "It prints:\n\n```\nit works" in render(results) and "it works" in render(results, where="you/other")
    results["usage"]["lines"] += " # as they were"
    assert "it works" not in render(results)


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


def test_paths_are_told_as_others_may_see_them(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "alice")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "alice" / "cache"))
    (tmp_path / "alice" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "alice" / "work")
    places = ["work/runs/a", "cache/emoji", "data/emoji"]
    told = ["runs/a", "$HF_HOME/emoji", "~/data/emoji"]
    assert relative([str(tmp_path / "alice" / place) for place in places]) == told
    assert relative(["user/emoji", "/mnt/emoji", 3]) == ["user/emoji", "/mnt/emoji", 3]


def test_a_recipe_speaks_for_itself_only_as_it_stands(monkeypatch):
    recipe = recipe_of("rotation_emoji", monkeypatch)
    said = [
        about(SimpleNamespace(request=SimpleNamespace(recipe=recipe, given=dict.fromkeys(given))))
        for given in (["output_dir", "seeds", "use_cpu"], ["dataset"], ["encoder"], ["smoke"], ["num_rotations"])
    ]
    assert said[0].startswith("Rotation prediction on emoji: ") and said[1:] == [None] * 4


def test_settings_that_share_a_sentence_share_a_row():
    rows = worded({"name": "flava", "mim_weight": 1.0, "mlm_weight": 0.5, "itm_weight": 2.0})["task"]
    assert [row[:2] for row in rows] == [(["mim_weight", "mlm_weight"], [1.0, 0.5]), (["itm_weight"], [2.0])]


def test_labels_are_denied_only_where_nothing_stands_in_for_them():
    results = read_results(REPOSITORY / "model_cards" / "unicl_emoji")
    assert "no labels used: equal captions stand in for them." in render(results)
    results["objective"]["positives"] = "pair"
    assert "no labels used." in render(results)
    results["objective"]["positives"], results["pair_label"] = "label", "species"
    assert "labels used: `species`." in render(results)


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_the_card_of_every_run_is_written_again(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    card = refresh_card(tmp_path / "run", license="mit").read_text()
    assert ModelCard(card).data.license == "mit"
    assert ("It prints:" in card) == ("It prints:" in (folder / "README.md").read_text())  # no weights: as it was


@pytest.mark.parametrize(
    "change",
    [{"objective": "rotation"}, {"objective": {"name": "../x"}}, {"seeds": None}, {"transfer": {}}, {"machine": {}}],
    ids=str,
)
def test_results_that_are_none(results, tmp_path, change):
    (tmp_path / "results.json").write_text(json.dumps({**results, **change}))
    before = sorted(tmp_path.iterdir()), (tmp_path / "results.json").read_text()
    with pytest.raises(ValueError, match="as a run writes them|No objective|kind that a run writes"):
        refresh_card(tmp_path)
    assert before == (sorted(tmp_path.iterdir()), (tmp_path / "results.json").read_text())


def test_numbers_too_large_are_missing(results, tmp_path):
    text = json.dumps(results).replace(str(results["seeds"][0]["seconds"]), "1e999")
    (tmp_path / "results.json").write_text(text)
    assert read_results(tmp_path)["seeds"][0]["seconds"] is None


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


def test_results_of_version_1_are_read_in_the_form_of_version_2():
    old = json.loads((REPOSITORY / "model_cards" / "flava_emoji" / "results.json").read_text())
    results = upgraded(old)
    assert "modality" in old and "modality" not in results and results["inputs"] == ["image", "text"]
    assert {kind: encoder["class"] for kind, encoder in results["encoders"].items()} == {
        "image": "FlavaImageModel",
        "text": "FlavaTextModel",
    }
    assert upgraded(results) == results and results["measures"] == old["measures"]


def test_a_card_has_a_table_for_each_encoder(results):
    text = {**copy.deepcopy(results["transfer"]), "kind": "text"}
    results["other_transfers"] = {"text": text}
    card = render(results)
    assert card.count("| trained (") == 2 and "### The image encoder" in card and "### The text encoder" in card
    del text["figures"]["pixels"]["knn_top1"]
    text["figures"]["pixels"]["knn_top1"] = {"mean": None, "std": None, "values": []}  # by which it was not measured
    assert f"| {MISSING} |" in render(results)
