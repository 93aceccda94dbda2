"""Files and folders that are written completely or not at all."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path next to `path` to write to: it takes that name at the end, and is gone if anything fails.

    What was there before stays until then; a folder can only be new. Missing folders are made. The suffix is kept,
    since some writers go by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a number of a process may be another's, in another container or after a crash
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def made_once(folder: str | os.PathLike, make: Callable[[Path], None]) -> Path:
    """A folder that is made when first asked for. Of several processes that make it at once, the first one's stays.

    make: fills the temporary folder that it is given."""
    folder = Path(folder)
    if not folder.exists():
        try:
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                make(temporary)
        except OSError:
            if not folder.exists():  # nobody else was quicker
                raise
    return folder


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def without_nan(content):
    """The same with None for numbers that JSON can't hold: NaN and infinity."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_json(path: str | os.PathLike, content: dict | list) -> None:
    """Writes a JSON file. NaN and infinity are errors, not invalid JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
