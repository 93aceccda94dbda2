"""Manifest of a checkpoint: size and hash of each of its files, so that no missing or changed file goes unnoticed.

files of a checkpoint -> manifest.json, written last -> damage in words, before a run resumes from it
"""

import hashlib
import json
import os
from pathlib import Path

from ..utils.files import sync, write_json

MANIFEST = "manifest.json"
CHUNK = 2**20  # bytes of a file that are in memory at once


def write_manifest(folder: Path, **facts) -> None:
    """Writes the manifest of a checkpoint whose other files are complete, and flushes all files and folders to disk.

    facts: other entries, for JSON: step, parent, global_batch, resumable."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "blake2b": hash_of_file(path)}
        for path in paths
    }
    content = {**facts, "files": files}
    write_json(folder / MANIFEST, {**content, "blake2b": hash_of(content)})
    for path in (*folder.rglob("*"), folder):
        sync(path)


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
