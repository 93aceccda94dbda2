"""Reads ranges of bytes of local and remote files, one request for each, and checks what a server answers.

url, start, stop -> GET with a Range header (https://, hf://) or fsspec (s3://, gs://, ...) -> bytes, size, stamp
"""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from functools import cache
from time import time
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..utils.paths import without_query

Fact = tuple[int, str]  # size in bytes (-1: unknown) and stamp ("": unknown) of a file
UNKNOWN: Fact = (-1, "")
HTTP = ("http://", "https://")
TIMEOUT = 60  # seconds without a byte
SLICED = 2**20  # bytes of a file that a server without ranges may send whole
HUB_FILE = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@(refs/[^/]+/[^/]+|[^/]+))?/(.+)")
PAST_THE_END = re.compile(r"bytes \*/(\d+)")
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class BadAnswer(ConnectionError):
    """A server sent something else than the range. wait: seconds until it asks to be asked again, or None."""

    def __init__(self, message: str, wait: float | None = None):
        super().__init__(message)
        self.wait = wait


class Changed(ConnectionError):
    """A file is not the one that was indexed."""


def is_network(error: BaseException) -> bool:
    """Returns True for an error of `fetch`; any other error of a reader comes from the content of its file."""
    return isinstance(error, (ConnectionError, TimeoutError, FileNotFoundError, PermissionError))


class Answer(NamedTuple):
    """A range of a file, and the size and the stamp of the file: its ETag, else its time; "" if unknown."""

    content: bytes
    size: int
    stamp: str


def is_remote(url: str) -> bool:
    """Returns True for a URL with a protocol ("://")."""
    return "://" in url


def fetch(url: str, start: int, stop: int | None = None, known: Fact = UNKNOWN) -> Answer:
    """Returns bytes `start` to `stop` (exclusive) of a file; with a negative `start`, as many of its last bytes.

    known: size and stamp that the file must have. One request, without a retry. Raises `FileNotFoundError`,
    `PermissionError`, `Changed` for other content than `known`, and `BadAnswer` for any other failure of a server."""
    if start == stop:
        return Answer(b"", *known)
    if not is_remote(url):
        with open(url, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            handle.seek(max(start, -size), os.SEEK_SET if start >= 0 else os.SEEK_END)
            return Answer(handle.read(-1 if stop is None else stop - start), size, known[1])
    try:
        read = _by_http if url.startswith(HTTP) or HUB_FILE.fullmatch(url) else _by_fsspec
        return read(url, start, stop, known)
    except Exception as error:  # each library raises other types
        if is_network(error):
            raise
        reason = f"{without_query(url)}: {type(error).__name__}: {without_query(str(error))}"
        raise BadAnswer(reason, retry_after(error)) from None  # the error itself may show a token


def _by_fsspec(url: str, start: int, stop: int | None, known: Fact) -> Answer:
    import fsspec

    size = known[0]
    if size == 0:  # no range of it can be asked for
        return Answer(b"", *known)
    system, path = fsspec.core.url_to_fs(url)
    content = system.cat_file(path, start=start, end=stop)
    length = min(-start, size) if stop is None else min(stop, size) - start
    if size >= 0 and len(content) != length:
        raise BadAnswer(f"{without_query(url)}: {len(content):,} bytes arrived, {length:,} were expected.")
    return Answer(content, size, known[1])


def _by_http(url: str, start: int, stop: int | None, known: Fact) -> Answer:
    client, address, headers = _request(url)
    asked = f"bytes={start}" if stop is None else f"bytes={start}-{stop - 1}"
    headers = {**headers, "Range": asked, "Accept-Encoding": "identity"}
    with client.stream("GET", address, headers=headers, timeout=TIMEOUT) as response:
        first, last, size = _span(url, response)
        stamp = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if HUB_FILE.fullmatch(url):  # storage behind the Hub has ETags of its own; a commit does not change
            stamp = known[1]
        if known[1] and stamp and stamp != known[1]:
            raise Changed(f"{without_query(url)} has changed since it was opened: its ETag or time is another one.")
        if 0 <= known[0] != size:
            kind = BadAnswer if stamp and stamp == known[1] else Changed
            raise kind(f"{without_query(url)} has {size:,} bytes, but had {known[0]:,} when it was opened.")
        begin = max(size + start, 0) if start < 0 else start
        end = size if stop is None else min(stop, size)
        if not first <= begin <= end <= last:
            raise BadAnswer(f"{without_query(url)}: bytes {first}-{last} arrived, {begin}-{end} were expected.")
        content = response.read()
    if len(content) != last - first:
        raise BadAnswer(f"{without_query(url)}: {len(content):,} bytes arrived, {last - first:,} were expected.")
    return Answer(content[begin - first : end - first], size, stamp)


def _span(url: str, response) -> tuple[int, int, int]:
    """Returns the first byte, the end (exclusive) and the size of the file from the headers of an answer."""
    shown, host, status = without_query(url), response.url.host, response.status_code
    if status in (404, 410):
        raise FileNotFoundError(f"{shown} does not exist: {host} answered {status}.")
    if status in (401, 403):
        raise PermissionError(f"{shown} can't be accessed: {host} answered {status}. Check your token.")
    if status >= 400 and status != 416:
        raise BadAnswer(f"{shown}: {host} answered {status}.", retry_after(response))
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    if kind in ("text/html", "application/xhtml+xml") and not urlsplit(url).path.endswith((".html", ".htm")):
        raise BadAnswer(f"{shown}: {host} answered {status} with a web page ({kind}), not with the file.")
    if status == 416 and (past := PAST_THE_END.fullmatch(response.headers.get("Content-Range", ""))):
        return 0, 0, int(past[1])  # an empty file, or one that was longer
    if span := CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")) if status == 206 else None:
        return int(span[1]), int(span[2]) + 1, int(span[3])
    length = int(response.headers.get("Content-Length", -1))
    if status == 200 and 0 <= length <= SLICED:
        return 0, length, length
    raise BadAnswer(f"{shown}: {host} answered {status} without the range that was asked for. Its files can't be read "
                    "in parts: copy them to a disk, or to a server with range requests.")  # fmt: skip


def _request(url: str) -> tuple:
    """Returns an HTTP client, the address and the headers for a URL."""
    from huggingface_hub import get_session

    if not (match := HUB_FILE.fullmatch(url)):
        return _client(), url, {}
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    repository, revision, path = match.groups()
    address = hf_hub_url(
        repository, path, repo_type="dataset", revision=revision and unquote(revision), endpoint=constants.ENDPOINT
    )
    return get_session(), address, build_hf_headers()


@cache
def _client():
    """Returns a client for servers that are not the Hub: it sends them no token, and works with HF_HUB_OFFLINE."""
    from huggingface_hub import get_session

    return type(get_session())(follow_redirects=True, timeout=TIMEOUT)


if hasattr(os, "register_at_fork"):  # connections must not be shared with a child process
    os.register_at_fork(after_in_child=_client.cache_clear)


def retry_after(error) -> float | None:
    """Returns the seconds that a server asks to wait, from an error or response of any HTTP library, or None."""
    for place in (error, getattr(error, "response", None), getattr(error, "__cause__", None)):
        if isinstance(place, BadAnswer) and place.wait is not None:
            return place.wait
        headers = getattr(place, "headers", None) or {}
        value = headers.get("Retry-After") or headers.get("retry-after")
        if value is not None:
            try:
                return float(value) if str(value).isdigit() else parsedate_to_datetime(value).timestamp() - time()
            except ValueError:  # neither a number nor a date
                return None
    return None


class RemoteFile(io.RawIOBase):
    """A remote file that is read in exact ranges. spans: ranges (start, stop) that are read at once, and kept."""

    def __init__(self, url: str, known: Fact, spans: Sequence[tuple[int, int]] = ()):
        super().__init__()
        self.url, self.known, self.at = url, known, 0
        self._kept = [(start, self._fetch(start, stop)) for start, stop in spans]
        self._hashes: dict[tuple[int, int], bytes] = {}  # of the other ranges

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.known[0]}[whence]
        return self.at

    def read(self, count: int = -1) -> bytes:
        start = self.at
        stop = self.known[0] if count is None or count < 0 else min(start + count, self.known[0])
        if stop <= start:
            return b""
        self.at = stop
        for first, content in self._kept:
            if first <= start and stop <= first + len(content):
                return content[start - first : stop - first]
        content = self._fetch(start, stop)
        self._hashes[start, stop] = hashed(content)
        return content

    def readinto(self, buffer) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _fetch(self, start: int, stop: int) -> bytes:
        return fetch(self.url, start, stop, self.known).content

    def confirm(self) -> None:
        """Reads the same ranges a second time. Raises `BadAnswer` if a byte differs: then the server is at fault."""
        hashes = {(start, start + len(content)): hashed(content) for start, content in self._kept} | self._hashes
        for (start, stop), content in hashes.items():
            if hashed(self._fetch(start, stop)) != content:
                raise BadAnswer(f"{without_query(self.url)}: two reads of bytes {start:,} to {stop:,} differ.")


def hashed(content: bytes) -> bytes:
    """Returns a hash of bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()
