"""Runs next to each other by five criteria: what was measured, what was not, and what can't be compared."""

import copy
import json

import pytest
from conftest import REPOSITORY
from PIL import Image
from test_audit_card import entry as audit_entry

from hf_pretext.cards import read_results
from hf_pretext.cards.compare import COLUMNS, LOWER_IS_BETTER, compare, differing_rows, draw, markdown
from hf_pretext.cards.tasks import page
from hf_pretext.cards.terminal import show_comparison

ROTATION, COLORIZATION, MASKED_LM = "rotation_emoji", "colorization_emoji", "masked_lm_reviews"
entry = audit_entry


def recorded(name: str, folder, **changed):
    """A recorded run in a folder of its own, without its audit or with another one."""
    results = json.loads((REPOSITORY / "model_cards" / name / "results.json").read_text())
    results.pop("audit", None)
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({**results, **changed}))
    return folder


@pytest.fixture
def audited(tmp_path, entry):
    seeds = json.loads((REPOSITORY / "model_cards" / ROTATION / "results.json").read_text())["seeds"]
    return recorded(ROTATION, tmp_path / "audited", audit=entry, seeds=[{**run, "kwh": 0.02} for run in seeds])


@pytest.fixture
def plain(tmp_path):
    """Runs without an audit."""
    return {name: recorded(name, tmp_path / name) for name in (ROTATION, COLORIZATION, MASKED_LM)}


def test_metrics_are_those_of_the_results(audited):
    (row,) = compare([audited])
    assert row["cue"] == "thumbnail" and row["cue_share"] == pytest.approx(0.75)
    assert row["label_bits"] == pytest.approx(0.5) and row["nuisance_bits"] == pytest.approx(-0.2)
    assert row["task_bits"] == 1.2 and row["overfitting"] == 0.1
    results = json.loads((audited / "results.json").read_text())
    figures = results["transfer"]["figures"]
    gain = figures["trained"]["linear_probe_top1"]["mean"] - figures["random"]["linear_probe_top1"]["mean"]
    assert row["transfer"] == pytest.approx(gain)
    minutes = sum(run["seconds"] for run in results["seeds"]) / 3 / 60
    assert row["points_per_core_minute"] == pytest.approx(100 * gain / minutes / results["machine"]["cores"])
    assert row["points_per_kwh"] == pytest.approx(100 * gain / 0.02)


def test_what_was_not_measured_is_a_dash(plain, capsys):
    rows = compare([plain[ROTATION], plain[COLORIZATION]])
    assert [row["objective"] for row in rows] == ["rotation", "colorization"]
    assert rows[0]["cue_share"] is rows[0]["label_bits"] is rows[0]["points_per_kwh"] is None
    assert markdown(rows).splitlines()[2].startswith(f"| {plain[ROTATION]} | rotation | — | — | — | — | — | +0.0")
    show_comparison(rows)
    assert "linear probe over random" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "nuisance_bits"])  # it has no better end
def test_the_best_is_first_and_the_unmeasured_last(audited, plain, column):
    worse = copy.deepcopy(json.loads((audited / "results.json").read_text()))
    folder = audited.parent / "worse"
    folder.mkdir()
    worse["audit"]["cues"]["thumbnail"]["bits"]["mean"] = 1.1
    image = worse["audit"]["encoders"]["image"]["trained"]
    image["bits_group"]["mean"], image["bits_style"]["mean"] = 0.9, 0.9
    answers = worse["audit"]["task"]["trained"]
    answers["bits"]["mean"], answers["overfitting"]["mean"] = 1.1, 0.3
    worse["transfer"]["figures"]["trained"]["linear_probe_top1"]["mean"] -= 0.01
    (folder / "results.json").write_text(json.dumps(worse))
    rows = compare([plain[ROTATION], folder, audited], sort=column)
    expected = [str(audited), str(folder)]
    measured = [row["run"] for row in rows if row["run"] != str(plain[ROTATION])]
    assert measured == expected, LOWER_IS_BETTER
    if rows[0][column] is not None and compare([plain[ROTATION]])[0][column] is None:
        assert rows[-1]["run"] == str(plain[ROTATION])


def test_runs_of_other_labels_and_unknown_columns_are_refused(plain):
    with pytest.raises(ValueError, match="on different labels: .*rotation_emoji: group of emoji; .*sentiment"):
        compare([plain[ROTATION], plain[MASKED_LM]])
    with pytest.raises(ValueError, match="--sort beauty: there is no such column. Give one of cue_share, label_bits"):
        compare([plain[ROTATION]], sort="beauty")


def test_audits_of_different_rows_are_compared_and_those_of_other_data_are_not(audited, entry, tmp_path, capsys):
    """Pairs need captions, so that they have fewer rows of the same data."""
    fewer = {**entry, "rows": {"train": 28, "validation": 9, "test": 9}}
    rows = compare([audited, recorded(COLORIZATION, tmp_path / "fewer", audit=fewer)])
    show_comparison(rows)
    printed = " ".join(capsys.readouterr().out.split())
    assert "audited: 30 train, 10 validation, 10 test;" in printed and "fewer: 28 train, 9 validation" in printed
    assert not differing_rows(rows[:1]) and None not in [row["cue_share"] for row in rows]
    elsewhere = recorded(COLORIZATION, tmp_path / "elsewhere", audit={**entry, "dataset": "mine"})
    with pytest.raises(ValueError, match="The audits are of different data: .*elsewhere: mine"):
        compare([audited, elsewhere])


def test_an_image_is_drawn(audited, plain, tmp_path):
    draw(tmp_path / "compare.png", compare([audited, plain[COLORIZATION]]))
    assert Image.open(tmp_path / "compare.png").size[0] > 1500


def test_the_page_has_the_audited_recipes_by_label(audited, plain):
    results = [read_results(folder) for folder in (audited, plain[COLORIZATION], plain[MASKED_LM])]
    results[0]["recipe"], results[2]["audit"] = "rotation_emoji", results[0]["audit"]
    text = page(results)
    section = text.partition("## By five criteria")[2]
    assert "![" in section and "(which_task.png)" in section
    of_emoji, of_reviews = section.partition("2. sentiment of ")[::2]
    assert "1. group of emoji:" in of_emoji and "group of" not in of_reviews
    assert "Audited on 30 train, 10 validation, 10 test rows." in of_emoji
    row = "| [rotation_emoji](../model_cards/rotation_emoji/README.md) | rotation | 75% (thumbnail) | +0.500 |"
    assert row in of_emoji and "colorization" not in section
    assert "masked_lm_reviews" in of_reviews
    for each in results:
        each.pop("audit", None)
    assert "five criteria" not in page(results)
