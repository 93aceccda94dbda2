"""What of a run is shared: no pickle, no link, nothing that is not known, nothing that is damaged."""

import json
import os
import shutil

import pytest
import torch
from finished import MODEL, finished_run, online_hub, weights
from safetensors.torch import load_file, save_file

from hf_pretext.cards.push import push
from hf_pretext.cards.staging import checkpoints_of, stage
from hf_pretext.utils.paths import hashed

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
    with pytest.raises(ValueError, match="damaged or truncated"):
        push(run, MODEL)
    shutil.rmtree(run)
    run.mkdir()
    with pytest.raises(ValueError, match=r"has no results\.json"):
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


def test_what_is_staged_is_what_a_checkpoint_is_made_of_and_the_rest_is_named(run, tmp_path):
    for name in ("token", ".env", "events.out.tfevents.1", "config.json.orig"):
        (run / name).write_text("hf_secret")
    (run / "logs").mkdir()
    left_out = stage(run, tmp_path / "staged")
    staged = {path.name for path in (tmp_path / "staged").rglob("*")}
    assert staged == weights(staged) | {"config.json", "preprocessor_config.json", "results.json", "report.png"}
    assert set(left_out) == {
        "token", ".env", "events.out.tfevents.1", "config.json.orig", "bad_samples.jsonl", "logs/",
    }  # fmt: skip


def test_a_link_is_left_out_whatever_it_is_called_and_wherever_it_leads(run, tmp_path):
    (tmp_path / "secret").write_text("hf_secret")
    (run / "vocab.txt").symlink_to(tmp_path / "secret")
    (run / "text").mkdir()
    (run / "text" / "config.json").write_text("{}")
    (run / "text" / "tokenizer.json").symlink_to(tmp_path / "secret")
    (run / "vision").symlink_to(tmp_path)
    assert {"vocab.txt", "text/tokenizer.json", "vision"} <= set(stage(run, tmp_path / "staged"))
    staged = [path for path in (tmp_path / "staged").rglob("*") if path.is_file()]
    assert all(path.read_bytes() != b"hf_secret" and not path.is_symlink() for path in staged)
    assert (tmp_path / "staged" / "text" / "config.json").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "ema.pt", "head.pth", "x.pkl", "x.npz", "text/x.joblib"])
def test_what_may_be_a_pickle_is_refused(run, tmp_path, name):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).parent.joinpath("config.json").touch()
    (run / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name} may be a pickle"):
        stage(run, tmp_path / "staged")


def test_the_state_of_training_is_staged_only_where_asked_for(run, tmp_path):
    state = {"optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json", "stream.json"}
    for asked in (False, True):
        assert not state & set(stage(run / "checkpoint-2", tmp_path / str(asked), training_state=asked))
        assert state & {path.name for path in (tmp_path / str(asked)).iterdir()} == (state if asked else set())


def test_what_is_staged_stays_when_a_checkpoint_is_rotated_away_or_lies_on_another_disk(run, tmp_path, monkeypatch):
    config = (run / "config.json").read_bytes()
    stage(run, tmp_path / "linked")
    assert (tmp_path / "linked" / "config.json").samefile(run / "config.json")  # which takes no room
    monkeypatch.setattr("os.link", fail_to_link)
    stage(run, tmp_path / "copied")
    shutil.rmtree(run)
    for name in ("linked", "copied"):
        assert (tmp_path / name / "config.json").read_bytes() == config


def test_a_manifest_goes_with_the_state_of_training_and_abandoned_checkpoints_stay_here(run, tmp_path):
    (run / "checkpoint-2" / "manifest.json").write_text("{}")
    for name in ("checkpoints.json", "run.lock"):
        (run / name).write_text("{}")
    (run / "abandoned" / "checkpoint-4").mkdir(parents=True)
    left_out = stage(run, tmp_path / "shared")
    unshared = {"abandoned/", "checkpoints.json", "manifest.json", "run.lock"}
    assert not unshared & {*left_out, *os.listdir(tmp_path / "shared")}
    assert stage(run / "checkpoint-2", tmp_path / "weights") == []
    assert not (tmp_path / "weights" / "manifest.json").exists()
    stage(run / "checkpoint-2", tmp_path / "state", training_state=True)
    assert (tmp_path / "state" / "manifest.json").exists()


def fail_to_link(*paths):
    raise OSError("Invalid cross-device link")


def test_encoders_side_by_side_are_a_checkpoint_and_one_alone_is_none(run, tmp_path):
    for side in ("image", "text"):
        (tmp_path / "pair" / side).mkdir(parents=True)
        save_file({"w": torch.zeros(1)}, tmp_path / "pair" / side / "model.safetensors")
        (tmp_path / "pair" / side / "config.json").write_text("{}")
    (tmp_path / "pair" / "config.json").write_text("{}")
    stage(tmp_path / "pair", tmp_path / "staged")
    assert (tmp_path / "staged" / "text" / "model.safetensors").exists()
    shutil.rmtree(tmp_path / "pair" / "text")
    with pytest.raises(ValueError, match="contains no checkpoint"):
        stage(tmp_path / "pair", tmp_path / "again")


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": []}', "{}"])
def test_an_index_that_is_none_is_refused(run, tmp_path, content):
    (run / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="is no valid index of weights"):
        stage(run, tmp_path / "staged")


def test_checkpoints_come_in_the_order_of_their_steps(tmp_path):
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-100", "checkpoint-best", "checkpoint-"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").touch()
    (tmp_path / "checkpoint-8").symlink_to(tmp_path / "checkpoint-9")
    assert [path.name for path in checkpoints_of(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    with pytest.raises(ValueError, match=r"contains no checkpoint-\* folder"):
        checkpoints_of(tmp_path / "checkpoint-9")


def test_weights_that_are_not_finite_are_not_pushed(hub, run):
    shard = sorted(run.glob("*.safetensors"))[0]
    state = load_file(shard)
    next(value for value in state.values() if value.is_floating_point()).view(-1)[0] = float("nan")
    save_file(state, shard, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{shard.name} has weights that are NaN or infinite: .*The training diverged"):
        push(run, MODEL)
    assert hub.requests == 0


def test_a_pipe_is_left_out_and_an_index_that_leads_out_of_the_folder_is_refused(run, tmp_path):
    os.mkfifo(run / "vocab.txt")
    (run / "text").mkdir()
    (run / "text" / "config.json").write_text("{}")
    os.mkfifo(run / "text" / "tokenizer.json")
    assert {"vocab.txt", "text/tokenizer.json"} <= set(stage(run, tmp_path / "staged"))
    outside = {"weight_map": {"a": "../results.json"}}
    (run / "text" / "model.safetensors.index.json").write_text(json.dumps(outside))
    with pytest.raises(ValueError, match=r"lists '\.\./results\.json', which is not a file of its folder"):
        stage(run, tmp_path / "again")


def test_names_of_private_files_are_hashed_and_the_path_of_the_best_checkpoint_is_left_out(run, tmp_path):
    source = {"name": "/mnt/client/emoji", "files": {"jane.parquet": 9}, "rows": 3, "pieces": "ab"}
    (run / "checkpoint-2" / "stream.json").write_text(json.dumps({"source": [source], "seed": 1}))
    best = {"best_model_checkpoint": "/mnt/client/run/checkpoint-2", "log_history": [{"grad_norm": float("nan")}]}
    (run / "checkpoint-2" / "trainer_state.json").write_text(json.dumps(best))
    stage(run / "checkpoint-2", tmp_path / "staged", training_state=True)
    stream, state = ((tmp_path / "staged" / name).read_text() for name in ("stream.json", "trainer_state.json"))
    assert not any(name in stream + state for name in ("client", "jane"))
    expected = {**source, "name": ".../emoji", "files": {hashed("jane.parquet"): 9}}
    assert json.loads(stream) == {"source": [expected], "seed": 1} and "NaN" in state
    assert "jane" in (run / "checkpoint-2" / "stream.json").read_text()  # on this machine, errors name the file
    (run / "checkpoint-2" / "stream.json").write_text("[]")
    with pytest.raises(ValueError, match=r"stream\.json is damaged"):
        stage(run / "checkpoint-2", tmp_path / "again", training_state=True)
