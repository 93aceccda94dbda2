"""A loopback server of the files of a folder: ranges, ETags, folders as pages of links, faults, counts of requests.

with serve(folder, delay=0.02) as server:
    open_source(f"{server.url}/*.parquet")
    assert server.requests["GET"] == 1001
"""

import hashlib
import math
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Faults, which may be changed while it runs: page: each file is a web page, with status 200. busy: so many next
    requests get a 429 with `Retry-After: 7`. scramble: each range has other bytes. ranges: False ignores ranges.
    down_from: ranges that start at this byte or later get a 503."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, delay: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.delay = folder, delay
        self.page, self.busy, self.scramble, self.ranges = False, 0, False, True
        self.down_from: float = math.inf
        self.requests: Counter[str] = Counter()
        self.paths: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that went away."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def log_message(self, *args):
        """Nothing is printed."""

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.requests[self.command] += 1
            server.paths.append(self.path)
            busy, server.busy = server.busy > 0, max(server.busy - 1, 0)
            number = server.requests.total()
        if server.delay:
            time.sleep(server.delay)
        path = server.folder / self.path.partition("?")[0].strip("/")
        if busy:
            self.answer(429, b"", {"Retry-After": "7"})
        elif not path.exists():
            self.answer(404, b"", {})
        elif path.is_dir():
            names = sorted(file.name + "/" * file.is_dir() for file in path.iterdir())
            links = "".join(f'<a href="{name}">{name}</a>' for name in ["../", *names])
            self.answer(200, links.encode(), {"Content-Type": "text/html"})
        elif server.page:
            self.answer(200, b"<html>Please log in</html>", {"Content-Type": "text/html; charset=utf-8"})
        else:
            self.send_range(path.read_bytes(), number)

    do_HEAD = do_GET

    def send_range(self, content: bytes, number: int) -> None:
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not self.server.ranges:
            return self.answer(200, content, headers)
        start = int(asked[1]) if asked[1] else max(len(content) - int(asked[2]), 0)
        stop = min(int(asked[2]) + 1, len(content)) if asked[1] and asked[2] else len(content)
        if start >= self.server.down_from and asked[1]:
            return self.answer(503, b"", {})
        if start >= stop:
            return self.answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        part = content[start:stop]
        if self.server.scramble:
            part = bytes((byte + number) % 256 for byte in part)
        return self.answer(206, part, headers)

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def serve(folder: Path, delay: float = 0.0):
    """Starts a server on a free port of this machine, and stops it."""
    server = RangeServer(Path(folder), delay)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
