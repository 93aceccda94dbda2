"""Temporal localization in runs of the recipe of MIL-NCE in smoke size, on the embedded narrated films."""

import pytest
from recipe_runs import main, refused

from hf_pretext.cards.tables import measured
from hf_pretext.cards.wording import measured as protocols
from hf_pretext.samples import SAMPLES

pytestmark = pytest.mark.usefixtures("cache")
MIL_NCE, FILMS = "mil_nce_babyai", SAMPLES / "babyai_films" / "babyai_narrated"
TRUE = [
    *("--localization_text_column", "json.mission", "--localization_seconds", 6),
    *("--localization_start_column", "json.true_start", "--localization_end_column", "json.true_end"),
]


@pytest.mark.slow
def test_a_run_measures_localization_next_to_subtitles_and_chance(tmp_path):
    results = main(MIL_NCE, "--localization_dataset", FILMS, *TRUE, "--max_steps", 1, output_dir=tmp_path / "run")
    assert not results["localization"]["dataset"].startswith("/")  # no path of a machine
    films = results["localization"]
    assert (films["films"], films["sentences"], films["seconds"], films["left_out"]) == (5, 25, 6.0, {})
    for who, metrics in results["measures"].items():
        assert 0 <= metrics["localization_r1"]["mean"] <= 1 and metrics["localization_median_seconds"]["mean"] > 0, who
    assert results["measures"]["chance"]["localization_r1"]["mean"] == pytest.approx(0.2, abs=0.02)
    assert films["subtitles"]["localization_r1"] <= 0.3
    assert "temporal localization, R@1" in [row[0] for row in measured(results)]
    assert "The times of the subtitles themselves: R@1" in protocols(results)


def test_films_without_an_evaluation_are_refused():
    message = refused(MIL_NCE, "--localization_dataset", FILMS, "--eval_dataset", "none")
    assert f"--localization_dataset {FILMS} needs a labelled set" in message


def test_columns_without_films_are_refused():
    assert "is for the films of localization_dataset" in refused(MIL_NCE, "--eval_dataset", "x", *TRUE)
