"""The lines of every card run as they stand, for somebody who has no hf_pretext."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from recorded import recorded_results

from hf_pretext.cards import read_results, render
from hf_pretext.cards.usage import lines, printed_by

results = pytest.fixture(recorded_results)

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
    code = re.sub(r"hidden_states\[-\d+\]", "hidden_states[-1]", code)  # the smoke encoder has fewer layers
    printed = python("-c", WITHOUT_US + code.replace(recorded, "run"))
    lines_of = [text.strip().split("\n") for text in (printed, read_results(folder)["usage"]["output"])]
    assert len(lines_of[0]) == len(lines_of[1])  # splitlines would also split what a smoke model writes at random
    own = CODE.search((tmp_path / "run" / "README.md").read_text())[1]  # of another layer, it may be
    assert python("-c", WITHOUT_US + own).strip() == read_results(tmp_path / "run")["usage"]["output"]


def test_what_results_say_is_never_run(results):
    results["usage"] = "open('stolen', 'w')"
    results["max_length"] = "1); open('stolen', 'w'); (1"
    results["folder"] = 'x"); open("stolen", "w"); print("'
    code = lines(results, results["folder"])
    called = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert "open" not in {name.id for name in called if isinstance(name, ast.Name)}
    assert results["folder"] in {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}


def test_lines_that_fail_leave_no_output_and_end_nothing():
    assert printed_by("raise OSError('gone')") is None
    assert printed_by("print('found')") == "found"


def test_lines_that_were_not_tried_show_no_output(results):
    results["usage"] = {"lines": lines(results, results["folder"]), "output": "it works"}
    assert "It prints:\n\n```\nit works" in render(results) and "it works" in render(results, where="you/other")
    results["usage"]["lines"] += " # as they were"
    assert "it works" not in render(results)
