"""Figures with their spreads, and sentences that claim no more than was measured."""

import pytest
from recorded import recorded_results

from hf_pretext.cards import render
from hf_pretext.cards.tables import figure, table, verdict

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
    for answer, words in ((True, "it beats random"), (False, "nothing is shown"), (None, "no verdict")):
        verdicts.update(dict.fromkeys(verdicts, answer))
        assert all(words in sentence for sentence in verdict(results["transfer"]))


def test_what_the_figures_say_against_a_model_is_in_its_limits(results):
    transfer = results["transfer"]["figures"]
    transfer["pixels"]["knn_top1"]["mean"] = transfer["trained"]["knn_top1"]["mean"] + 0.25
    limits = render(results).partition("## Limits")[2]
    assert "by kNN, raw pixels do better than its features, by 0.250." in limits
    for who, values in (("trained", [0.1, 0.11, 0.12]), ("random", [0.5, 0.51, 0.52])):
        results["measures"][who]["image_to_text_r1"] = {"mean": values[1], "std": 0.01, "values": values}
    assert "WORSE than random by more than that: image to caption, R@1." in render(results)
