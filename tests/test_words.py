"""Prose is in plain words: what docstrings, comments, messages, help, pages and cards must not say, and what to say."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "model_cards/**/*.md", "hf_pretext/**/*.jinja")
CODE = ("hf_pretext/**/*.py", "recipes/**/*.py", "benchmarks/**/*.py", "tests/**/*.py")
LIST_B = {  # a pattern, and what to say instead
    r"pictures?": "image, images",
    r"(un)?told": "predicted, classified, distinguished; accuracy",
    r"tell(s|ing)? .{0,30}apart|tell(s|ing)? .{0,30}from (each )?other": "distinguish",
    r"beside": "next to, compared with",
    r"by itself": "default; alone",
    r"figures": "metrics, numbers",
    r"(un)?mend(s|ed|ing)?": "fix, fixes, fixed",
    r"(go|goes|going|gone|went) on with": "resume, resumes, resumed",
    r"anew": "again",
    r"of both kinds": "image-text",
    r"what bounds it": "limited by",
}
LISTS = ("test_words.py", "test_layout.py")  # files that name the words
NO_PROSE = {"figures", "picture", "a picture of a {}."}  # a key of results.json, a column name, a prompt
PATTERNS = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): instead for pattern, instead in LIST_B.items()}


def files(patterns: tuple[str, ...]) -> list[Path]:
    """Files of the repository, by path, without those that list words."""
    paths = {path for pattern in patterns for path in REPOSITORY.glob(pattern)}
    return sorted(path for path in paths if path.is_file() and path.name not in LISTS and ".venv" not in path.parts)


def prose_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and each string."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in NO_PROSE:
            for number, line in enumerate(node.value.splitlines()):
                yield node.lineno + number, line


def prose_of_page(source: str) -> Iterator[tuple[int, str]]:
    yield from enumerate(source.splitlines(), 1)


def faults(text: str) -> list[str]:
    """What a line says that it must not, each with what to say."""
    found = ((pattern.search(text), instead) for pattern, instead in PATTERNS.items())
    return [f"{match.group()!r}: say {instead}" for match, instead in found if match]


def broken(paths: list[Path], prose) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)}:{line}: {fault}"
        for path in paths
        for line, text in prose(path.read_text(encoding="utf-8"))
        for fault in faults(text)
    ]


def test_code_is_in_plain_words():
    lines = broken(files(CODE), prose_of_code)
    assert not lines, "\n".join(lines)


def test_pages_and_cards_are_in_plain_words():
    lines = broken(files(PAGES), prose_of_page)
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    "line",
    [
        "Pictures of 3 sizes",
        "is told from others",
        "tells cats and dogs apart",
        "beside it",
        "and mends it",
        "goes on with it",
    ],
)
def test_a_line_that_says_so_is_seen(line):
    assert len(faults(line)) == 1 and faults(line.replace(line, "besides, an amended figure of images")) == []
