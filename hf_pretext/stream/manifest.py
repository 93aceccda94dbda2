"""Manifest of a checkpoint: size and hash of each of its files, so that no missing or changed file goes unnoticed.

files of a checkpoint -> manifest.json, written last -> damage in words, before a run resumes from it
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..utils.files import sync, write_json

MANIFEST = "manifest.json"
CHUNK = 2**20  # bytes of a file that are in memory at once


def write_manifest(folder: Path, **facts) -> None:
    """Writes the manifest of a checkpoint whose other files are complete, and flushes all files and folders to disk.

    facts: other entries, for JSON: parent, step, global_batch, resumable."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    content = {**facts, "files": {path.relative_to(folder).as_posix(): entry_of(path) for path in paths}}
    write_json(folder / MANIFEST, {**content, "blake2b": hash_of(content)})
    for path in (*folder.rglob("*"), folder):
        sync(path)


def write_manifest_of_copy(folder: Path, copy: Path, changed: Iterable[str]) -> None:
    """Writes the manifest of a copy of a checkpoint.

    changed: names of the files that have other content in the copy. A file that is damaged in the checkpoint keeps its
    entry, so that it counts as damaged in the copy. Raises `ValueError` as `read_manifest`."""
    content = read_manifest(folder)
    for name in changed:
        entry = content["files"].get(name)
        if entry and (copy / name).exists() and not damage_of(folder, name, entry, contents=True):
            content["files"][name] = entry_of(copy / name)
    write_json(copy / MANIFEST, {**content, "blake2b": hash_of(content)})


def entry_of(path: Path) -> dict:
    """Returns the entry of a file in the manifest: its size in bytes and its hash."""
    return {"size": path.stat().st_size, "blake2b": hash_of_file(path)}


def read_manifest(folder: str | os.PathLike) -> dict:
    """Returns the manifest of a checkpoint. Raises `ValueError` if it is missing or damaged."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise ValueError(f"{MANIFEST} is missing (an earlier version wrote the checkpoint, or it is incomplete)")
    try:
        content = json.loads(path.read_bytes())
        if content.pop("blake2b") == hash_of(content):
            return content
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # cut or changed so that it is no JSON object
    raise ValueError(f"the content of {MANIFEST} has changed")


def damage(folder: str | os.PathLike, contents: bool = True) -> list[str]:
    """Returns what is missing or damaged in a checkpoint, in words. Empty for an intact one.

    contents: False compares only names and sizes, which is fast."""
    try:
        files = read_manifest(folder)["files"]
    except ValueError as error:
        return [str(error)]
    return [fault for name, entry in files.items() if (fault := damage_of(Path(folder), name, entry, contents))]


def damage_of(folder: Path, name: str, entry: dict, contents: bool) -> str | None:
    """Returns what is wrong with a file of a checkpoint, None if it is intact. entry: its size and hash."""
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != entry["size"]:
        return f"{name} has {path.stat().st_size:,} bytes, not {entry['size']:,}"
    try:
        return f"the content of {name} has changed" if contents and hash_of_file(path) != entry["blake2b"] else None
    except OSError as error:
        return f"{name} can't be read: {error.strerror}"


def hash_of_file(path: Path) -> str:
    """Returns the BLAKE2b hash of a file, in hexadecimal digits. Reads it in pieces."""
    hashed = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def hash_of(content: dict) -> str:
    """Returns the BLAKE2b hash of a JSON object, in hexadecimal digits."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=32).hexdigest()
