"""Metrics with their standard deviations, and sentences that claim only what was measured."""

import statistics

import pytest
from recorded import recorded_results

from hf_pretext.cards import render
from hf_pretext.cards.tables import (
    MISSING,
    ahead_of_it,
    code_span,
    columns,
    epochs,
    figure,
    hours,
    measured,
    table,
    unshown,
    verdict,
)
from hf_pretext.cards.tables import words as in_words

results = pytest.fixture(recorded_results)


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
    for answer, words in ((True, ": beats random"), (False, ": does NOT beat random"), (None, ": no verdict")):
        verdicts.update(dict.fromkeys(verdicts, answer))
        assert all(words in sentence for sentence in verdict(results["transfer"]))


def test_metrics_against_a_model_are_in_its_limits(results):
    transfer = results["transfer"]["figures"]
    transfer["pixels"]["knn_top1"]["mean"] = transfer["trained"]["knn_top1"]["mean"] + 0.25
    limits = render(results).partition("## Limits")[2]
    assert "kNN: raw pixels do better than this encoder's features, by 0.250." in limits
    for who, values in (("trained", [0.1, 0.11, 0.12]), ("random", [0.5, 0.51, 0.52])):
        results["measures"][who]["image_to_text_r1"] = {"mean": values[1], "std": 0.01, "values": values}
    assert "WORSE than random (by more than twice the spread over seeds): image to caption, R@1." in render(results)


def measured_as(*values: float | None) -> dict:
    """A metric of several seeds, as in results.json."""
    known = None not in values
    return {
        "mean": sum(values) / len(values) if known else None,
        "std": statistics.stdev(values) if known and len(values) > 1 else None,
        "values": list(values),
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (measured_as(0.5, 0.6, 0.7), "0.600 ± 0.100"),
        (measured_as(0.5, 0.5, 0.5), "0.500 ± 0.000"),  # no spread is a spread, too
        (measured_as(0.12345), "0.123"),
        (measured_as(None), MISSING),
        (None, ""),
    ],
)
def test_a_spread_is_said_of_several_seeds_alone(value, expected):
    assert figure(value) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("linear_probe", "linear probe"),
        ("linear_probe_10%", "linear probe, 10% of labels"),
        ("knn", "kNN"),
        ("fine_tune", "fine-tuning (5 epochs)"),
        ("linear_probe_gray", "linear probe, grey images"),
        ("knn_gray", "kNN, grey images"),
    ],
)
def test_methods_in_words(method, expected):
    assert in_words(method, {"fine_tune": {"epochs": 5}}) == expected


def test_accuracies_per_class_are_shown_where_there_is_room():
    few, many = {"methods": ["linear_probe", "knn"]}, {"methods": ["knn", "linear_probe", "linear_probe_10%"]}
    assert list(columns(few)) == ["linear_probe_top1", "linear_probe_mean_class", "knn_top1", "knn_mean_class"]
    assert list(columns(many)) == ["knn_top1", "linear_probe_top1", "linear_probe_10%_top1"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(90, "1.5 minutes"), (3599, "60.0 minutes"), (3600, "1.0 hours"), (9e6, "2,500.0 hours"), (None, MISSING)],
)
def test_long_times_are_in_hours(seconds, expected):
    assert hours(seconds) == expected


def test_epochs_of_a_mixture_are_those_of_each_part():
    parts = {"epoch_of_source/a": 1.25, "epoch_of_source/b": 10.0, "loss": 3.0}
    assert epochs({"history": [{"loss": 4.0}, parts], "epochs": 2.0}) == "1.2, 10.0"
    assert epochs({"history": [], "epochs": 2.0}) == "2.0" and epochs({"history": [], "epochs": 0}) == MISSING


def test_in_code_markdown_decodes_nothing():
    assert code_span("a &lt; b &#124; c") == "`a < b | c`"


def measures_of(trained: dict, random: dict) -> dict:
    return {"measures": {"trained": trained, "random": random}}


def test_a_standard_error_gets_no_verdict():
    low, high = {"mean": 0.1, "std": 0.0, "values": [0.1] * 3}, {"mean": 0.9, "std": 0.0, "values": [0.9] * 3}
    for pair in ((low, high), (high, low)):
        of_who = [{"correspondence_shifted": high, "correspondence_shifted_error": each} for each in pair]
        both = measures_of(*of_who)
        assert unshown(both) == ["correspondence_shifted"] and unshown(both, worse=True) == []


def test_of_a_rank_less_is_better():
    low, high = measured_as(1.0, 1.1, 1.2), measured_as(50.0, 51.0, 52.0)
    better = measures_of({"image_to_text_median_rank": low}, {"image_to_text_median_rank": high})
    worse = measures_of({"image_to_text_median_rank": high}, {"image_to_text_median_rank": low})
    assert unshown(better) == [] and unshown(better, worse=True) == []
    assert unshown(worse) == ["image_to_text_median_rank"] == unshown(worse, worse=True)


def test_of_bits_fewer_are_better_and_a_baseline_gets_no_verdict():
    low, high = measured_as(1.0, 1.1, 1.2), measured_as(50.0, 51.0, 52.0)
    names = ("caption_bits", "caption_bits_baseline", "caption_bits_gain")
    measures = measures_of(dict.fromkeys(names, low), dict.fromkeys(names, high))
    assert unshown(measures) == unshown(measures, worse=True) == ["caption_bits_gain"]
    measures = measures_of(dict.fromkeys(names, high), dict.fromkeys(names, low))
    assert unshown(measures) == unshown(measures, worse=True) == ["caption_bits"]


def test_chance_is_the_same_for_all_seeds():
    ours, low, high = measured_as(0.4, 0.5, 0.6), measured_as(0.2), measured_as(0.35)
    names = ("zero_shot_top1", "caption_bits")
    for chance, at_chance in ((low, ["caption_bits"]), (high, ["zero_shot_top1", "caption_bits"])):
        results = measures_of(dict.fromkeys(names, ours), dict.fromkeys(names, ours))
        results["measures"]["chance"] = dict.fromkeys(names, chance)
        assert unshown(results, who="chance") == at_chance
        assert unshown(results, who="chance", worse=True) == ["caption_bits"][: chance is low]
    del results["measures"]["chance"]["zero_shot_top1"]
    assert unshown(results, who="chance") == ["caption_bits"]


def test_within_the_spread_nothing_is_shown_either_way():
    near = measures_of({"zero_shot_top1": measured_as(0.4, 0.5, 0.6)}, {"zero_shot_top1": measured_as(0.3, 0.4, 0.5)})
    assert unshown(near) == ["zero_shot_top1"] and unshown(near, worse=True) == []


def test_two_seeds_give_no_verdict_and_what_was_not_measured_is_left_out():
    two = measures_of({"zero_shot_top1": measured_as(0.9, 0.9)}, {"zero_shot_top1": measured_as(0.1, 0.1)})
    assert unshown(two) is None
    missing = measures_of({"zero_shot_top1": measured_as(None)}, {"zero_shot_top1": measured_as(0.1, 0.1, 0.2)})
    assert unshown(missing) == [] == unshown({})


def test_a_baseline_that_is_better_is_named_and_by_how_much(results):
    transfer = results["transfer"]
    means = {"trained": 0.5, "random": 0.9, "pixels": 0.625, "majority": 0.25}
    for who, mean in means.items():
        transfer["figures"][who]["knn_top1"]["mean"] = mean
    assert ahead_of_it(transfer, "knn") == [("raw pixels do", 0.125)]  # random has its own verdict
    assert any(sentence.endswith("; raw pixels do better, by 0.125") for sentence in verdict(transfer))
    transfer["figures"]["trained"]["knn_top1"]["mean"] = None
    assert ahead_of_it(transfer, "knn") == [] and "kNN: not measured" in verdict(transfer)


def test_rows_of_measures_are_trained_random_and_chance(results):
    rows, by_who = measured(results), results["measures"]
    assert len(rows) == len(by_who["trained"]) and {len(row) for row in rows} == {1 + len(by_who)}
    assert rows[0] == ["image to caption, R@1", *(figure(by_who[who]["image_to_text_r1"]) for who in by_who)]
    assert measured({}) == []
