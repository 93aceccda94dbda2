"""Ranges of local and remote files, and what servers say about pauses."""

import io
from email.utils import formatdate
from time import time
from types import SimpleNamespace

import fsspec
import pytest
from range_server import serve

from hf_pretext.data.ranges import UNKNOWN, Answer, BadAnswer, Changed, RemoteFile, fetch, retry_after
from hf_pretext.data.remote import is_gone

CONTENT = bytes(range(256)) * 10


@pytest.mark.parametrize("where", ["local", "server", "memory"])
def test_ranges_of_any_file(tmp_path, where):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    fsspec.filesystem("memory").pipe("/ranges/a.bin", CONTENT)
    with serve(tmp_path) as server:
        url = {"local": f"{tmp_path}/a.bin", "server": f"{server.url}/a.bin", "memory": "memory://ranges/a.bin"}[where]
        known = (len(CONTENT), fetch(url, -1).stamp)
        for start, stop in ((0, 10), (5, len(CONTENT)), (100, 101), (7, 7), (-20, None), (-9999, None)):
            assert fetch(url, start, stop, known).content == CONTENT[start:stop]
        if where != "local":
            file = RemoteFile(url, known, [(10, 300)])
            reader = io.BufferedReader(file, 64)
            reader.seek(200)
            assert (
                reader.read(150) == CONTENT[200:350] and reader.seek(-5, io.SEEK_END) and reader.read() == CONTENT[-5:]
            )
            file.confirm()
        if where == "server":
            with pytest.raises(Changed, match="a.bin has changed"):
                fetch(url, 0, 9, (len(CONTENT), '"another"'))
            with pytest.raises(BadAnswer, match="has 2,560 bytes, but had 2,559"):
                fetch(url, 0, 9, (len(CONTENT) - 1, known[1]))
            with pytest.raises(FileNotFoundError, match="b.bin does not exist"):
                fetch(f"{server.url}/b.bin?token=1", 0, 9)
            with pytest.raises(BadAnswer, match="ConnectError|refused") as caught:
                fetch(f"http://127.0.0.1:1/{'a' * 3}?token=1", 0, 9)
            assert "token" not in str(caught.value)


def test_an_empty_file_has_no_bytes(tmp_path):
    (tmp_path / "a.bin").touch()
    with serve(tmp_path) as server:
        assert fetch(f"{server.url}/a.bin", -10).content == b"" == fetch(f"{tmp_path}/a.bin", -10).content
    assert fetch("memory://none", -10, None, (0, "")) == Answer(b"", 0, "") and UNKNOWN[0] < 0


def test_the_pause_that_a_server_asks_for():
    """From responses and errors of several libraries, in seconds or as a date."""
    response = SimpleNamespace(status_code=429, headers={"retry-after": "12"})
    assert retry_after(response) == 12
    error = ConnectionError()
    assert retry_after(error) is None
    error.response = response  # httpx, requests
    assert retry_after(error) == 12
    other = ConnectionError()
    other.headers = {"Retry-After": formatdate(time() + 100, usegmt=True)}  # aiohttp
    assert 90 < retry_after(other) < 101
    other.headers = {"Retry-After": "soon"}
    assert retry_after(other) is None
    outer = ConnectionError()
    outer.__cause__ = BadAnswer("", wait=3)
    assert retry_after(outer) == 3


def test_a_refused_request_is_not_retried():
    error = ConnectionError()
    for status, gone in ((404, True), (403, True), (503, False), (429, False)):
        error.response = SimpleNamespace(status_code=status)
        assert is_gone(error) == gone
