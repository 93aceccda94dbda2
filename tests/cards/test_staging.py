"""What of a run is shared: no pickle, no link, nothing that is not known, nothing that is damaged."""

import shutil

import pytest
import torch
from finished import MODEL, finished_run, online_hub

from hf_pretext.cards.push import push

hub = pytest.fixture(online_hub)
run = pytest.fixture(finished_run)


def test_weights_in_a_pickle_or_damaged_are_refused_before_anything_is_sent(hub, run):
    pickle = run / "pytorch_model.bin"
    torch.save({}, pickle)
    with pytest.raises(ValueError, match="may be a pickle"):
        push(run, MODEL)
    pickle.unlink()
    shard = next(run.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ValueError, match="damaged or cut"):
        push(run, MODEL)
    shutil.rmtree(run)
    run.mkdir()
    with pytest.raises(ValueError, match=r"holds no results\.json"):
        push(run, MODEL)
    assert hub.requests == 0


def test_links_are_not_followed_and_what_is_not_known_stays_here(hub, run, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    state = run / "checkpoint-2" / "trainer_state.json"
    state.unlink()
    for link in (run / "vocab.txt", state):
        link.symlink_to(secret)
    (run / "checkpoint-9").symlink_to(tmp_path)
    (run / "checkpoint-best").mkdir()
    for name in ("credentials.json", "notes.txt"):
        (run / name).write_text("mine")
    push(run, MODEL, training_state=True, checkpoints="all", say=lambda text: None)
    push(run, MODEL, training_state=True, say=lambda text: None)
    for revision in ("main", "checkpoint-2"):
        assert b"mine" not in hub.files("model", MODEL, revision).values()
    assert set(hub.refs("model", MODEL)) == {"refs/heads/main", "refs/heads/checkpoint-2"}


def test_a_folder_of_links_or_without_one_of_its_shards(hub, run, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in run.iterdir():
        (linked / path.name).symlink_to(path)
    shutil.copy(run / "results.json", linked / "own.json")
    (linked / "results.json").unlink()
    (linked / "own.json").rename(linked / "results.json")
    with pytest.raises(ValueError, match="as files and not as links"):
        push(linked, MODEL)
    next(run.glob("model-*.safetensors")).unlink()
    with pytest.raises(ValueError, match=r"lacks model-0000"):
        push(run, MODEL)
    assert hub.requests == 0


def test_a_checkpoint_holds_nothing_of_what_was_measured_at_the_end(hub, run):
    push(run, MODEL, say=lambda text: None)
    push(run, MODEL, checkpoints="all", say=lambda text: None)
    assert not {"results.json", "report.png"} & hub.files("model", MODEL, "checkpoint-2").keys()
