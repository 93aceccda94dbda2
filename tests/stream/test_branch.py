"""Which checkpoint is last, which one a run resumes from, which ones are kept; without training."""

import itertools
import json
import os
from pathlib import Path

import pytest
from transformers import TrainerState

from hf_pretext.stream.branch import (
    RECORD,
    STAGING,
    begin_from,
    branch_of,
    checkpoint_to_resume,
    finish_checkpoint,
    last_checkpoint,
    name_best,
    place_after,
    rotate,
)
from hf_pretext.stream.manifest import hash_of, read_manifest


@pytest.fixture
def save(tmp_path):
    """Saves checkpoints of a run, each with a file of the same size, and gives back the run's folder."""
    seconds = itertools.count()

    def save(*steps, **facts):
        for step in steps:
            written = tmp_path / STAGING / f"checkpoint-{step}"
            written.mkdir(parents=True)
            (written / "optimizer.pt").write_text(f"{step:9}")
            (written / "stream.json").write_text(json.dumps({"seconds": next(seconds)}))  # no two are equal
            parent = next(iter(branch_of(tmp_path)[::-1]), None)
            finish_checkpoint(
                written, tmp_path, parent, **{"step": step, "global_batch": 8, "resumable": True, **facts}
            )
        return tmp_path

    return save


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_without_a_record_has_its_checkpoints_by_step(tmp_path):
    assert last_checkpoint(tmp_path / "none") is None and last_checkpoint(tmp_path) is None
    for steps in (2, 10, 9):
        (tmp_path / f"checkpoint-{steps}").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-11").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    (tmp_path / RECORD).write_text('{"branch": ["checkp')  # cut
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_saved_checkpoint_is_last_and_knows_the_one_before(save):
    run = save(2, 4)
    assert last_checkpoint(run) == str(run / "checkpoint-4") and checkpoint_to_resume(run, "last")[1] is None
    parent = {"name": "checkpoint-2", "blake2b": hash_of(read_manifest(run / "checkpoint-2"))}
    assert read_manifest(run / "checkpoint-4")["parent"] == parent
    assert read_manifest(run / "checkpoint-2")["parent"] is None
    assert names(run) == ["checkpoint-2", "checkpoint-4", RECORD]
    save(4)  # again at the same step
    assert [path.name for path in branch_of(run)] == ["checkpoint-2", "checkpoint-4"]


def test_a_run_that_goes_back_moves_the_abandoned_branch_aside(save, caplog):
    run = save(2, 4, 6)
    begin_from(run, f"{run}/checkpoint-2")
    assert names(run) == ["abandoned", "checkpoint-2", RECORD] and last_checkpoint(run) == str(run / "checkpoint-2")
    assert caplog.messages == [
        f"Moved checkpoint-4, checkpoint-6 to {run}/abandoned: training continues from {run}/checkpoint-2."
    ]
    save(3)
    assert last_checkpoint(run) == str(run / "checkpoint-3")
    save(4)
    begin_from(run, f"{run}/checkpoint-3")
    assert names(run / "abandoned") == ["checkpoint-4", "checkpoint-4.2", "checkpoint-6"]  # nothing is lost


def test_a_run_killed_while_it_moves_them_has_its_last_checkpoint_all_the_same(save, monkeypatch):
    run = save(2, 4, 6)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        begin_from(run, f"{run}/checkpoint-2")
    assert (run / "checkpoint-6").exists() and last_checkpoint(run) == str(run / "checkpoint-2")
    begin_from(run, last_checkpoint(run))
    assert names(run) == ["abandoned", "checkpoint-2", RECORD]


def test_a_run_killed_before_a_checkpoint_takes_its_name_has_the_one_before(save, monkeypatch):
    run = save(2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        save(4)
    assert (run / STAGING / "checkpoint-4").exists() and last_checkpoint(run) == str(run / "checkpoint-2")


def test_a_run_that_starts_or_comes_from_elsewhere_abandons_all_and_one_without_checkpoints_writes_nothing(
    save, tmp_path
):
    begin_from(tmp_path, None)
    begin_from(tmp_path / "none", None)
    assert names(tmp_path) == []
    run = save(2, 4)
    begin_from(run, "elsewhere/checkpoint-2")
    assert last_checkpoint(run) is None and names(run / "abandoned") == ["checkpoint-2", "checkpoint-4"]
    save(6)
    begin_from(run, None)
    assert last_checkpoint(run) is None


def test_a_run_that_goes_back_to_an_abandoned_checkpoint_gets_its_branch_back(save):
    run = save(2, 4, 6)
    begin_from(run, f"{run}/checkpoint-2")
    save(4, 5)
    begin_from(run, f"{run}/checkpoint-2")  # two branches are abandoned, each with a checkpoint-4
    assert names(run / "abandoned") == ["checkpoint-4", "checkpoint-4.2", "checkpoint-5", "checkpoint-6"]
    save(3)
    asked = f"{run}/abandoned/checkpoint-5"
    begin_from(run, asked)
    assert place_after(run, asked) == run / "checkpoint-5"
    assert names(run) == ["abandoned", "checkpoint-2", "checkpoint-4", "checkpoint-5", RECORD]
    assert [path.name for path in branch_of(run)] == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]
    assert names(run / "abandoned") == ["checkpoint-3", "checkpoint-4", "checkpoint-6"]
    assert checkpoint_to_resume(run, "last") == (f"{run}/checkpoint-5", None)
    begin_from(run, f"{run}/abandoned/checkpoint-6")
    assert [path.name for path in branch_of(run)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert names(run / "abandoned") == ["checkpoint-3", "checkpoint-4.2", "checkpoint-5"]
    content = read_manifest(run / "checkpoint-6")
    assert content["parent"]["blake2b"] == hash_of(read_manifest(run / "checkpoint-4"))  # its own, not the other one


def test_a_run_killed_while_it_moves_a_branch_back_has_a_last_checkpoint(save, monkeypatch):
    run, rename, moves = save(2, 4, 6), Path.rename, []
    begin_from(run, f"{run}/checkpoint-2")
    save(3)

    def dies(path, target):
        moves.append(path.name)
        if len(moves) == 3:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", dies)
        begin_from(run, f"{run}/abandoned/checkpoint-6")
    assert moves == ["checkpoint-3", "checkpoint-4", "checkpoint-6"]
    assert last_checkpoint(run) == str(run / "checkpoint-4") and (run / "abandoned" / "checkpoint-6").exists()


def test_last_falls_back_to_the_newest_intact_checkpoint(save):
    run = save(2, 4, 6, 8)
    (run / "checkpoint-8" / "optimizer.pt").unlink()
    (run / "checkpoint-6" / "optimizer.pt").write_text("another 6")
    chosen, warning = checkpoint_to_resume(run, "last")
    assert chosen == str(run / "checkpoint-4")
    assert warning == (
        "Not resumed: checkpoint-8: optimizer.pt is missing; checkpoint-6: the content of optimizer.pt has changed. "
        f"Resuming from {run}/checkpoint-4, the newest checkpoint that can be."
    )
    for step in (2, 4):
        (run / f"checkpoint-{step}" / "manifest.json").unlink()
    with pytest.raises(
        ValueError, match="has no checkpoint to resume from: checkpoint-8: optimizer.pt .*; checkpoint-2: mani"
    ):
        checkpoint_to_resume(run, "last")


def test_a_damaged_checkpoint_that_is_named_is_an_error_that_names_the_newest_intact_one(save):
    run = save(2, 4, 6)
    (run / "checkpoint-4" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match=f"4 is damaged: optimizer.pt is missing. The newest intact .* {run}/checkpoi"):
        checkpoint_to_resume(run, f"{run}/checkpoint-4")
    assert checkpoint_to_resume(run, f"{run}/checkpoint-2") == (f"{run}/checkpoint-2", None)


def test_a_checkpoint_without_a_manifest_is_refused_with_the_way_out(save):
    run = save(2)
    (run / "checkpoint-2" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="earlier version wrote.* --encoder .*/checkpoint-2"):
        checkpoint_to_resume(run, f"{run}/checkpoint-2")
    (run / "checkpoint-2" / "stream.json").unlink()
    with pytest.raises(ValueError, match="not a complete checkpoint of a hf_pretext run"):
        checkpoint_to_resume(run, f"{run}/checkpoint-2")


def test_weights_without_optimizer_are_not_resumed(save):
    run = save(2, resumable=False)
    for asked in ("last", f"{run}/checkpoint-2"):
        with pytest.raises(ValueError, match="2 was written with --save_only_model, .* --encoder .*/checkpoint-2"):
            checkpoint_to_resume(run, asked)
    save(4)
    save(6, resumable=False)
    chosen, warning = checkpoint_to_resume(run, "last")
    assert chosen == f"{run}/checkpoint-4" and "checkpoint-6 was written with --save_only_model" in warning


def test_rotation_is_by_step_whatever_the_clock_says_and_spares_the_best(save):
    run = save(9, 10, 11, 12)
    for age, step in enumerate((9, 10, 11, 12)):
        os.utime(run / f"checkpoint-{step}", (10**9 - 1000 * age,) * 2)
    rotate(run, 2, str(run / "checkpoint-9"))
    assert names(run) == ["checkpoint-12", "checkpoint-9", RECORD]
    rotate(run, 1, None)
    assert names(run) == ["checkpoint-12", RECORD]
    save(13)
    assert json.loads((run / RECORD).read_text()) == {"branch": ["checkpoint-12", "checkpoint-13"]}


def test_the_best_checkpoint_is_known_where_the_folder_is(save):
    run, state = save(2, 4), TrainerState(best_global_step=2, best_model_checkpoint="/moved/checkpoint-2")
    name_best(state, run)
    assert state.best_model_checkpoint == str(run / "checkpoint-2")
    state.best_global_step = 6  # not saved
    name_best(state, run)
    assert state.best_model_checkpoint == str(run / "checkpoint-2")
    name_best(state, run, "checkpoint-6")  # being saved
    assert state.best_model_checkpoint == str(run / "checkpoint-6")
