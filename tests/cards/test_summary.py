"""The linear probe of a recipe in overviews: the best baseline, and sentences that say where it shows little."""

import pytest
from recorded import RECORDED, recorded_results

from hf_pretext.cards import read_results
from hf_pretext.cards.__main__ import readme_table
from hf_pretext.cards.summary import labels, notes, probe, rankings
from hf_pretext.cards.tasks import page, sides
from hf_pretext.evaluation.comparison import START
from hf_pretext.registry import preset

results = pytest.fixture(recorded_results)
NAME = "linear_probe_top1"


def of(results, **means):
    """The probe of results whose accuracies are replaced."""
    figures = results["transfer"]["figures"]
    for who, mean in means.items():
        figures.setdefault(who, {})[NAME] = {"mean": mean, "std": None, "values": [mean]}
    return probe(results)


def test_the_baseline_is_the_best_one_without_an_encoder(results):
    assert of(results, pixels=0.4, majority=0.3).shown_baseline == "0.400, raw pixels"
    assert of(results, majority=0.45, **{START: 0.9}).shown_baseline == "0.450, majority class"
    assert of(results, majority=None, random=0.8).shown_baseline == "0.400, raw pixels"
    assert of(results, pixels=None).shown_baseline == "—" and not probe(results).behind


def test_a_baseline_that_is_better_is_named_and_only_then(results):
    assert notes([of(results, trained=0.5, pixels=0.5)]) == ""
    said = notes([of(results, pixels=0.51), of(results, pixels=0.1)])
    assert said == f"1 of 2 trained encoders are worse than the best baseline: {results['recipe']} (raw pixels)."
    solved = notes([of(results, trained=1.0, random=1.0)])
    assert solved == f"A random encoder solves the probe too, which then shows nothing: {results['recipe']}."
    assert notes([of(results, random=0.999)]) == ""


def test_every_recorded_encoder_that_a_baseline_beats_is_in_the_readme_and_on_the_page():
    recorded = [read_results(folder) for folder in RECORDED]
    behind = set()
    for each in recorded:
        transfer = each["transfer"]
        name = "linear_probe_100%_top1" if "linear_probe_100%" in transfer["methods"] else NAME
        means = {who: metrics[name]["mean"] for who, metrics in transfer["figures"].items()}
        if any(means[who] > means["trained"] for who in means.keys() - {"trained", "random"} if means[who] is not None):
            behind.add(each["recipe"])
    assert {"causal_lm_reviews", "flava_emoji", "multiway_emoji"} < behind
    for text in (readme_table(recorded), page(recorded)):
        (sentence,) = (line for line in text.splitlines() if "worse than the best baseline" in line)
        assert all(name in sentence for name in behind) and sentence.startswith(f"{len(behind)} of {len(recorded)} ")


def test_the_encoder_that_is_measured_is_named(results):
    results["transfer"]["kind"], results["transfer"]["label"] = "audio", "json.game"
    assert labels(results).startswith("audio: `json.game`, ")
    del results["transfer"]["kind"]
    assert labels(results).startswith("image: ")


def test_objectives_are_ranked_by_their_best_recipe_on_the_same_label(results):
    results["transfer"]["beats_random"][NAME] = True
    first = of(results, trained=0.6, random=0.5, pixels=0.55)
    others = [first._replace(objective="flava", trained={"mean": mean}, beats_random=False) for mean in (0.4, 0.7)]
    (line,) = rankings([first, *others])
    assert line.endswith(": flava 0.700 (+0.200), contrastive **0.600** (+0.100). Best baseline: 0.550, raw pixels.")
    assert rankings([first, others[0]._replace(label="of another")]) == []


def test_sides_are_of_small_and_large_data():
    expected = {"jigsaw": "96, 224", "xdc": "64, 160", "videobert": "64", "masked_lm": ""}
    assert {name: sides(preset(name)) for name in expected} == expected
