"""Sampled hashes of the content of files: a run that resumes notices data that changed and kept its size.

files -> {name: (stamp, hash)} when a run starts -> names of the files whose content has changed
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .remote import THREADS, is_remote

BLOCK, BLOCKS = 2**16, 4  # bytes of a block, and blocks of a file, that are hashed
MOST = 1000  # files of a source that are hashed


class File(NamedTuple):
    """A data file. path: or URL. stamp: ETag or modification time; "" if unknown."""

    path: str
    size: int
    stamp: str


class Contents:
    """Content of the files of a source.

    Local files are hashed in blocks: small files whole, large ones in their first, last and two middle blocks. A remote
    file is known by its stamp only, since a hash would need requests. Of more than `MOST` files, `MOST` are recorded,
    evenly spread over the sorted names."""

    def __init__(self, files: Mapping[str, File]):
        self.files = dict(files)
        self._recorded: dict[str, list] | None = None

    def record(self) -> dict[str, list]:
        """Returns `{name: [stamp, hash or None]}`, for JSON. Files are read on the first call only."""
        if self._recorded is None:
            self._recorded = self._with_hashes(spread(sorted(self.files)))
        return self._recorded

    def changed(self, recorded: Mapping[str, Sequence]) -> list[str]:
        """Returns the names of files whose content is not that of an earlier `record()`.

        A local file with the same stamp is not read; a remote one has changed if its stamp has. Files without a record
        and files that moved between local and remote are left out. If none has changed, `record()` keeps the hashes."""
        files = {name: self.files[name] for name in recorded if name in self.files}
        doubtful = [name for name, file in files.items() if not file.stamp or file.stamp != recorded[name][0]]
        local = [name for name in doubtful if recorded[name][1] is not None and not is_remote(files[name].path)]
        changed = [name for name, (_, content) in self._with_hashes(local).items() if content != recorded[name][1]]
        for name in doubtful:
            (stamp, content), file = recorded[name], files[name]
            if content is None and is_remote(file.path) and stamp and file.stamp:
                changed.append(name)
        if not changed:
            self._recorded = {name: [file.stamp, recorded[name][1]] for name, file in files.items()}
        return sorted(changed)

    def _with_hashes(self, names: Sequence[str]) -> dict[str, list]:
        with ThreadPoolExecutor(THREADS) as pool:
            hashes = pool.map(lambda name: sampled_hash(self.files[name]), names)
            return {name: [self.files[name].stamp, content] for name, content in zip(names, hashes, strict=True)}


def files_of(names: Sequence[str], urls: Sequence[str], facts: Sequence[tuple[int, str]]) -> dict[str, File]:
    """Returns files by name. facts: size and stamp of each (see `file_facts`)."""
    return {name: File(url, *fact) for name, url, fact in zip(names, urls, facts, strict=True)}


def spread(names: Sequence[str]) -> list[str]:
    """Returns at most `MOST` names, evenly spread."""
    count = min(len(names), MOST)
    return [names[i * len(names) // count] for i in range(count)]


def blocks(size: int) -> list[tuple[int, int]]:
    """Returns start and length in bytes of the blocks of a file that are hashed."""
    if size <= BLOCK * BLOCKS:
        return [(0, size)]
    return [(i * (size - BLOCK) // (BLOCKS - 1), BLOCK) for i in range(BLOCKS)]


def sampled_hash(file: File) -> str | None:
    """Returns a hash of a sample of the bytes of a local file; None for a remote file or one that can't be read."""
    if is_remote(file.path):
        return None
    content = hashlib.blake2b(digest_size=8)
    try:
        with open(file.path, "rb", buffering=0) as opened:
            for start, length in blocks(file.size):
                opened.seek(start)
                content.update(opened.read(length))
    except OSError:  # its rows are bad samples
        return None
    return content.hexdigest()
