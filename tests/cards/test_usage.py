"""The lines of every card run as they stand, for somebody who has no hf_pretext."""

import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from hf_pretext.cards import read_results

RECORDED = sorted(path.parent for path in (REPOSITORY / "model_cards").glob("*/results.json"))
CODE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
WITHOUT_US = "import sys; sys.modules['hf_pretext'] = None\n"


@pytest.mark.slow
@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_lines_of_a_recorded_card_load_what_its_recipe_leaves(folder, tmp_path):
    def python(*arguments) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    recipe = REPOSITORY / "recipes" / f"{folder.name}.py"
    python(str(recipe), "--smoke", "--use_cpu", "--output_dir", "run")
    code, recorded = CODE.search((folder / "README.md").read_text())[1], read_results(folder)["folder"]
    assert recorded in code
    printed = python("-c", WITHOUT_US + code.replace(recorded, "run"))
    assert len(printed.splitlines()) == len(read_results(folder)["usage"]["output"].splitlines())
    own = CODE.search((tmp_path / "run" / "README.md").read_text())[1]  # of another layer, it may be
    assert python("-c", WITHOUT_US + own).strip() == read_results(tmp_path / "run")["usage"]["output"]
