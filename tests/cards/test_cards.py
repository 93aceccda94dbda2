"""Every published number comes from the recorded results, to the last digit."""

import copy
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY
from huggingface_hub import ModelCard
from recorded import RECORDED, recipe_of, recorded_results

from hf_pretext import registry
from hf_pretext.cards import publish, read_results, render, tasks, worded
from hf_pretext.cards.__main__ import CLAIM, TABLE, claim, readme_table, results_page
from hf_pretext.cards.tables import MISSING, figure
from hf_pretext.cards.usage import lines
from hf_pretext.run.evaluate import about
from hf_pretext.run.publish import survived, try_to_write_card
from hf_pretext.utils.files import without_nan, write_json
from hf_pretext.utils.paths import relative

results = pytest.fixture(recorded_results)

INDIFFERENT = ("logging_steps", "save_steps", "save_total_limit", "output_dir")
SHORT = {  # what is known to fall short
    "captioning_emoji": {"linear_probe_top1", "knn_top1"},
    "rotation_emoji": {"linear_probe_top1"},
    "flava_emoji": {"linear_probe_top1"},
    "masked_image_emoji": {"fine_tune_top1"},
    "colorization_emoji": {"linear_probe_10%_top1", "linear_probe_100%_top1"},  # on images in colour
    "jigsaw_emoji": (FROZEN := {"linear_probe_1%_top1", "linear_probe_10%_top1", "linear_probe_100%_top1", "knn_top1"}),
    "relative_position_emoji": FROZEN,
    # sentences name the kind of mission, so that all encoders of texts know it
    "videobert_babyai": {"linear_probe_10%_top1", "linear_probe_100%_top1", "knn_top1"},
}


def test_there_is_a_card_for_every_recipe_that_does_not_say_that_nothing_was_measured():
    texts = {path.stem: path.read_text() for path in (REPOSITORY / "recipes").glob("*.py")}
    recipes = {name for name, text in texts.items() if "recipe = Recipe(" in text}
    unmeasured = {name for name in recipes if "\nMeasured: nothing yet." in texts[name]}
    assert {folder.name for folder in RECORDED} == recipes - unmeasured


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
        results, card = read_results(folder), (folder / "README.md").read_text()
        beats = results["transfer"]["beats_random"]
        lost = {name for name, answer in beats.items() if answer is not True}
        others = [other["beats_random"] for other in results.get("other_transfers", {}).values()]
        lost_by_others = sum(answer is not True for answers in others for answer in answers.values())
        assert lost == SHORT.get(folder.name, set())
        assert card.count("does NOT beat random") == len(lost) + lost_by_others
        assert ("shows that this encoder is better than an untrained one" in card) == (len(lost) == len(beats))

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
        if results["inputs"] != ["text"] or registry.objective_class(results["objective"]["name"]).one_text_a_row:
            pytest.skip("not packed")
        assert results["packed"] is True and results["padding"] < 0.03

    def test_no_paths_of_the_machine_that_ran_it(self, folder):
        assert not re.search(r"(/home/|/root|/work|/tmp|/Users/)", (folder / "results.json").read_text())


def test_what_the_docs_say_of_the_ablation_is_in_its_table():
    page = (REPOSITORY / "docs/captions.md").read_text()
    section = page[page.index("**What helps on emoji.**") : page.index("**The result.**")]
    metrics = re.findall(r"0\.\d+", section)
    assert len(metrics) > 20
    assert set(metrics) <= set(re.findall(r"0\.\d+", (REPOSITORY / "benchmarks/contrastive_ablation.md").read_text()))


def test_readme_table_is_what_the_results_give():
    found = TABLE.search((REPOSITORY / "README.md").read_text())
    assert found[0] == found[1] + readme_table([read_results(folder) for folder in RECORDED]) + found[2]


@pytest.mark.parametrize(
    ("name", "page"), [("results", results_page), ("which_task", tasks.page), ("presets", tasks.presets_page)]
)
def test_pages_are_what_the_results_give(name, page):
    written = (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == page([read_results(folder) for folder in RECORDED])


def test_the_package_knows_what_was_measured():
    expected = [tasks.measured(read_results(folder)) for folder in RECORDED]
    shown = [entry for task in tasks.tasks() for entry in task["measured"]]
    assert sorted(shown, key=lambda entry: entry["recipe"]) == expected
    assert {task["name"] for task in tasks.tasks("video")} == {
        "audio_visual",
        "mil_nce",
        "soundnet",
        "videobert",
        "xdc",
    }
    with pytest.raises(ValueError, match="No modality 'smell'"):
        tasks.tasks("smell")


@pytest.mark.parametrize(
    ("table", "metric", "row_of"),
    [(readme_table, "linear_probe_top1", "model_cards/"), (results_page, "knn_top1", "| kNN |")],
)
def test_tables_have_in_bold_what_beats_the_random_encoder_and_nothing_else(results, table, metric, row_of):
    for beats, expected in ((True, 1), (False, 0), (None, 0)):
        results["transfer"]["beats_random"][metric] = beats
        trained, random = (results["transfer"]["figures"][who][metric] for who in ("trained", "random"))
        (row,) = (line for line in table([results]).splitlines() if row_of in line and line.startswith("|"))
        assert row.count(f"**{figure(trained)}**") == expected and row.count("**") == 2 * expected
        assert f"| {figure(random)} |" in row


def test_no_table_has_a_measure_in_bold_where_seeds_are_too_few(results):
    for seeds in (3, 2):
        for value in (value for metrics in results["measures"].values() for value in metrics.values()):
            value["values"] = value["values"][:seeds]
        (row,) = (line for line in results_page([results]).splitlines() if "| image to caption, R@1 |" in line)
        assert ("**" in row) == (seeds == 3)


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


def test_metrics_that_are_no_numbers_are_missing(results, tmp_path):
    trained = results["transfer"]["figures"]["trained"]
    trained["knn_top1"] = {"mean": math.nan, "std": math.nan, "values": [math.nan]}
    results["seeds"][0] |= {"seconds": math.inf, "samples_per_second": math.nan}
    (tmp_path / "results.json").write_text(json.dumps(results))
    card = ModelCard(publish(tmp_path).read_text())
    assert "nan" not in card.content.lower().replace("finance", "") and "inf" not in card.content.replace("infl", "")
    assert "kNN: not measured" in card.text and MISSING in card.text
    assert len(card.data.eval_results) == 3


def test_the_objective_is_described_with_its_formula_and_settings():
    card = render(read_results(REPOSITORY / "model_cards" / "masked_lm_reviews"))
    assert "mask some of the tokens" in card and "papers/1810.04805" in card and "$$-\\frac" in card
    assert "| `mask_ratio` | 0.4 | share of each sequence's tokens" in card


@pytest.mark.parametrize("objective", registry.names("objectives"))
def test_every_objective_says_its_formula_and_its_limits(objective):
    model_class = registry.objective_class(objective)
    assert model_class.formula and len(model_class.limits) >= 2
    assert "huggingface.co/papers" in registry.described(objective)["sources"]
    assert all(sentence.endswith(".") for sentence in model_class.limits)


def test_resumes_and_energy_are_shown_where_they_are_known(results):
    assert "never stopped" not in render(results) and "kWh" not in render(results)
    results["seeds"][0] |= {"resumed": [{"samples_seen": 4000, "processes": 2}], "kwh": 0.5}
    results["seeds"][1]["resumed"] = []
    card = render(results)
    assert "4,000 samples (2 processes)" in card and "never stopped" in card and "0.5000 kWh" in card


def test_a_changed_length_and_weights_of_a_chosen_step_are_shown_where_they_are_known(results):
    assert "lengthened" not in render(results) and "The weights of seed" not in render(results)
    results["seeds"][0]["weights"] = {"step": 9}
    assert "The weights of seed" not in render(results)
    weights = {"step": 3000, "metric": "eval_loss", "value": 0.51234, "chosen": "smallest"}
    lengthened = [{"step": 1000, "from": 1000, "to": 4000}, {"step": 2000, "from": 4000, "to": 3500}]
    results["seeds"][0] |= {"seed": 7, "steps": 3500, "weights": weights, "lengthened": lengthened}
    card = render(results)
    assert "Seed 7 was lengthened at step 1,000 from 1,000 to 4,000 samples. From there on, the learning rate" in card
    assert "Seed 7 was shortened at step 2,000 from 4,000 to 3,500 samples." in card
    assert "seed 7 are those of step 3,000 of 3,500: the one with the smallest `eval_loss` (0.5123) of all" in card


def test_a_card_never_ends_a_run(tmp_path, caplog):
    (tmp_path / "results.json").write_text("{}")
    try_to_write_card(tmp_path)
    assert "The model card was not written" in caplog.text and f"hf-pretext card {tmp_path}" in caplog.text


def test_the_end_of_a_run_survives_what_fails(caplog):
    with survived("The report was not written"):
        raise OSError("no room")
    assert "The report was not written: OSError: no room" in caplog.text


def test_numbers_that_json_can_not_store_are_written_as_missing(tmp_path):
    write_json(tmp_path / "x.json", without_nan({"a": [1.5, math.nan], "b": {"c": math.inf, "d": "nan"}}))
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1.5, None], "b": {"c": None, "d": "nan"}}


def test_paths_are_written_as_others_may_see_them(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "alice")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "alice" / "cache"))
    (tmp_path / "alice" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "alice" / "work")
    places = ["work/runs/a", "cache/emoji", "data/emoji"]
    expected = ["runs/a", "$HF_HOME/emoji", "~/data/emoji"]
    assert relative([str(tmp_path / "alice" / place) for place in places]) == expected
    assert relative(["user/emoji", "/mnt/emoji", 3]) == ["user/emoji", ".../emoji", 3]


def test_a_recipe_speaks_for_itself_only_as_it_stands(monkeypatch):
    recipe = recipe_of("rotation_emoji", monkeypatch)
    said = [
        about(SimpleNamespace(request=SimpleNamespace(recipe=recipe, given=dict.fromkeys(given))))
        for given in (
            ["output_dir", "seeds", "use_cpu", "audit"],
            ["dataset"],
            ["encoder"],
            ["smoke"],
            ["num_rotations"],
        )
    ]
    assert said[0].startswith("Rotation prediction on emoji: ") and said[1:] == [None] * 4


def test_settings_that_share_a_sentence_share_a_row():
    rows = worded({"name": "flava", "image_mean": [0.5] * 3, "image_std": [0.2] * 3, "itm_weight": 2.0})["task"]
    shown = [row[:2] for row in rows]
    assert shown == [(["image_mean", "image_std"], [[0.5] * 3, [0.2] * 3]), (["itm_weight"], [2.0])]


def test_labels_are_denied_only_where_nothing_stands_in_for_them():
    results = read_results(REPOSITORY / "model_cards" / "unicl_emoji")
    assert "no labels used; equal captions count as the same label." in render(results)
    results["objective"]["positives"] = "pair"
    assert "no labels used." in render(results)
    results["objective"]["positives"], results["pair_label"] = "label", "species"
    assert "labels used: `species`." in render(results)


def test_card_without_transfer_metrics_says_so(results):
    del results["transfer"]
    card = render(results)
    assert "Not measured" in card and "probe top-1" not in card


def test_card_is_written_whole(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    publish(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "results.json"]
    with pytest.raises(ValueError, match=r"has no results\.json"):
        publish(tmp_path / "nothing")


def test_a_card_has_a_table_for_each_encoder(results):
    text = {**copy.deepcopy(results["transfer"]), "kind": "text"}
    results["other_transfers"] = {"text": text}
    card = render(results)
    assert card.count("| trained (") == 2 and "### The image encoder" in card and "### The text encoder" in card
    del text["figures"]["pixels"]["knn_top1"]
    text["figures"]["pixels"]["knn_top1"] = {"mean": None, "std": None, "values": []}  # by which it was not measured
    assert f"| {MISSING} |" in render(results)


def test_a_claim_leaves_out_what_a_method_did_not_measure():
    results = read_results(REPOSITORY / "model_cards" / "rotation_emoji")
    assert "raw pixels 0.529" in " ".join(claim(results).split())
    results["transfer"]["figures"]["pixels"]["knn_top1"] = {"mean": None, "std": None, "values": []}
    text = " ".join(claim(results).split())
    assert MISSING not in text and "raw pixels 0.515" in text
    random, majority = (figure(results["transfer"]["figures"][who]["knn_top1"]) for who in ("random", "majority"))
    assert f"(untrained encoder {random}, majority class {majority})" in text


def test_a_card_with_metrics_without_labels_is_the_recorded_one_with_a_section_more(results):
    measured = {"mean": 0.5, "std": 0.01, "values": [0.49, 0.51]}
    names = {"trained": {"loss": measured, "neighbours_text": measured}, "random": {"neighbours_text": {"mean": None}}}
    health = {"dataset": "a|b", "rows": 64, "trained_on": True, "split": None, "channels": {"text": 8}, **names}
    health |= {"chance": {"neighbours_text": 1 / 64}, "warnings": ["The text encoder has collapsed"]}
    card = render({**results, "health": health})
    section = "## Health without labels\n" + card.partition("## Health without labels\n")[2].partition("## How it")[0]
    assert card.replace(section, "") == render(results)
    assert "| neighbours, R@1 (text) | 0.500 ± 0.010 | — | 0.016 |\n" in section
    assert "| pretext loss | 0.500 ± 0.010 |  |  |\n" in section
    assert "64 rows of `a&#124;b`, **which were trained on**; features of 8 channels (text)" in section
    assert "- **The text encoder has collapsed.**\n" in section and "s it was" not in section
    card = render({**results, "health": {**health, "start": {"neighbours_text": {**measured, "std": None}}}})
    assert "| | trained | as it was | random | chance |\n|---|---|---|---|---|\n" in card
    assert "| neighbours, R@1 (text) | 0.500 ± 0.010 | 0.500 | — | 0.016 |\n" in card
    assert "| pretext loss | 0.500 ± 0.010 |  |  |  |\n" in card and "As it was: the pretrained encoder before" in card
