"""The loopback Hub answers the real client as the real Hub does, and misbehaves on request."""

import json
import subprocess
import sys
import tempfile
from http.client import HTTPConnection
from pathlib import Path

import pytest
import transformers
from conftest import CONFIGS
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session
from loopback_hub import online

MODEL = "tester/model"
WEIGHTS = bytes(range(256)) * 8
READER = "hf_reader"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, for a client that is online in this process, without Xet and without pauses between its tries."""
    with online(tmp_path / "hub", monkeypatch, readers={READER}) as hub:
        yield hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def anyone(hub):
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def reader(hub):
    return HfApi(endpoint=hub.url, token=READER)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "encoder").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [tiny]\n---\n# A model\n")
    (folder / "encoder" / "config.json").write_text("{}")
    for name in ("model", "encoder/model"):
        (folder / f"{name}.safetensors").write_bytes(name.encode() + WEIGHTS)
    return folder


def contents(folder) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and ".cache" not in file.parts]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def status(error) -> int:
    return error.value.response.status_code


@pytest.mark.parametrize("part_size", [500, 10**6])
def test_upload_is_one_commit_and_sends_no_content_twice(hub, api, folder, part_size):
    hub.part_size = part_size
    assert api.whoami()["name"] == "tester"
    assert api.create_repo(MODEL).repo_id == MODEL
    api.create_repo(MODEL, exist_ok=True)
    first = api.upload_folder(repo_id=MODEL, folder_path=folder, commit_message="Add the model")
    assert hub.commits("model", MODEL) == ["Add the model", "initial commit"]
    assert [commit.title for commit in api.list_repo_commits(MODEL)] == hub.commits("model", MODEL)
    published = hub.files("model", MODEL)
    assert published.pop(".gitattributes") and published == contents(folder)
    weights = [info for info in api.list_repo_tree(MODEL, recursive=True) if info.path.endswith(".safetensors")]
    assert sorted(hub.put) == sorted(info.lfs.sha256 for info in weights) and len(hub.put) == 2
    assert hub.uploaded == sum(info.size for info in weights)

    again = api.upload_folder(repo_id=MODEL, folder_path=folder, commit_message="Add it again")
    assert again.oid == first.oid and len(hub.put) == 2 and len(hub.commits("model", MODEL)) == 2
    (folder / "copy.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    api.upload_folder(repo_id=MODEL, folder_path=folder, delete_patterns="*.json", commit_message="Another name")
    assert len(hub.put) == 2 and "copy.safetensors" in hub.files("model", MODEL)
    api.delete_file("encoder/config.json", MODEL)
    assert "encoder/config.json" not in hub.files("model", MODEL)


def test_revisions_are_read_as_they_were(hub, api, anyone, folder, tmp_path):
    old = hub.add("model", MODEL, folder)
    before = contents(folder)
    api.create_tag(MODEL, tag="v1")
    (folder / "README.md").write_text("# Changed\n")
    (folder / "encoder" / "config.json").unlink()
    new = hub.add("model", MODEL, folder, title="Change it")
    api.create_branch(MODEL, branch="try/this", revision=old)
    assert hub.refs("model", MODEL) == {
        "refs/heads/main": new, "refs/heads/try/this": old, "refs/tags/v1": old,
    }  # fmt: skip
    assert {ref.name for ref in anyone.list_repo_refs(MODEL).branches} == {"main", "try/this"}
    for revision, expected in {"v1": before, "try/this": before, old: before, "main": contents(folder)}.items():
        found = anyone.snapshot_download(MODEL, revision=revision, local_dir=tmp_path / f"copy of {revision[:3]}")
        assert contents(Path(found)) == expected
    path = anyone.hf_hub_download(MODEL, "model.safetensors", revision=old[:8], cache_dir=tmp_path / "cache")
    assert f"/snapshots/{old}/" in path
    info = anyone.model_info(MODEL, revision="v1", files_metadata=True)
    assert info.sha == old and info.card_data.license == "mit" and info.tags == ["tiny"]
    assert anyone.get_paths_info(MODEL, ["encoder", "README.md", "no"], revision="main")[0].path == "encoder"
    with pytest.raises(RevisionNotFoundError):
        anyone.model_info(MODEL, revision="v2")
    with pytest.raises(RemoteEntryNotFoundError):
        anyone.hf_hub_download(MODEL, "encoder/config.json", cache_dir=tmp_path / "cache")


def test_private_and_gated_repositories_are_for_who_may_read_them(hub, api, anyone, reader, folder, tmp_path):
    hub.add("model", MODEL, folder, private=True)

    def read(client):
        return client.hf_hub_download(MODEL, "model.safetensors", cache_dir=tempfile.mkdtemp(dir=tmp_path))

    assert read(api) and read(reader)
    for client in (anyone, HfApi(endpoint=hub.url, token="hf_wrong")):
        with pytest.raises(HfHubHTTPError) as refused:
            client.model_info(MODEL)
        assert status(refused) == 401
    with pytest.raises(RepositoryNotFoundError):
        read(anyone)
    repository = hub.repository("model", MODEL)
    repository.private, repository.gated = False, True
    assert read(api) and anyone.model_info(MODEL).gated == "manual"
    for client, expected in ((anyone, 401), (reader, 403)):
        with pytest.raises(GatedRepoError) as refused:
            read(client)
        assert status(refused) == expected


def test_writing_takes_the_token_that_may(hub, api, anyone, reader, folder):
    wrong = HfApi(endpoint=hub.url, token="hf_wrong")
    for client, expected in ((anyone, 401), (wrong, 401), (reader, 403)):
        with pytest.raises(HfHubHTTPError) as refused:
            client.create_repo("tester/other")
        assert status(refused) == expected
    hub.add("model", MODEL, folder)
    before = hub.refs("model", MODEL)
    (folder / "new.safetensors").write_bytes(WEIGHTS)
    for client, expected in ((anyone, 401), (wrong, 401), (reader, 403)):
        for write in (
            lambda client: client.upload_folder(repo_id=MODEL, folder_path=folder),
            lambda client: client.create_tag(MODEL, tag="v1"),
            lambda client: client.delete_repo(MODEL),
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                write(client)
            assert status(refused) == expected
    assert "you must use a write token" in refused.value.server_message
    assert hub.refs("model", MODEL) == before and not hub.put
    assert get_session().put(f"{hub.storage_url}/{'0' * 64}", content=b"").status_code == 403


def test_stale_commit_is_refused(hub, api, folder):
    old = hub.add("model", MODEL, folder)
    new = hub.add("model", MODEL, folder, title="Somebody was faster")

    def change(parent=None):
        return api.create_commit(
            MODEL, [CommitOperationAdd("a.txt", b"a")], commit_message="Mine", parent_commit=parent
        )

    with pytest.raises(HfHubHTTPError) as refused:
        change(old)
    assert status(refused) == 412 and "A commit has happened since" in str(refused.value)
    hub.stale_commits = 1
    with pytest.raises(HfHubHTTPError):
        change(new)
    assert hub.commits("model", MODEL) == ["Somebody was faster", "Add files"]
    change(new)
    assert hub.commits("model", MODEL)[0] == "Mine"


@pytest.mark.parametrize("part_size", [500, 10**6])
def test_broken_upload_publishes_nothing_and_the_next_sends_what_is_missing(hub, api, folder, part_size):
    hub.part_size = part_size
    hub.add("model", MODEL, folder)
    before = hub.files("model", MODEL)
    for number in range(3):
        (folder / f"new_{number}.safetensors").write_bytes(bytes([number]) * 1200)
    hub.cut_upload_after = 1 if part_size > 1200 else 3
    with pytest.raises(RuntimeError, match="Error while uploading"):
        api.upload_folder(repo_id=MODEL, folder_path=folder)
    assert hub.files("model", MODEL) == before and hub.cut_uploads >= 6
    sent = list(hub.put)
    assert len(sent) <= 1

    hub.cut_upload_after, hub.cut_upload_once, hub.cut_uploads = 1, True, 0  # the client retries
    api.upload_folder(repo_id=MODEL, folder_path=folder)
    assert hub.files("model", MODEL) == contents(folder) and hub.cut_uploads == 1
    assert hub.put[: len(sent)] == sent and len(hub.put) == len(set(hub.put)) == 3


def test_failures_and_broken_downloads_are_counted(hub, anyone, folder, tmp_path):
    hub.add("dataset", "someone/images", folder)
    hub.fail_every, hub.cut_every = 7, 3
    found = anyone.snapshot_download("someone/images", repo_type="dataset", cache_dir=tmp_path, max_workers=1)
    assert contents(Path(found)) == contents(folder)
    assert hub.failed == hub.requests // 7 > 0 and hub.cut == hub.downloads // 3 > 0


def test_odd_names_are_refused(hub, api, folder):
    hub.add("model", MODEL, folder)
    bearer = {"Authorization": f"Bearer {hub.token}"}
    connection = HTTPConnection(*hub.server_address)  # the client would resolve the dots itself
    for path in (
        "/api/models/tester/..",
        "/api/models/../model",
        "/api/models/tester/a%2Fb",
        "/tester/../resolve/main/x",
    ):
        connection.request("GET", path, headers=bearer)
        answer = connection.getresponse()
        assert answer.read() and answer.status == 404
    for name in ("../model", "a..b", "a b", ""):
        answer = get_session().post(f"{hub.url}/api/repos/create", headers=bearer, json={"name": name})
        assert answer.status_code == 400
    for path in ("../a", "/a", "a/../../b", ".git/config"):
        lines = [
            {"key": "header", "value": {"summary": "Odd"}},
            {"key": "file", "value": {"path": path, "content": ""}},
        ]
        commit = "\n".join(map(json.dumps, lines))
        answer = get_session().post(f"{hub.url}/api/models/{MODEL}/commit/main", headers=bearer, content=commit)
        assert answer.status_code == 400
    assert hub.commits("model", MODEL) == ["Add files"]


LOAD = """
import sys, transformers
try:
    transformers.AutoModel.from_pretrained("tester/model", token=False)
except OSError:
    print(transformers.AutoModel.from_pretrained("tester/model", revision=sys.argv[1]).config.hidden_size)
"""


def test_a_process_knows_this_hub_and_its_token(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    assert "HF_TOKEN" not in hub.environment(tmp_path / "home")
    transformers.BertModel(CONFIGS["bert"]()).save_pretrained(tmp_path / "saved")
    commit = hub.add("model", MODEL, tmp_path / "saved", private=True)
    environment = hub.environment(tmp_path / "home", hub.token)
    done = subprocess.run([sys.executable, "-c", LOAD, commit], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == ["32"], done.stderr
    stored = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert stored and not any(hub.token.encode() in file.read_bytes() for file in stored)
    assert hub.token not in done.stdout + done.stderr + repr(hub.log)
