"""Sizes and stamps of local and remote files, retries of failed requests, and a cache of facts about files.

urls -> sizes and stamps -> one array per file, cached on disk until the file changes
"""

import hashlib
import io
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from huggingface_hub import get_session
from transformers.utils import logging

from ..utils.files import atomic_path
from ..utils.paths import without_query
from .ranges import HTTP, UNKNOWN, Changed, Fact, RemoteFile, fetch, is_remote, retry_after

THREADS = 16  # for requests of sizes and footers of remote files
READ_AHEAD = 2**23  # bytes per request, if a file is read from start to end
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before each retry of a remote request
LONGEST = 300  # seconds before a retry, where a server asks for a pause
BUSY = (429, 500, 502, 503, 504)  # HTTP status codes of temporary failures
REFUSED = (401, 403, 404, 410)  # HTTP status codes that a retry does not change
STAMPS = ("ETag", "etag", "mtime", "blob_id", "last_commit")  # in the information of a file system on a file
GONE = (FileNotFoundError, PermissionError, Changed)
log = logging.get_logger(__name__)


def is_gone(error: Exception) -> bool:
    """Returns True if a file is missing or has changed, or access is denied, so that a retry can't succeed."""
    refused = getattr(getattr(error, "response", None), "status_code", None) in REFUSED
    return refused or isinstance(error, GONE) or isinstance(error.__cause__, GONE)


def patiently(act: Callable, remote: bool, hopeless: Callable[[Exception], bool] = is_gone):
    """Returns `act()`; if `remote`, retries it after each of `PAUSES`, because servers fail temporarily.

    A server that asks for a longer pause (Retry-After) gets it, up to `LONGEST` seconds. hopeless: returns True for an
    error that a retry can't fix. Raises the error of `act`."""
    for pause in PAUSES if remote else ():
        try:
            return act()
        except Exception as error:  # each library raises other types
            if hopeless(error):
                raise
            reason = without_query(f"{type(error).__name__}: {error}")
            rest(pause, retry_after(error), f"Reading failed ({reason})")
    return act()


def rest(pause: float, asked: float | None, what: str) -> None:
    """Logs what failed, and sleeps for a pause in seconds, or for the longer one that a server asked for."""
    longer = min(asked or 0, LONGEST)
    pause, why = (longer, ", as the server asks") if longer > pause else (pause, "")
    log.warning(f"{what}; trying again in {pause:g} s{why}.")
    time.sleep(pause)


@contextmanager
def patient_hub() -> Iterator[None]:
    """Retries requests that a busy Hub refuses.

    The Hub's client requests lists of files only once, and opening a dataset takes many of these requests."""
    client = get_session()
    send_once = client.send

    def send(request, **options):
        for pause in PAUSES:
            response = send_once(request, **options)
            if response.status_code not in BUSY:
                return response
            response.close()
            rest(pause, retry_after(response), f"The Hub is busy ({response.status_code})")
        return send_once(request, **options)

    client.send = send
    try:
        yield
    finally:
        del client.send


def side_by_side(function, urls: Sequence[str], *more: Sequence) -> list:
    """Returns `function(url, ...)` of each file, computed in threads if any file is remote."""
    if not any(map(is_remote, urls)):
        return list(map(function, urls, *more))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, urls, *more))


def cached(urls: Sequence[str], facts: Sequence[tuple[int, str]], kind: str, make) -> list[np.ndarray]:
    """Returns `make(url)` of each file, cached below `HF_HOME` until the file changes.

    facts: size and stamp of each file (see `file_facts`). kind: name of the result, part of the cache key. Results are
    cached because counting rows may require reading the whole file. Remote files are processed in parallel.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HOME) / "hf_pretext" / "rows"

    def one(url: str, fact: tuple[int, str]) -> np.ndarray:
        path = folder / f"{digest([url, fact, kind])}.npy"
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            result = patiently(lambda: make(url), is_remote(url))
        try:
            with atomic_path(path) as temporary:
                np.save(temporary, result, allow_pickle=False)
        except OSError:  # disk full or not writable: the next run counts again
            pass
        return result

    return side_by_side(one, urls, facts)


def listed_facts(urls: Sequence[str]) -> list[Fact | None]:
    """Returns for each file its size and a stamp that changes with its content; None for a file at an HTTP server.

    The stamp is the ETag, modification time, blob or commit; "" if the file system has none of them. Files of one
    remote folder cost one listing."""
    import fsspec

    folders = Counter(url.rpartition("/")[0] for url in urls if is_remote(url))

    def one(url: str) -> Fact | None:
        if url.startswith(HTTP):
            return None
        system, path = fsspec.core.url_to_fs(url)
        info = listings.get(url.rpartition("/")[0], {}).get(path)
        info = info or patiently(lambda: system.info(path), is_remote(url))
        stamps = [info[name] for name in STAMPS if info.get(name) is not None]
        return int(info["size"]), str(stamps[0] if stamps else "")

    def listing(folder: str) -> dict[str, dict]:
        system, path = fsspec.core.url_to_fs(folder)
        return {info["name"]: info for info in patiently(lambda: system.ls(path, detail=True), remote=True)}

    several = [folder for folder, files in folders.items() if files > 1 and not folder.startswith(HTTP)]
    listings = dict(zip(several, side_by_side(listing, several), strict=True))
    return side_by_side(one, urls)


def file_facts(urls: Sequence[str]) -> list[Fact]:
    """Returns for each file its size in bytes and its stamp, as `listed_facts`; of an HTTP server by a request each."""
    return side_by_side(lambda url, fact: fact or served_fact(url), urls, listed_facts(urls))


def served_fact(url: str) -> Fact:
    """Returns size and stamp of a file, from the answer to a request of its last byte."""
    answer = patiently(lambda: fetch(url, -1), is_remote(url))
    return answer.size, answer.stamp


class PatientFile(RemoteFile):
    """A remote file that retries each request: reading it from start to end takes many of them."""

    def _fetch(self, start: int, stop: int) -> bytes:
        return patiently(lambda: RemoteFile._fetch(self, start, stop), remote=True)


def open_file(url: str, through: bool = False):
    """Opens a file for reading. Remote files are read in exact ranges or, with `through`, in blocks of `READ_AHEAD`."""
    if not is_remote(url):
        return open(url, "rb")
    fact = file_facts([url])[0]
    return io.BufferedReader(PatientFile(url, fact), READ_AHEAD) if through else RemoteFile(url, fact)


def read_bytes(url: str, start: int, stop: int, known: Fact = UNKNOWN) -> bytes:
    """Returns bytes `start` to `stop` (exclusive) of a file. Arguments and errors are those of `fetch`."""
    return fetch(url, start, stop, known).content


def short_names(urls: Sequence[str]) -> list[str]:
    """Returns the names of files, or their paths below the common folder if names repeat. Queries are left out.

    Raises `ValueError` for a file given twice, because two rows would have the same key."""
    twice = next((url for url, times in Counter(urls).items() if times > 1), None)
    if twice is not None:
        twice = without_query(twice)
        raise ValueError(f"{twice} is given twice. Give each file once; set --mixture_weights to draw data more often.")
    public = [without_query(url) for url in urls]
    if len(set(public)) < len(public):  # files that differ in their query
        public = [f"{name}#{digest(url)}" for name, url in zip(public, urls, strict=True)]
    names = [Path(url).name for url in public]
    if len(set(names)) == len(names):
        return names
    parts = [url.split("/") for url in public]
    shared = next(i for i, words in enumerate(itertools.zip_longest(*parts)) if len(set(words)) > 1)
    return ["/".join(words[shared:]) for words in parts]


def digest(content) -> str:
    """Returns a hash, 16 hexadecimal digits, of any content that JSON can represent."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
