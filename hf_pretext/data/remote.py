"""Files anywhere that fsspec reaches: sizes, ranges, patience with servers, and what was learnt about a file before.

urls -> sizes and stamps -> one array for each file, kept on disk until the file changes
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

THREADS = 16  # that ask for sizes and footers of remote files
READ_AHEAD = 2**23  # bytes of a request, where a file is gone through
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before a remote file is tried again
BUSY = (429, 500, 502, 503, 504)  # what a server answers that may answer later
GONE = (FileNotFoundError, PermissionError)
log = logging.get_logger(__name__)


def is_gone(error: Exception) -> bool:
    """Whether trying again is of no use, since a file is not there or not ours to read."""
    return isinstance(error, GONE) or isinstance(error.__cause__, GONE)


def patiently(act: Callable, remote: bool, hopeless: Callable[[Exception], bool] = is_gone):
    """`act()`, tried again a few times where something remote fails: servers do, for a while.

    hopeless: whether an error is one that stays."""
    for pause in PAUSES if remote else ():
        try:
            return act()
        except Exception as error:  # each library has its own
            if hopeless(error):
                raise
            log.warning(f"Reading failed ({type(error).__name__}: {error}); trying again in {pause} s.")
            time.sleep(pause)
    return act()


@contextmanager
def patient_hub() -> Iterator[None]:
    """Tries again what a busy Hub refuses: its client asks for lists of files but once, and opening a dataset takes
    many such requests, one after the other."""
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
    """`function` of each file, in threads where files are remote."""
    if not any(map(is_remote, urls)):
        return list(map(function, urls, *more))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, urls, *more))


def cached(urls: Sequence[str], facts: Sequence[tuple[int, str]], kind: str, make) -> list[np.ndarray]:
    """`make(url)` of each file, kept on disk until the file changes: counting rows may cost a pass over them.

    The cache lies below `HF_HOME`. Remote files are asked side by side.
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
        except OSError:  # no room or no right to write: the next run counts again
            pass
        return result

    return side_by_side(one, urls, facts)


def file_facts(urls: Sequence[str]) -> list[tuple[int, str]]:
    """Size in bytes of each file, and what changes with its content where that is known (ETag, time of change)."""
    import fsspec

    def one(url: str) -> tuple[int, str]:
        system, path = fsspec.core.url_to_fs(url)
        info = patiently(lambda: system.info(path), is_remote(url))
        stamps = [info[name] for name in ("ETag", "etag", "mtime", "last_commit") if info.get(name) is not None]
        return int(info["size"]), str(stamps[0] if stamps else "")

    return side_by_side(one, urls)


def open_file(url: str, through: bool = False):
    """A file for reading. Remote ones are read in just the ranges asked for, or `through`, in large blocks."""
    import fsspec

    if not is_remote(url):
        return open(url, "rb")
    system, path = fsspec.core.url_to_fs(url)
    return system.open(path, "rb", cache_type="readahead" if through else "none", block_size=READ_AHEAD)


def read_bytes(url: str, start: int, stop: int) -> bytes:
    """A range of a file."""
    with open_file(url) as handle:
        handle.seek(start)
        return handle.read(stop - start)


def can_be_reached(url: str) -> bool:
    """Whether a remote file's server answers for it: then what can't be read is damaged, not out of reach."""
    try:
        return bool(patiently(lambda: read_bytes(url, 0, 1), remote=True))
    except Exception:  # each library has its own
        return False


def is_remote(url: str) -> bool:
    """Whether it has a protocol."""
    return "://" in url


def short_names(urls: Sequence[str]) -> list[str]:
    """Names of files without what all have in front, as short as they stay different.

    Raises `ValueError` for a file given twice: two rows would have one name."""
    twice = next((url for url, times in Counter(urls).items() if times > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice. Give each file once; --mixture_weights says what comes more often.")
    names = [Path(url).name for url in urls]
    if len(set(names)) == len(names):
        return names
    parts = [url.split("/") for url in urls]
    shared = next(i for i, words in enumerate(itertools.zip_longest(*parts)) if len(set(words)) > 1)
    return ["/".join(words[shared:]) for words in parts]


def sizes_of(names: Sequence[str], facts: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Sizes of files by name."""
    return {name: size for name, (size, _) in zip(names, facts, strict=True)}


def digest(content) -> str:
    """Sixteen letters that stand for any content of numbers, strings and lists."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
