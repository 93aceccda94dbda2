"""The audit of the folder of each recipe is that of the run."""

import pytest
from conftest import REPOSITORY
from recipe_runs import main

from hf_pretext.audit.standalone import audit

pytestmark = pytest.mark.usefixtures("cache")
WITHIN_THE_RUN = ("soundnet_atari", "videobert_babyai")  # their answers are made of films, which the folder can't read
HELPERS = ("emoji_images", "emoji_pairs", "films", "review_texts")
RECIPES = sorted({path.stem for path in (REPOSITORY / "recipes").glob("*.py")} - {*HELPERS})


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_folder_gives_the_cues_of_its_run(name, tmp_path):
    entry = main(name, "--audit", "--seeds", 0, output_dir=tmp_path / "run")["audit"]
    of_folder = audit(tmp_path / "run", only=("cues",), device="cpu")
    assert not any("No audit of the pretext task" in warning for warning in entry["warnings"])
    if name in WITHIN_THE_RUN:
        (warning,) = of_folder["warnings"]
        assert "Audit them within the run (--audit)" in warning and "cues" in entry
    else:
        assert of_folder["cues"] == entry["cues"] and of_folder["task"] == entry["task"]
