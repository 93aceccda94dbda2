"""Atomic writes: files and folders are written completely or not at all."""

import functools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from .processes import is_leftover, temporary_name


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Context manager that yields a temporary path next to `path`. At the end the temporary path is renamed to `path`.

    If anything fails, the temporary path is deleted and an existing file stays unchanged. Existing folders can't be
    replaced. Creates missing parent folders. The temporary path keeps the suffix, which some writers depend on.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


@functools.cache  # once: a folder of a cache may contain thousands of files
def remove_leftovers(folder: Path) -> None:
    """Removes temporary files and folders of `atomic_path` in a folder whose processes have ended."""
    for path in folder.glob(".*.tmp.*"):
        if is_leftover(path, time.time()):
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):  # removed as a folder, or by a different process
                path.unlink()


def made_once(folder: str | os.PathLike, make: Callable[[Path], None]) -> Path:
    """Returns a folder, and creates it if it does not exist. If several processes create it, the first one wins.

    make: writes the content into the temporary folder that it gets."""
    folder = Path(folder)
    remove_leftovers(folder.parent)
    if not folder.exists():
        try:
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                make(temporary)
        except OSError:
            if not folder.exists():  # no other process has created it
                raise
    return folder


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def without_nan(content):
    """Returns the content with None in place of NaN and infinity, which JSON does not support."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_json(path: str | os.PathLike, content: dict | list) -> None:
    """Writes a JSON file atomically. Raises `ValueError` for NaN and infinity, which JSON does not support."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def sync(path: str | os.PathLike) -> None:
    """Flushes a file or a folder to disk, so that it survives a power cut."""
    with suppress(OSError) if os.path.isdir(path) else nullcontext():  # some file systems can't flush folders
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
