"""A loopback Hugging Face Hub for tests: models and datasets, read and written by the real `huggingface_hub`.

    with serve(tmp_path / "hub") as hub:
        hub.add("dataset", "someone/images", folder)
        subprocess.run(command, env=hub.environment(tmp_path / "home", token=hub.token))
        assert hub.commits("model", "tester/model") == ["Add the model", "initial commit"]

It speaks what the client speaks to the real one: repositories, revisions, commits, LFS uploads in one or many parts,
downloads in ranges that large files answer from another host name. It knows one user, by a token that may write and
by others that may only read, and it can misbehave as servers and networks do: see the faults of `Hub`. A token is
compared and forgotten: none is stored, logged or printed. Xet and pull requests are not served.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import yaml
from huggingface_hub.utils import close_session

USER = "tester"
REPOSITORY_ID = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
BINARY = {".arrow", ".bin", ".gz", ".jpg", ".npz", ".onnx", ".parquet", ".png", ".pt", ".safetensors", ".tar", ".zip"}
LARGE = 10 * 2**20  # bytes from which the Hub has any file sent by LFS
CARD_HEAD = re.compile(r"^\s*---[\r\n]+(.*?)[\r\n]+---(?:\r?\n|$)", re.DOTALL)
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
REPOSITORY_MISSING = "RepoNotFound"  # an error code from which the client chooses its exception


class Refusal(Exception):
    """An answer other than the one asked for; `code` is what the client reads from `X-Error-Code`."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


# ---------------------------------------------------------------------------------------- what a repository holds


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git keeps of a content that LFS keeps."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class File:
    """A file of a commit. `oid` is git's id: of the content, or of the pointer to content that LFS keeps."""

    sha256: str
    size: int
    oid: str
    lfs: bool

    @property
    def pointer_size(self) -> int:
        return len(lfs_pointer(self.sha256, self.size))

    @property
    def etag(self) -> str:
        """What the client compares its own file with."""
        return self.sha256 if self.lfs else self.oid

    def describe(self, path: str) -> dict:
        node = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        if self.lfs:
            node["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return node


Tree = dict[str, File]


def describe_folder(path: str) -> dict:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def list_tree(tree: Tree, folder: str, recursive: bool) -> list[dict]:
    """The files and folders below a folder ("" is the root): all of them, or those right below it."""
    prefix = f"{folder}/" if folder else ""
    nodes = {}
    for path in sorted(path for path in tree if path.startswith(prefix)):
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) + 1 if recursive else 2):
            node = prefix + "/".join(parts[:depth])
            nodes[node] = tree[node].describe(node) if node in tree else describe_folder(node)
    return list(nodes.values())


@dataclass(frozen=True)
class Commit:
    oid: str
    tree: Tree
    parent: str | None
    title: str
    description: str
    date: str


@dataclass
class Repository:
    """`private`: read with a token only. `gated`: its files are read by the user with the writing token only."""

    kind: str
    id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    history: dict[str, Commit] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    def find(self, revision: str) -> Commit:
        """The commit of a branch, a tag or an id, which may be shortened to seven digits; HEAD is that of main."""
        revision = "main" if revision == "HEAD" else revision
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and re.fullmatch("[0-9a-f]{7,40}", revision):
            oid = next((oid for oid in self.history if oid.startswith(revision)), None)
        if oid is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.history[oid]

    def log(self, revision: str) -> Iterator[Commit]:
        """A revision's commits, newest first."""
        commit = self.find(revision)
        yield commit
        while commit.parent:
            commit = self.history[commit.parent]
            yield commit

    def commit(self, branch: str, tree: Tree, title: str, description: str = "") -> Commit:
        """Adds a commit to a branch, which the first commit makes."""
        parent = self.branches.get(branch)
        content = [len(self.history), parent, title, *((path, file.oid) for path, file in sorted(tree.items()))]
        oid = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self.history[oid] = Commit(oid, tree, parent, title, description, date)
        self.branches[branch] = oid
        return self.history[oid]


class Store:
    """Contents by their SHA256, each a file of a folder. Also those that no commit names: what an upload left behind
    that broke later on."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, sha256: str) -> bool:
        return (self.folder / sha256).exists()

    def read(self, sha256: str) -> bytes:
        return (self.folder / sha256).read_bytes()

    def size(self, sha256: str) -> int:
        return (self.folder / sha256).stat().st_size

    def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256).write_bytes(content)
        return sha256

    def add(self, content: bytes, lfs: bool = False) -> File:
        sha256 = self.put(content)
        return self.link(sha256) if lfs else File(sha256, len(content), git_oid(content), lfs=False)

    def link(self, sha256: str) -> File:
        """A file whose content was uploaded before, by LFS."""
        size = self.size(sha256)
        return File(sha256, size, git_oid(lfs_pointer(sha256, size)), lfs=True)


def goes_by_lfs(path: str, size: int, sample: bytes) -> bool:
    return PurePosixPath(path).suffix in BINARY or size > LARGE or b"\0" in sample


def safe_path(path: str) -> str:
    if not path or path.startswith("/") or {"", ".", "..", ".git"} & set(path.split("/")):
        raise Refusal(400, f"Invalid path in repository: {path}")
    return path


def card_data(readme: str) -> dict:
    """The metadata at the head of a card; none where there is no head, or one that cannot be read."""
    try:
        data = yaml.safe_load(CARD_HEAD.match(readme)[1]) if CARD_HEAD.match(readme) else {}
    except yaml.YAMLError:
        data = {}
    return data if isinstance(data, dict) else {}


# ------------------------------------------------------------------------------------------------------ the server


class Hub(ThreadingHTTPServer):
    """What the tests hold: repositories, faults that may be changed while it runs, and counts of what happened.

    root: a folder for the contents. token: of the user, may write. readers: tokens of the user that may only read.
    part_size: LFS uploads larger than this many bytes come in parts.

    Faults:
        fail_every: each so many-th request gets a 503.
        cut_every: each so many-th download of a file is broken off in the middle of its body.
        delay: seconds before each answer.
        cut_upload_after: so many LFS uploads, or parts of one, still succeed; then each is broken off in the middle
            of its body, until this is None again. With `cut_upload_once` that is after the first one.
        stale_commits: so many next commits get a 412, as if somebody else had been faster.

    Counts: requests and, of them, `failed`; downloads of files, their bytes that were `sent`, and those that were
    `cut`; bytes `uploaded` by LFS, the ids that were `put` in whole, `cut_uploads`. `log`: each request's method and
    path, in the order of their arrival.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        root: Path,
        token: str = "hf_loopback",
        readers: set[str] | tuple[str, ...] = (),
        part_size: int = 8 * 2**20,
        fail_every: int = 0,
        cut_every: int = 0,
        delay: float = 0.0,
        cut_upload_after: int | None = None,
        cut_upload_once: bool = False,
        stale_commits: int = 0,
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.readers, self.part_size = token, set(readers), part_size
        self.fail_every, self.cut_every, self.delay = fail_every, cut_every, delay
        self.cut_upload_after, self.cut_upload_once = cut_upload_after, cut_upload_once
        self.stale_commits = stale_commits
        self.requests = self.failed = self.downloads = self.sent = self.cut = self.uploaded = self.cut_uploads = 0
        self.put: list[str] = []
        self.log: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self.store = Store(Path(root))
        self.parts: dict[tuple[str, int], bytes] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lock = threading.RLock()
        self.secret = secrets.token_bytes(16)

    @property
    def url(self) -> str:
        """What `HF_ENDPOINT` must be before `huggingface_hub` is imported."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def storage_url(self) -> str:
        """Where LFS contents are: another host, to which the client must send no token, and sends none."""
        return f"http://localhost:{self.server_address[1]}/storage"

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a process that knows this Hub only: none of the user's own token, cache or settings."""
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
        }
        return {
            **own,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **({"HF_TOKEN": token} if token else {}),
        }

    def repository(self, kind: str, repo_id: str) -> Repository:
        """A repository, whose `private` and `gated` may be set."""
        if (kind, repo_id) not in self.repositories:
            raise Refusal(404, "Repository not found", REPOSITORY_MISSING)
        return self.repositories[kind, repo_id]

    def create(self, kind: str, repo_id: str, private: bool = False, gated: bool = False) -> Repository:
        """The repository of that name, or a new one, which has no commit yet."""
        if kind not in ("model", "dataset") or not REPOSITORY_ID.fullmatch(repo_id):
            raise Refusal(400, f"Invalid repository: {kind} {repo_id}")
        return self.repositories.setdefault((kind, repo_id), Repository(kind, repo_id, private, gated))

    def add(
        self,
        kind: str,
        repo_id: str,
        folder: Path,
        private: bool = False,
        gated: bool = False,
        title: str = "Add files",
    ) -> str:
        """One commit that holds a folder's files and no others, in a repository that is made if need be. Its id."""
        with self.lock:
            tree = {}
            for file in sorted(file for file in Path(folder).rglob("*") if file.is_file()):
                path, content = file.relative_to(folder).as_posix(), file.read_bytes()
                tree[path] = self.store.add(content, goes_by_lfs(path, len(content), content[:512]))
            return self.create(kind, repo_id, private, gated).commit("main", tree, title).oid

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What is published there."""
        with self.lock:
            tree = self.repository(kind, repo_id).find(revision).tree
            return {path: self.store.read(file.sha256) for path, file in sorted(tree.items())}

    def commits(self, kind: str, repo_id: str, revision: str = "main") -> list[str]:
        """The titles of a revision's commits, newest first."""
        with self.lock:
            return [commit.title for commit in self.repository(kind, repo_id).log(revision)]

    def refs(self, kind: str, repo_id: str) -> dict[str, str]:
        """The commit of each branch (`refs/heads/...`) and tag (`refs/tags/...`)."""
        with self.lock:
            repository = self.repository(kind, repo_id)
            heads = {f"refs/heads/{name}": oid for name, oid in repository.branches.items()}
            return heads | {f"refs/tags/{name}": oid for name, oid in repository.tags.items()}

    def arrives(self, method: str, path: str) -> bool:
        """Counts a request; whether it is one of those that get a 503."""
        with self.lock:
            self.requests += 1
            self.log.append((method, path))
            fails = bool(self.fail_every) and self.requests % self.fail_every == 0
            self.failed += fails
            return fails

    def breaks_download(self, size: int) -> bool:
        """Counts a download; whether it is one of those that are broken off."""
        with self.lock:
            self.downloads += 1
            self.sent += size
            breaks = bool(self.cut_every) and self.downloads % self.cut_every == 0
            self.cut += breaks
            return breaks

    def breaks_upload(self) -> bool:
        """Whether the upload that begins now is to be broken off; if not, it is one of those that may succeed."""
        with self.lock:
            if self.cut_upload_after is None:
                return False
            if self.cut_upload_after > 0:
                self.cut_upload_after -= 1
                return False
            self.cut_uploads += 1
            if self.cut_upload_once:
                self.cut_upload_after = None
            return True

    def role(self, authorization: str | None) -> str | None:
        """ "write" or "read"; None without a token. A wrong one is refused whatever it is for."""
        if authorization is None:
            return None
        token = authorization.removeprefix("Bearer ")
        if token == self.token:
            return "write"
        if token in self.readers:
            return "read"
        raise Refusal(401, "Invalid credentials in Authorization header")

    def sign(self, purpose: str, sha256: str) -> str:
        """What lets the bearer of a storage address, who sends no token there, upload or download one content."""
        return hmac.new(self.secret, f"{purpose} {sha256}".encode(), "sha256").hexdigest()

    def storage(self, purpose: str, sha256: str, below: str = "") -> str:
        return f"{self.storage_url}/{sha256}{below}?signature={self.sign(purpose, sha256)}"

    def handle_error(self, request, client_address):
        """A client that went away is none of ours; what is, `errors` has."""


@dataclass
class Response:
    """`download`: the body is a file's, or a range of it, to be counted and perhaps broken off."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    download: bool = False


def reply(content, status: int = 200, **headers: str) -> Response:
    """JSON. Headers are named as Python names are: `X_Error_Code`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(content, default=str).encode(), status, {"Content-Type": "application/json", **named})


def refuse(refusal: Refusal) -> Response:
    code = {"X_Error_Code": refusal.code} if refusal.code else {}
    return reply({"error": str(refusal)}, refusal.status, X_Error_Message=str(refusal), **code, **refusal.headers)


class Handler(BaseHTTPRequestHandler):
    """One connection. `ROUTES` says which method answers which request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        """Nothing is printed."""

    # ------------------------------------------------------------------------------------------ requests and answers

    def handle_request(self) -> None:
        """Answers, unless this is an upload that is to be broken off. The hub is locked while the answer is made, not
        while it is sent."""
        hub, address = self.server, urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(address.query))
        fails = hub.arrives(self.command, address.path)
        if not fails and self.command == "PUT" and address.path.startswith("/storage/") and hub.breaks_upload():
            self.read_half()
            return self.break_off()
        self.body = self.read_body()
        time.sleep(hub.delay)
        try:
            if fails:
                raise Refusal(503, "over capacity")
            with hub.lock:
                response = self.route(address.path)
        except Refusal as refusal:
            response = refuse(refusal)
        except Exception as error:
            hub.errors.append(error)
            response = refuse(Refusal(500, f"{type(error).__name__} in the loopback hub"))
        self.send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def read_half(self) -> None:
        """Half of the body, or of its first chunk."""
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        size = int(self.rfile.readline().split(b";")[0], 16) if chunked else int(self.headers["Content-Length"])
        self.rfile.read(size // 2)

    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    def route(self, path: str) -> Response:
        """The answer of the first route that fits, to who may have it."""
        for methods, pattern, access, answer in ROUTES:
            found = pattern.fullmatch(path)
            if found and self.command in methods.split("|"):
                values = {name: urllib.parse.unquote(value or "") for name, value in found.groupdict().items()}
                role = self.server.role(self.headers.get("Authorization"))
                if "repo" in values:
                    values["repository"] = self.find_repository(values.pop("kind") or "model", values.pop("repo"), role)
                if access == WRITER:
                    self.check_writer(role, REPOSITORY_MISSING if "repository" in values else None)
                return answer(self, **values)
        raise Refusal(404, f"Not found: {self.command} {path}")

    def find_repository(self, kind: str, repo_id: str, role: str | None) -> Repository:
        """A private one is missing to whom has no token; and it is not said which are there and which are not."""
        found = self.server.repositories.get((kind, repo_id))
        if found and (role or not found.private):
            return found
        raise Refusal(404 if role else 401, "Repository not found", REPOSITORY_MISSING)

    def check_writer(self, role: str | None, code: str | None = None) -> None:
        if role is None:
            raise Refusal(401, "Invalid username or password.", code)
        if role != "write":
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")

    def check_gate(self, repository: Repository) -> None:
        role = self.server.role(self.headers.get("Authorization"))
        if repository.gated and role != "write":
            advice = "and you are not in the authorized list." if role else "and you must be authenticated."
            message = f"Access to {repository.kind} {repository.id} is restricted {advice}"
            raise Refusal(403 if role else 401, message, "GatedRepo")

    def check_signature(self, purpose: str, sha256: str) -> None:
        if not hmac.compare_digest(self.query.get("signature", ""), self.server.sign(purpose, sha256)):
            raise Refusal(403, "Forbidden: the address is not signed for this")

    def send(self, response: Response) -> None:
        self.send_response(response.status)
        headers = {"Content-Length": str(len(response.body)), "X-Request-Id": secrets.token_hex(4), **response.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if response.download and self.server.breaks_download(len(response.body)):
            self.wfile.write(response.body[: len(response.body) // 2])
            self.wfile.flush()
            return self.break_off()
        self.wfile.write(response.body)

    def break_off(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------------------------------------ users, repositories

    def who_am_i(self) -> Response:
        role = self.server.role(self.headers.get("Authorization"))
        if role is None:
            raise Refusal(401, "Invalid username or password.")
        token = {"role": role, "displayName": "loopback"}
        return reply({"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"accessToken": token}})

    def validate_card(self) -> Response:
        """What the client asks before it commits a README."""
        head = CARD_HEAD.match(self.json()["content"])
        if not head:
            return reply({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        try:
            fine = isinstance(yaml.safe_load(head[1]) or {}, dict)
            errors = [] if fine else [{"message": "metadata is no mapping"}]
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
        return reply({"errors": errors, "warnings": []}, 400 if errors else 200)

    def named_repository(self) -> tuple[str, str]:
        asked = self.json()
        return asked.get("type") or "model", f"{asked.get('organization') or USER}/{asked['name']}"

    def create_repository(self) -> Response:
        hub, (kind, repo_id) = self.server, self.named_repository()
        present = hub.repositories.get((kind, repo_id))
        if present:
            message = f"You already created this {kind} repo: {repo_id}"
            return reply({"error": message, "url": f"{hub.url}/{present.path}"}, 409, X_Error_Message=message)
        repository = hub.create(kind, repo_id, private=self.json().get("visibility") == "private")
        repository.commit("main", {".gitattributes": hub.store.add(ATTRIBUTES)}, "initial commit")
        return reply({"url": f"{hub.url}/{repository.path}", "name": repo_id, "id": git_oid(repo_id.encode())[:24]})

    def delete_repository(self) -> Response:
        self.server.repository(*self.named_repository())
        del self.server.repositories[self.named_repository()]
        return reply({})

    def list_repositories(self, kind: str) -> Response:
        role, searched = self.server.role(self.headers.get("Authorization")), self.query.get("search", "")
        seen = [each for each in self.server.repositories.values() if role or not each.private]
        return reply([self.describe(each, "main") for each in seen if each.kind == kind and searched in each.id])

    def set_repository(self, repository: Repository) -> Response:
        asked = self.json()
        if "visibility" in asked:
            repository.private = asked["visibility"] == "private"
        repository.gated = bool(asked.get("gated", repository.gated))
        return reply({})

    def check_access(self, repository: Repository, write: str) -> Response:
        self.check_gate(repository)
        if write:
            self.check_writer(self.server.role(self.headers.get("Authorization")))
        return reply({})

    def info(self, repository: Repository, revision: str = "main") -> Response:
        return reply(self.describe(repository, revision))

    def describe(self, repository: Repository, revision: str) -> dict:
        commit = repository.find(revision)
        card = card_data(self.text(commit, "README.md"))
        told = {
            "_id": git_oid(repository.id.encode())[:24], "id": repository.id, "author": repository.id.split("/")[0],
            "sha": commit.oid, "lastModified": commit.date, "private": repository.private,
            "gated": "manual" if repository.gated else False, "disabled": False, "downloads": 0, "likes": 0,
            "tags": card.get("tags") or [], "cardData": card,
            "siblings": [self.describe_sibling(path, file) for path, file in sorted(commit.tree.items())],
        }  # fmt: skip
        if repository.kind == "model":
            config = json.loads(self.text(commit, "config.json") or "{}")
            kept = {name: config[name] for name in ("architectures", "model_type", "auto_map") if name in config}
            told |= {"modelId": repository.id, "config": kept, "model-index": card.get("model-index")}
            told |= {name: card.get(name) for name in ("pipeline_tag", "library_name")}
        return told

    def describe_sibling(self, path: str, file: File) -> dict:
        sibling = {"rfilename": path, "blobId": file.oid, "size": file.size}
        if file.lfs:
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
        return sibling

    def text(self, commit: Commit, path: str) -> str:
        return self.server.store.read(commit.tree[path].sha256).decode() if path in commit.tree else ""

    # -------------------------------------------------------------------------------------------- trees, revisions

    def tree(self, repository: Repository, revision: str, path: str) -> Response:
        folder, commit = path.strip("/"), repository.find(revision)
        nodes = list_tree(commit.tree, folder, self.query.get("recursive", "").lower() in ("true", "1"))
        if folder and not nodes:
            raise Refusal(404, f"Entry not found: {folder}", "EntryNotFound", X_Repo_Commit=commit.oid)
        return reply(nodes)

    def paths_info(self, repository: Repository, revision: str) -> Response:
        """A path that is not there is left out."""
        sent_json = "json" in self.headers.get("Content-Type", "")
        asked = self.json()["paths"] if sent_json else urllib.parse.parse_qs(self.body.decode())["paths"]
        tree, found = repository.find(revision).tree, []
        for path in (path.strip("/") for path in ([asked] if isinstance(asked, str) else asked)):
            if path in tree:
                found.append(tree[path].describe(path))
            elif any(file.startswith(f"{path}/") for file in tree):
                found.append(describe_folder(path))
        return reply(found)

    def list_refs(self, repository: Repository) -> Response:
        def describe(kind: str, commits: dict[str, str]) -> list[dict]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in commits.items()]

        branches, tags = describe("heads", repository.branches), describe("tags", repository.tags)
        return reply({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def list_commits(self, repository: Repository, revision: str) -> Response:
        commits = repository.log(revision)
        told = [{"id": c.oid, "title": c.title, "message": c.description, "date": c.date} for c in commits]
        return reply([{**commit, "authors": [{"user": USER}]} for commit in told])

    def create_branch(self, repository: Repository, name: str) -> Response:
        return self.create_ref(repository, repository.branches, name, self.json().get("startingPoint", "main"))

    def create_tag(self, repository: Repository, revision: str) -> Response:
        return self.create_ref(repository, repository.tags, self.json()["tag"], revision)

    def create_ref(self, repository: Repository, refs: dict[str, str], name: str, revision: str) -> Response:
        if name in refs:
            raise Refusal(409, f"Reference already exists: {name}")
        refs[name] = repository.find(revision).oid
        return reply({})

    def delete_branch(self, repository: Repository, name: str) -> Response:
        return self.delete_ref(repository.branches, name, kept="main")

    def delete_tag(self, repository: Repository, name: str) -> Response:
        return self.delete_ref(repository.tags, name)

    def delete_ref(self, refs: dict[str, str], name: str, kept: str | None = None) -> Response:
        if name == kept:
            raise Refusal(403, f"Reference cannot be deleted: {name}")
        if refs.pop(name, None) is None:
            raise Refusal(404, f"Reference does not exist: {name}", "RevisionNotFound")
        return reply({})

    # --------------------------------------------------------------------------------------------- uploads, commits

    def preupload(self, repository: Repository, revision: str) -> Response:
        """Which files go by LFS, and what is there under the same names: the client leaves out what has not changed."""
        tree = repository.find(revision).tree
        return reply({"files": [self.preupload_one(tree, each) for each in self.json()["files"]]})

    def preupload_one(self, tree: Tree, asked: dict) -> dict:
        path, sample = safe_path(asked["path"]), base64.b64decode(asked["sample"])
        mode = "lfs" if goes_by_lfs(path, asked["size"], sample) else "regular"
        present = {"oid": tree[path].etag} if path in tree else {}
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, **present}

    def commit(self, repository: Repository, revision: str) -> Response:
        hub = self.server
        if self.query.get("create_pr"):
            raise Refusal(400, "Pull requests are not served here")
        if revision not in repository.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head, *operations = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        parent = repository.find(revision)
        if hub.stale_commits or head["value"].get("parentCommit", parent.oid) != parent.oid:
            hub.stale_commits -= bool(hub.stale_commits)
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(parent.tree)
        for operation in operations:
            self.apply(tree, operation["key"], operation["value"])
        commit = repository.commit(revision, tree, head["value"]["summary"], head["value"].get("description", ""))
        url = f"{hub.url}/{repository.path}/commit/{commit.oid}"
        return reply({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    def apply(self, tree: Tree, key: str, value: dict) -> None:
        """One of a commit's operations, done to the tree that will be the commit's."""
        store, path = self.server.store, safe_path(value["path"].rstrip("/"))
        if key == "file":
            tree[path] = store.add(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if not re.fullmatch("[0-9a-f]{64}", value["oid"]) or value["oid"] not in store:
                raise Refusal(400, f"LFS pointer to an object that was not uploaded: {path}")
            tree[path] = store.link(value["oid"])
        elif key in ("deletedFile", "deletedFolder"):
            gone = [file for file in tree if file == path or file.startswith(f"{path}/")]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for file in gone:
                del tree[file]
        else:
            raise Refusal(400, f"Unknown operation: {key}")

    def lfs_batch(self, repository: Repository) -> Response:
        """Where to upload what; no address for a content that is here already."""
        asked = self.json()
        if asked["operation"] != "upload":
            raise Refusal(400, "Only uploads are served here")
        objects = [self.lfs_actions(repository, each["oid"], each["size"], asked) for each in asked["objects"]]
        return reply({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def lfs_actions(self, repository: Repository, oid: str, size: int, asked: dict) -> dict:
        hub = self.server
        if oid in hub.store:
            return {"oid": oid, "size": size}
        upload = {"href": hub.storage("upload", oid)}
        if size > hub.part_size and "multipart" in asked["transfers"]:
            numbers = range(1, -(-size // hub.part_size) + 1)
            parts = {f"{number:05d}": hub.storage("upload", oid, f"/{number}") for number in numbers}
            upload = {
                "href": hub.storage("upload", oid, "/complete"),
                "header": {"chunk_size": str(hub.part_size), **parts},
            }
        verify = {"href": f"{hub.url}/{repository.path}.git/info/lfs/objects/verify"}
        return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    def lfs_verify(self, repository: Repository) -> Response:
        store, asked = self.server.store, self.json()
        if asked["oid"] not in store or store.size(asked["oid"]) != asked["size"]:
            raise Refusal(404, "The uploaded content is not here")
        return reply({})

    def put_content(self, oid: str) -> Response:
        self.check_signature("upload", oid)
        self.server.uploaded += len(self.body)
        return self.keep_content(oid, self.body)

    def put_part(self, oid: str, number: str) -> Response:
        self.check_signature("upload", oid)
        self.server.uploaded += len(self.body)
        self.server.parts[oid, int(number)] = self.body
        return Response(headers={"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def complete_parts(self, oid: str) -> Response:
        self.check_signature("upload", oid)
        numbers = [part["partNumber"] for part in self.json()["parts"]]
        if any((oid, number) not in self.server.parts for number in numbers):
            raise Refusal(400, "A part was not uploaded")
        return self.keep_content(oid, b"".join(self.server.parts.pop((oid, number)) for number in numbers))

    def keep_content(self, oid: str, content: bytes) -> Response:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "The content is not that of its SHA256")
        self.server.store.put(content)
        self.server.put.append(oid)
        return reply({})

    # -------------------------------------------------------------------------------------------------- downloads

    def resolve(self, repository: Repository, revision: str, path: str) -> Response:
        """A file, or where its content is if LFS keeps it."""
        self.check_gate(repository)
        commit = repository.find(revision)
        file = commit.tree.get(path)
        if file is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"'}
        if not file.lfs:
            return self.content(file.sha256, headers)
        headers |= {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
        return Response(status=302, headers={**headers, "Location": self.server.storage("download", file.sha256)})

    def get_content(self, oid: str) -> Response:
        self.check_signature("download", oid)
        return self.content(oid, {"ETag": f'"{oid}"'})

    def content(self, sha256: str, headers: dict[str, str]) -> Response:
        """A content, or the range of it that was asked for."""
        content = self.server.store.read(sha256)
        headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return Response(content, 200, headers, download=True)
        first, last, size = asked[1], asked[2], len(content)
        start = int(first) if first else max(0, size - int(last))
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            return Response(status=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Response(content[start:stop], 206, headers, download=True)


ANYONE, WRITER = "anyone", "writer"  # of a repository: anyone to whom it is not private
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>model|dataset)s/{REPO}"
GIT = rf"/(?:(?P<kind>dataset)s/)?{REPO}"
REVISION = r"(?P<revision>[^/]+)"
NAME = r"(?P<name>[^/]+)"
CONTENT = r"/storage/(?P<oid>[0-9a-f]{64})"
ROUTES = [
    (methods, re.compile(pattern, re.ASCII), access, answer)
    for methods, pattern, access, answer in [
        ("GET", "/api/whoami-v2", ANYONE, Handler.who_am_i),
        ("POST", "/api/validate-yaml", ANYONE, Handler.validate_card),
        ("POST", "/api/repos/create", WRITER, Handler.create_repository),
        ("DELETE", "/api/repos/delete", WRITER, Handler.delete_repository),
        ("GET", "/api/(?P<kind>model|dataset)s", ANYONE, Handler.list_repositories),
        ("GET", API, ANYONE, Handler.info),
        ("GET", rf"{API}/revision/{REVISION}", ANYONE, Handler.info),
        ("GET", rf"{API}/tree/{REVISION}(?:/(?P<path>.*))?", ANYONE, Handler.tree),
        ("POST", rf"{API}/paths-info/{REVISION}", ANYONE, Handler.paths_info),
        ("GET", rf"{API}/refs", ANYONE, Handler.list_refs),
        ("GET", rf"{API}/commits/{REVISION}", ANYONE, Handler.list_commits),
        ("GET", rf"{API}/auth-check(?P<write>/write)?", ANYONE, Handler.check_access),
        ("PUT", rf"{API}/settings", WRITER, Handler.set_repository),
        ("POST", rf"{API}/branch/{NAME}", WRITER, Handler.create_branch),
        ("DELETE", rf"{API}/branch/{NAME}", WRITER, Handler.delete_branch),
        ("POST", rf"{API}/tag/{REVISION}", WRITER, Handler.create_tag),
        ("DELETE", rf"{API}/tag/{NAME}", WRITER, Handler.delete_tag),
        ("POST", rf"{API}/preupload/{REVISION}", WRITER, Handler.preupload),
        ("POST", rf"{API}/commit/{REVISION}", WRITER, Handler.commit),
        ("POST", rf"{GIT}\.git/info/lfs/objects/batch", WRITER, Handler.lfs_batch),
        ("POST", rf"{GIT}\.git/info/lfs/objects/verify", WRITER, Handler.lfs_verify),
        ("GET|HEAD", rf"{GIT}/resolve/{REVISION}/(?P<path>.+)", ANYONE, Handler.resolve),
        ("PUT", CONTENT, ANYONE, Handler.put_content),
        ("PUT", rf"{CONTENT}/(?P<number>\d+)", ANYONE, Handler.put_part),
        ("POST", rf"{CONTENT}/complete", ANYONE, Handler.complete_parts),
        ("GET|HEAD", CONTENT, ANYONE, Handler.get_content),
    ]
]


@contextmanager
def online(root: Path, patch, **settings):
    """As `serve`, for a client in this process: online, at this hub, without Xet and without pauses between its tries.

    patch: pytest's monkeypatch."""
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    patch.setattr("time.sleep", lambda seconds: None)
    with serve(root, **settings) as hub:
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        patch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        yield hub
    close_session()


@contextmanager
def serve(root: Path, **settings):
    """Starts a hub on a free port of this machine, with the settings and faults of `Hub`, and stops it."""
    hub = Hub(root, **settings)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
    if hub.errors:
        raise hub.errors[0]
