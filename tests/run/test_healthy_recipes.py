"""No recipe's run is said to have collapsed: its smoke run, for more steps than a report needs."""

import pytest
from recipe_runs import RECIPES, main

from hf_pretext.stream.collapse import WINDOW

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache")]
NAMES = sorted(path.stem for path in RECIPES.glob("*.py") if "recipe = Recipe(" in path.read_text())
STEPS = 3 * WINDOW  # two windows in a row make a report


@pytest.mark.parametrize("name", NAMES)
def test_no_collapse_is_reported(name, tmp_path):
    options = ("--max_steps", STEPS, "--eval_dataset", "none", "--held_out_rows", 0, "--fine_tune", 0)
    results = main(name, *options, output_dir=tmp_path / "run")
    assert [run["steps"] for run in results["seeds"]] == [STEPS]
    assert "collapsed" not in results["seeds"][0]


def test_all_recipes_are_tried():
    assert len(NAMES) >= 20
