"""Reads sizes and ranges of local and remote files (fsspec), retries failed requests, and caches facts about files.

urls -> sizes and stamps -> one array per file, cached on disk until the file changes
"""

import hashlib
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

THREADS = 16  # for requests of sizes and footers of remote files
READ_AHEAD = 2**23  # bytes per request, if a file is read from start to end
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before each retry of a remote request
BUSY = (429, 500, 502, 503, 504)  # HTTP status codes of temporary failures
STAMPS = ("ETag", "etag", "mtime", "blob_id", "last_commit")  # in the information of a file system on a file
GONE = (FileNotFoundError, PermissionError)
log = logging.get_logger(__name__)


def is_gone(error: Exception) -> bool:
    """Returns True if a file is missing or access is denied, so that a retry can't succeed."""
    return isinstance(error, GONE) or isinstance(error.__cause__, GONE)


def patiently(act: Callable, remote: bool, hopeless: Callable[[Exception], bool] = is_gone):
    """Returns `act()`; if `remote`, retries it after each of `PAUSES`, because servers fail temporarily.

    hopeless: returns True for an error that a retry can't fix. Raises the error of `act`."""
    for pause in PAUSES if remote else ():
        try:
            return act()
        except Exception as error:  # each library raises other types
            if hopeless(error):
                raise
            log.warning(f"Reading failed ({type(error).__name__}: {error}); trying again in {pause} s.")
            time.sleep(pause)
    return act()


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
            log.warning(f"The Hub is busy ({response.status_code}); trying again in {pause} s.")
            time.sleep(pause)
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


def file_facts(urls: Sequence[str]) -> list[tuple[int, str]]:
    """Returns for each file its size in bytes and a stamp that changes with its content.

    The stamp is the ETag, modification time, blob or commit; "" if the file system has none of them."""
    import fsspec

    def one(url: str) -> tuple[int, str]:
        system, path = fsspec.core.url_to_fs(url)
        info = patiently(lambda: system.info(path), is_remote(url))
        stamps = [info[name] for name in STAMPS if info.get(name) is not None]
        return int(info["size"]), str(stamps[0] if stamps else "")

    return side_by_side(one, urls)


def open_file(url: str, through: bool = False):
    """Opens a file for reading. Remote files are read in exact ranges or, with `through`, in blocks of `READ_AHEAD`."""
    import fsspec

    if not is_remote(url):
        return open(url, "rb")
    system, path = fsspec.core.url_to_fs(url)
    return system.open(path, "rb", cache_type="readahead" if through else "none", block_size=READ_AHEAD)


def read_bytes(url: str, start: int, stop: int) -> bytes:
    """Returns bytes `start` to `stop` (exclusive) of a file."""
    with open_file(url) as handle:
        handle.seek(start)
        return handle.read(stop - start)


def can_be_reached(url: str) -> bool:
    """Returns True if the first byte of a remote file can be read; an unreadable row is then damage, not a network
    failure."""
    try:
        return bool(patiently(lambda: read_bytes(url, 0, 1), remote=True))
    except Exception:  # each library raises other types
        return False


def is_remote(url: str) -> bool:
    """Returns True for a URL with a protocol ("://")."""
    return "://" in url


def short_names(urls: Sequence[str]) -> list[str]:
    """Returns the names of files, or their paths below the common folder if names repeat.

    Raises `ValueError` for a file given twice, because two rows would have the same key."""
    twice = next((url for url, times in Counter(urls).items() if times > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice. Give each file once; set --mixture_weights to draw data more often.")
    names = [Path(url).name for url in urls]
    if len(set(names)) == len(names):
        return names
    parts = [url.split("/") for url in urls]
    shared = next(i for i, words in enumerate(itertools.zip_longest(*parts)) if len(set(words)) > 1)
    return ["/".join(words[shared:]) for words in parts]


def digest(content) -> str:
    """Returns a hash, 16 hexadecimal digits, of any content that JSON can represent."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
