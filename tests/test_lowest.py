"""The lowest versions that setup.cfg allows can be installed together, and a part of the tests passes with them.

Needs `uv` (extra `dev`), a package index and 15 GB of disk; skips itself without them.
"""

import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parent.parent
PART = (  # imports, models, each kind of data, evaluation, cards, conversions
    "test_package.py", "test_modeling.py", "objectives/test_rotation.py", "modalities/test_image.py",
    "modalities/test_text.py", "data/test_sounds.py", "data/test_parquet.py", "evaluation/test_transfer.py",
    "cards/test_report.py", "interop/test_open_clip.py", "interop/test_timm.py", "run/test_publish.py",
    "utils/test_libraries.py",
)  # fmt: skip
NEEDED = 15 * 10**9  # bytes of disk

pytestmark = pytest.mark.slow


def uv(*words: str, seconds: float = 300) -> subprocess.CompletedProcess:
    """Runs uv with a part of the command line, without the settings of other environments."""
    binary = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if binary is None:
        pytest.skip("uv is not installed: pip install uv")
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return subprocess.run([binary, *words], env=environment, capture_output=True, text=True, timeout=seconds)


def direct() -> list[Requirement]:
    """The requirements of setup.cfg, with those of the extra `test`."""
    parser = ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    text = parser["options"]["install_requires"] + "\n" + parser["options.extras_require"]["test"]
    return [Requirement(line) for line in dict.fromkeys(text.splitlines()) if line.strip()]


@pytest.fixture(scope="module")
def resolved(tmp_path_factory) -> Path:
    """A file with the lowest versions of the direct requirements, and the newest of all others. Only wheels."""
    folder = tmp_path_factory.mktemp("lowest")
    (folder / "one.in").write_text("packaging\n")
    probe = uv("pip", "compile", "--quiet", str(folder / "one.in"))
    if probe.returncode:
        pytest.skip(f"no package index can be reached: {probe.stderr.strip().splitlines()[-1]}")
    (folder / "direct.in").write_text("".join(f"{each}\n" for each in direct()))
    options = ("--resolution", "lowest-direct", "--only-binary", ":all:", "--python", sys.executable, "--no-annotate")
    done = uv("pip", "compile", "--quiet", *options, str(folder / "direct.in"), "-o", str(folder / "lowest.txt"))
    assert done.returncode == 0, done.stderr
    return folder / "lowest.txt"


def test_each_lower_bound_can_be_installed(resolved):
    """A bound below what the other requirements need, or without a wheel, was never tested."""
    lines = [line.split(";")[0].split("==") for line in resolved.read_text().splitlines() if "==" in line]
    versions = {name.strip().lower().replace("_", "-"): Version(version.strip()) for name, version in lines}
    bounds = {each.name: next(one.version for one in each.specifier if one.operator == ">=") for each in direct()}
    found = {name: str(versions[name.lower().replace("_", "-")]) for name in bounds}
    assert {name: one for name, one in found.items() if Version(one) != Version(bounds[name])} == {}


def test_a_part_of_the_tests_passes_with_the_lowest_versions(resolved, tmp_path):
    if shutil.disk_usage(tmp_path).free < NEEDED:
        pytest.skip(f"{tmp_path} has less than {NEEDED / 1e9:.0f} GB of free disk")
    python = tmp_path / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    for words in (
        ("venv", "--python", sys.executable, str(tmp_path / "environment")),
        ("pip", "install", "--python", str(python), "-r", str(resolved)),
    ):
        done = uv(*words, seconds=1800)
        assert done.returncode == 0, done.stderr[-3000:]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    tests = [str(REPOSITORY / "tests" / name) for name in PART]
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    shutil.rmtree(tmp_path / "environment")  # pytest keeps the folders of its last runs
    assert done.returncode == 0, done.stdout[-5000:]
