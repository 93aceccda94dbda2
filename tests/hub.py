"""A loopback Hub that serves one dataset repository from a folder, and can misbehave as servers do.

`with serve(folder, fail_every=3) as hub: hub.url` is what `HF_ENDPOINT` must be before `huggingface_hub` is imported.
"""

import hashlib
import json
import re
import socket
import threading
import time
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY = "someone/pictures"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROUTE = re.compile(rf"/api/datasets/{REPOSITORY}(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(rf"/datasets/{REPOSITORY}/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """folder: what the repository holds. fail_every: each so many-th request gets a 503. cut_every: each so many-th
    file is broken off in the middle of its body. delay: seconds before each answer."""

    daemon_threads = True

    def __init__(self, folder: Path, fail_every: int = 0, cut_every: int = 0, delay: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.fail_every, self.cut_every, self.delay = folder, fail_every, cut_every, delay
        self.requests = self.files = self.failed = self.cut = self.sent = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that went away is none of ours."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(body)

    def answer(self, body: bytes = b"") -> None:
        hub = self.server
        with hub.lock:
            hub.requests += 1
            fail = hub.fail_every and hub.requests % hub.fail_every == 0
            hub.failed += bool(fail)
        time.sleep(hub.delay)
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if fail:
            return self.send_json({"error": "over capacity"}, 503)
        if found := FILE.fullmatch(path):
            return self.send_file(hub.folder / found[2])
        if (found := ROUTE.fullmatch(path)) is None:
            return self.send_json({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        verb, _, below = found.groups()
        if verb == "paths-info":
            kind = self.headers.get("Content-Type", "")
            asked = json.loads(body)["paths"] if "json" in kind else urllib.parse.parse_qs(body.decode())["paths"]
            paths = [path.strip("/") for path in ([asked] if isinstance(asked, str) else asked)]
            return self.send_json([self.node(path) for path in paths if (hub.folder / path).is_file()])
        files = sorted(str(file.relative_to(hub.folder)) for file in hub.folder.rglob("*") if file.is_file())
        if verb == "tree":
            below = f"{below.strip('/')}/" if below else ""
            nodes = [self.node(file) for file in files if file.startswith(below)]
            if not nodes and below:
                return self.send_json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return self.send_json(nodes)
        siblings = [{"rfilename": file} for file in files]
        info = {"_id": "1", "id": REPOSITORY, "sha": COMMIT, "private": False, "gated": False, "disabled": False}
        self.send_json({**info, "downloads": 0, "likes": 0, "tags": [], "cardData": {}, "siblings": siblings})

    def node(self, path: str) -> dict:
        content = (self.server.folder / path).read_bytes()
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def send_json(self, content, status: int = 200, headers=None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", **(headers or {})}
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_file(self, path: Path) -> None:
        hub = self.server
        if not path.is_file():
            return self.send_json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        start, stop, status = 0, len(content), 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop, status = int(asked[1]), min(int(asked[2] or stop) + 1, stop), 206
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        with hub.lock:
            hub.files += 1
            cut = hub.cut_every and hub.files % hub.cut_every == 0
            hub.cut += bool(cut)
            hub.sent += stop - start
        if cut:
            self.wfile.write(content[start : start + (stop - start) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(content[start:stop])


@contextmanager
def serve(folder: Path, **faults):
    """Starts a hub on a free port of this machine, and stops it."""
    hub = Hub(folder, **faults)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
