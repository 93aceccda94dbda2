"""The type hints of the public names: pyright finds no error in `typing/public_api.py`, and finds wrong types."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

API = REPOSITORY / "tests" / "typing" / "public_api.py"
PYRIGHT = shutil.which("pyright", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed: pip install 'hf_pretext[dev]'"),
]


def errors_in(source: str, folder: Path) -> list[tuple[int, str]]:
    """The errors that pyright's basic mode reports: line and message."""
    (folder / "api.py").write_text(source, encoding="utf-8")
    settings = {"typeCheckingMode": "basic", "include": ["api.py"], "extraPaths": [str(REPOSITORY)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [PYRIGHT, "--outputjson", "--pythonpath", sys.executable, "--project", str(folder)],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {done.stdout[:200]} {done.stderr[:200]}")
    report = json.loads(done.stdout)
    return [
        (each["range"]["start"]["line"] + 1, each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]


def test_the_public_names_have_types_that_fit_their_use(tmp_path):
    assert errors_in(API.read_text(encoding="utf-8"), tmp_path) == []


def test_wrong_types_are_found(tmp_path):
    source = "from hf_pretext import PretextTrainer, load\nPretextTrainer('vit', train_dataset='emoji')\nload(3)\n"
    assert [line for line, _ in errors_in(source, tmp_path)] == [2, 3]
