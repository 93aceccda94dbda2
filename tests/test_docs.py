"""README and docs: every code block runs, prints what the page says, and every link and test that is named exists.

The blocks of a page run in their order, in a folder that has the data that they name. A recipe's command runs with
`--smoke` added: the same steps, with a tiny encoder.
"""

import ast
import importlib
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import EMOJI, REPOSITORY
from loopback_hub import serve

from hf_pretext.recipe import default_recipe

PAGES = ["README.md", *sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
TEST = re.compile(r"`(test_\w+\.py)`(?:: ((?:`\w+`(?:, )?)+))?")
TESTED_ELSEWHERE = ("git clone", "make ", "source ")  # CI itself runs make
NEEDS_GPUS = "accelerate launch --num_processes"
IMAGES = 48
MOST_MEMORY = 2 * 1024**3


@dataclass
class Block:
    """A fenced block of a page. output: the block without a language that follows it, if any."""

    page: str
    line: int
    language: str
    code: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    matches = list(BLOCK.finditer(text))
    made = []
    for i, match in enumerate(matches):
        follows = i + 1 < len(matches) and not text[match.end() : matches[i + 1].start()].strip()
        output = matches[i + 1][2] if follows and not matches[i + 1][1] else None
        made.append(Block(page, text[: match.start()].count("\n") + 1, match[1], match[2], output))
    return [block for block in made if block.language]


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, as words, without their comments."""
    lines = [shlex.split(line, comments=True) for line in block.code.splitlines()]
    return [words for words in lines if words and not " ".join(words).startswith(TESTED_ELSEWHERE)]


ALL = [block for page in PAGES for block in blocks(page)]
SHELL = [words for block in ALL if block.language == "sh" for words in commands(block)]
TRAIN = ["hf-pretext", "train"]
RECIPES = [words for words in SHELL if any(word.startswith("recipes/") for word in words) or words[:2] == TRAIN]


def test_each_page_has_blocks_of_known_languages():
    assert {block.language for block in ALL} == {"python", "sh"}
    assert len([block for block in ALL if block.language == "python"]) > 5 and len(RECIPES) > 10


@pytest.mark.parametrize("words", RECIPES, ids=" ".join)
def test_options_of_recipes_exist(words):
    if words[:2] == TRAIN:
        at, recipe = 2, default_recipe(words[2])
    else:
        at = next(i for i, word in enumerate(words) if word.startswith("recipes/"))
        recipe = importlib.import_module(Path(words[at]).stem).recipe
    given = [word for word in words[at + 1 :] if word != "--help"]
    assert recipe.read(given).keys() >= {word.removeprefix("--") for word in given if word.startswith("--")}


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_named_tests_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for target in LINK.findall(text):
        assert ((REPOSITORY / page).parent / target).exists(), target
    for file, names in TEST.findall(text):
        sources = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob(file)]
        assert len(sources) == 1, file
        functions = [node.name for node in ast.walk(ast.parse(sources[0])) if isinstance(node, ast.FunctionDef)]
        for name in re.findall(r"`(\w+)`", names):
            assert any(name in function for function in functions), f"{file} has no test {name}"


def test_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`path/to/...`: images, images with captions, images in class folders and texts, made from the emoji."""
    import datasets

    folder = tmp_path_factory.mktemp("data")
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(EMOJI / "train-*.parquet"),
        split=f"train[:{2 * IMAGES}]",
    )
    for name in ("images", "more_images", "pairs", *(f"labelled/{label}" for label in "abc")):
        (folder / name).mkdir(parents=True)
    lines, names = ["file_name,caption"], []
    for i, row in enumerate(rows):
        caption = row["name"].replace(",", "")
        row["image"].save(folder / ("images" if i < IMAGES else "more_images") / f"{i}.png")
        row["image"].save(folder / "pairs" / f"{i}.png")
        row["image"].save(folder / "labelled" / "abc"[i % 3] / f"{i}.png")
        lines.append(f"{i}.png,{caption}")
        names.append(f"A {caption} is a {caption}, and a {caption} was good.")
    (folder / "pairs" / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "texts.txt").write_text("\n\n".join(names * 4), encoding="utf-8")
    (folder / "captions.txt").write_text("\n".join(names), encoding="utf-8")
    return folder


@pytest.fixture
def place(data, tmp_path, monkeypatch):
    """A folder to run a page's blocks in, and a Hub on loopback that may be pushed to."""
    (tmp_path / "path").mkdir()
    shutil.copytree(data, tmp_path / "path" / "to")
    (tmp_path / "recipes").symlink_to(REPOSITORY / "recipes")
    with serve(tmp_path / "hub") as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        for name, value in {**online, "HF_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        yield tmp_path


def largest_child() -> int:
    """Bytes of memory that the largest process started so far, and ended, has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def run(words: list[str], folder: Path) -> str:
    """What a command prints. Fails where it does."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    most_before = largest_child()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert largest_child() == most_before or largest_child() < MOST_MEMORY, f"{shlex.join(words)} takes over 2 GB"
    return done.stdout


def run_block(block: Block, folder: Path) -> None:
    if block.language == "python":
        printed = run([sys.executable, "-c", block.code], folder)
        assert block.output is None or printed == block.output, f"{block}\n{printed}"
        return
    for words in commands(block):
        if not " ".join(words).startswith(NEEDS_GPUS):
            smoke = words in RECIPES and not {"--smoke", "--help"} & set(words)
            run([*words, "--smoke"] if smoke else words, folder)


def is_quick(page: str) -> bool:
    """Whether a page runs no recipe, and trains nothing in Python."""
    return page != "docs/python.md" and not any(
        words in RECIPES for block in blocks(page) if block.language == "sh" for words in commands(block)
    )


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[] if is_quick(page) else pytest.mark.slow) for page in PAGES if blocks(page)],
)
def test_blocks_run(page, place):
    for block in blocks(page):
        run_block(block, place)


def test_the_first_block_of_the_readme_runs(place):
    first = next(block for block in blocks("README.md") if block.output is not None)
    run_block(first, place)
