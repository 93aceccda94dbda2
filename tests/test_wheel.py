"""A user's installation: the wheel, made from the source distribution, in a new environment, in a folder of its own.

Nothing is downloaded: the new environment finds the dependencies in the one that runs the tests.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
NOT_SOURCES = (".git", ".ci", ".venv", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
ROWS = 32  # of each split

pytestmark = pytest.mark.slow


def run(words: list, folder: Path, **environment: str) -> str:
    """Runs a command and returns its output. Fails where it does."""
    done = subprocess.run(
        [*map(str, words)],
        cwd=folder,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """The environment of this process without what leads Python or the Hub elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "VIRTUAL_ENV"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The source distribution of a copy of the repository, and the wheel that is built from what it contains."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(REPOSITORY, folder / "copy", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    run([sys.executable, "-c", BUILD, "build_sdist", folder], folder / "copy")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    run([sys.executable, "-c", BUILD, "build_wheel", folder], folder / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The folder of commands of a new environment with the wheel.

    A line of a .pth file adds the packages of the present environment behind those of the new one. Its editable
    installation of hf_pretext stays out, because Python reads no .pth files there."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    run([scripts / "python", "-m", "pip", "install", "--no-deps", "--no-index", built["wheel"]], folder)
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    purelib = run([scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    (Path(purelib) / "dependencies.pth").write_text("".join(f"{place}\n" for place in sorted(places)))
    return scripts


@pytest.fixture
def elsewhere(installed, tmp_path):
    """Returns a function that runs Python code, or a command of the new environment, in an empty folder, offline."""

    def call(*words: str) -> str:
        command = [installed / "python", *words] if words[0] == "-c" else [installed / words[0], *words[1:]]
        return run(command, tmp_path, HF_HOME=str(tmp_path / "home"))

    return call


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_has_the_package_and_nothing_else(built):
    present = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "hf_pretext").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files_of(built["wheel"]) == present
    assert {"hf_pretext/py.typed", "hf_pretext/cards/card.md.jinja"} <= present
    assert {Path(name).suffix for name in present} >= {".parquet", ".jsonl", ".tar", ".safetensors"}


def test_the_source_distribution_has_what_the_tests_read(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("benchmarks", "docs", "hf_pretext", "model_cards", "recipes", "tests")
    present = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    pages = {path.name for path in REPOSITORY.glob("*.md")}
    assert present | pages | {"LICENSE", "NOTICE", "CITATION.cff", "Makefile", "pyproject.toml"} <= names


def test_the_metadata_pass_twine(built):
    pytest.importorskip("twine", reason="twine is not installed: pip install twine")
    run([sys.executable, "-m", "twine", "check", "--strict", *built.values()], REPOSITORY)


def test_the_installed_package_is_the_one_of_the_wheel(elsewhere, installed):
    code = (
        "import hf_pretext, importlib.metadata as metadata; "
        "print(hf_pretext.__file__, hf_pretext.__version__, metadata.version('hf_pretext'))"
    )
    file, *versions = elsewhere("-c", code).split()
    assert Path(file).is_relative_to(installed.parent) and len(set(versions)) == 1


def test_the_commands_run(elsewhere):
    assert "evaluate" in elsewhere("hf-pretext", "--help")
    assert "Training is possible here." in elsewhere("hf-pretext", "doctor")


def test_a_sample_is_opened_by_its_name(elsewhere):
    code = "from hf_pretext.data.sources import open_source; print(len(open_source('emoji', needed=('image',))))"
    assert int(elsewhere("-c", code)) > 3000


def test_the_first_ten_minutes(elsewhere, tmp_path):
    """Trains on a sample, evaluates the folder, writes its card again, and loads it without the package."""
    printed = elsewhere("hf-pretext", "train", "rotation", "--smoke", "--output_dir", "mine")
    assert "linear probe" in printed and "hf-pretext push mine you/your-encoder" in printed
    assert "rotation" in elsewhere("hf-pretext", "objectives")
    options = ["--dataset", "emoji", "--label", "group", "--rows", ROWS, "--output", "metrics.json"]
    assert "linear probe" in elsewhere("hf-pretext", "evaluate", "mine", *map(str, options))
    transfer = json.loads((tmp_path / "metrics.json").read_text())["transfer"]
    assert 0 <= transfer["figures"]["trained"]["linear_probe_top1"]["mean"] <= 1
    elsewhere("hf-pretext", "card", "mine", "--license", "mit")
    assert "license: mit" in (tmp_path / "mine" / "README.md").read_text()
    alone = "import sys; sys.modules['hf_pretext'] = None; from transformers import AutoModel; "
    assert elsewhere("-c", f"{alone}print(type(AutoModel.from_pretrained('mine')).__name__)").strip() == "ResNetModel"
