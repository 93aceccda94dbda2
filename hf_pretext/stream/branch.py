"""Checkpoints of a run: which one is last, which one to resume from, and which ones are kept.

checkpoints.json lists the checkpoints that led to the current weights. Others belong to an abandoned branch.
"""

import json
import os
import re
import shutil
from pathlib import Path

from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from transformers.utils import logging

from ..utils.files import sync, write_json
from .manifest import MANIFEST, damage, hash_of, read_manifest, write_manifest
from .state import check_is_checkpoint

STAGING = ".saving"  # folder in which a checkpoint is written, before it is moved to its final name
RECORD, ABANDONED = "checkpoints.json", "abandoned"
WEIGHTS_ONLY = "was written with --save_only_model, so it has no optimizer state and can't be resumed"
LAST = "last"  # stands for the last checkpoint, in --resume_from_checkpoint
NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)(\.\d+)?")  # with a number if `abandoned` has several of a step
log = logging.get_logger(__name__)


def branch_of(run: str | os.PathLike) -> list[Path]:
    """Returns the checkpoints of a run's current branch that exist, oldest first.

    Without a readable record, these are all checkpoints of the folder, by step."""
    run = Path(run)
    try:
        names = json.loads((run / RECORD).read_text(encoding="utf-8"))["branch"]
    except (OSError, ValueError, KeyError, TypeError):
        names = all_checkpoints(run)
    return [run / name for name in names if (run / name).is_dir()]


def all_checkpoints(run: Path) -> list[str]:
    """Returns the names of all checkpoints in a folder, by step."""
    names = [path.name for path in run.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    return sorted(filter(NAME.fullmatch, names), key=step_of)


def step_of(checkpoint: str | os.PathLike) -> int:
    """Returns the step in the name of a checkpoint."""
    return int(NAME.fullmatch(Path(checkpoint).name)[1])


def last_checkpoint(run: str | os.PathLike) -> str | None:
    """Returns the path of the last checkpoint of a run, None without one. It may be damaged."""
    checkpoints = branch_of(run)
    return str(checkpoints[-1]) if checkpoints else None


def checkpoint_to_resume(run: str | os.PathLike, asked: str, contents: bool = True) -> tuple[str, str | None]:
    """Returns the intact checkpoint that a run resumes from, and a warning if it is not the one that was asked for.

    asked: a checkpoint folder, or "last" for the newest intact checkpoint of the run's branch. contents: False compares
    only names and sizes of files. Raises `ValueError` for a folder that is damaged or holds weights only."""
    if asked == LAST:
        checkpoints = branch_of(run)
        if not checkpoints:
            raise ValueError(f"{run} has no checkpoint to resume from. Leave out --resume_from_checkpoint.")
        chosen, faults = newest_intact(checkpoints, contents, resumable=True)
        if chosen is None:
            raise ValueError(f"{run} has no checkpoint to resume from: {faults}. {start_from(checkpoints[-1])}")
    else:
        if not (Path(asked) / MANIFEST).exists():
            check_is_checkpoint(asked)
        chosen, faults = Path(asked), "; ".join(damage(asked, contents))
        if faults:
            others = [path for path in branch_of(chosen.parent) if path.name != chosen.name]
            other, _ = newest_intact(others, contents)
            hint = f"The newest intact checkpoint of its run is {other}: give that one." if other else start_from(asked)
            raise ValueError(f"--resume_from_checkpoint {asked} is damaged: {faults}. {hint}")
        if not read_manifest(chosen)["resumable"]:
            raise ValueError(f"--resume_from_checkpoint {asked} {WEIGHTS_ONLY}. {start_from(chosen)}")
    warning = f"Not resumed: {faults}. Resuming from {chosen}, the newest checkpoint that can be." if faults else None
    return str(chosen), warning


def newest_intact(checkpoints: list[Path], contents: bool, resumable: bool = False) -> tuple[Path | None, str]:
    """Returns the last intact checkpoint of a list, None without one, and what is wrong with those after it, in words.

    resumable: leaves out checkpoints of weights only."""
    faults = []
    for checkpoint in reversed(checkpoints):
        damaged = damage(checkpoint, contents)
        if not damaged and resumable and not read_manifest(checkpoint)["resumable"]:
            damaged = [WEIGHTS_ONLY]
        if not damaged:
            return checkpoint, "; ".join(faults)
        faults.append(f"{checkpoint.name}: {', '.join(damaged)}".replace(f": {WEIGHTS_ONLY}", f" {WEIGHTS_ONLY}"))
    return None, "; ".join(faults)


def start_from(checkpoint: str | os.PathLike) -> str:
    """Returns the hint that a new run can start from the weights of a checkpoint."""
    return f"Start a new run from its weights, in another --output_dir: --encoder {checkpoint}"


def begin_from(run: str | os.PathLike, checkpoint: str | None) -> None:
    """Continues a run from a checkpoint, None for step 0. Moves checkpoints that did not lead to it aside, to the
    folder `abandoned`, and logs their names. A checkpoint of that folder is moved back (to `place_after`), with those
    it came from."""
    run, names, kept, back = Path(run), [path.name for path in branch_of(run)], [], []
    folder = checkpoint and Path(checkpoint).absolute().parent.resolve()
    if checkpoint and folder == run.resolve():
        name = Path(checkpoint).name
        kept = names[: names.index(name) + 1] if name in names else [name]
    elif checkpoint and folder == (run / ABANDONED).resolve():
        chain = lineage(Path(checkpoint), run)
        kept = [path.name for path in chain if path.parent.name != ABANDONED]
        back = [path for path in chain if path.parent.name == ABANDONED]
    others = [name for name in all_checkpoints(run) if name not in kept]
    if others or kept != names:
        write_json(run / RECORD, {"branch": kept})  # first: a process killed while it moves them leaves no doubt
    for name in others:
        (run / ABANDONED).mkdir(exist_ok=True)
        (run / name).rename(free_place(run / ABANDONED / name))
    if others:
        since = f"training continues from {checkpoint}" if checkpoint else "training starts at step 0"
        log.warning(f"Moved {', '.join(others)} to {run / ABANDONED}: {since}.")
    for path in back:
        place = place_after(run, path)
        path.rename(place)
        kept.append(place.name)
        write_json(run / RECORD, {"branch": kept})


def place_after(run: str | os.PathLike, checkpoint: str | os.PathLike) -> Path:
    """Returns where `begin_from` leaves a checkpoint."""
    is_abandoned = Path(checkpoint).absolute().parent.resolve() == (Path(run) / ABANDONED).resolve()
    return Path(run) / f"{PREFIX_CHECKPOINT_DIR}-{step_of(checkpoint)}" if is_abandoned else Path(checkpoint)


def lineage(checkpoint: Path, run: Path) -> list[Path]:
    """Returns a checkpoint and those it came from that still exist in the folder of a run, oldest first."""
    folders = (path for folder in (run, run / ABANDONED) for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
    by_hash = {hashes[0]: path for path in folders if (hashes := identity(path))}
    chain = [checkpoint]
    while (hashes := identity(chain[0])) and (parent := by_hash.get(hashes[1])):
        chain.insert(0, parent)
    return chain


def identity(checkpoint: Path) -> tuple[str, str | None] | None:
    """Returns the hashes of a checkpoint's manifest and of its parent's; None for a damaged manifest."""
    try:
        content = read_manifest(checkpoint)
    except ValueError:
        return None
    return hash_of(content), (content["parent"] or {}).get("blake2b")


def free_place(path: Path) -> Path:
    """Returns the path, with a number after it if it exists."""
    number, place = 2, path
    while place.exists():
        place, number = path.with_name(f"{path.name}.{number}"), number + 1
    return place


def finish_checkpoint(written: Path, run: Path, parent: Path | None, **facts) -> None:
    """Writes the manifest of a checkpoint in the staging folder, and gives it its final name in the run's folder.

    parent: the checkpoint before. facts: see `write_manifest`."""
    final = run / written.name
    before = parent and identity(parent)
    write_manifest(written, parent=before and {"name": parent.name, "blake2b": before[0]}, **facts)
    names = [path.name for path in branch_of(run) if path.name != final.name]
    write_json(run / RECORD, {"branch": [*names, final.name]})  # before the move: a name that does not exist is skipped
    if final.exists():  # saved twice at one step
        final.rename(run / STAGING / "replaced")
    written.rename(final)
    sync(run)
    shutil.rmtree(run / STAGING)


def name_best(state: TrainerState, run: Path, written: str | None = None) -> None:
    """Sets the path of the best checkpoint to its final place in the run's folder, which may have been moved.

    written: name of a checkpoint that is being written."""
    name = f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
    if state.best_global_step is not None and (name == written or (run / name).is_dir()):
        state.best_model_checkpoint = str(run / name)


class BestInFolder(TrainerCallback):
    """Keeps track of the best checkpoint of a resumed run whose folder was moved. Without it, the best of the following
    steps is chosen."""

    def on_train_begin(self, args, state, control, **kwargs):
        name_best(state, Path(args.output_dir))
        if state.best_global_step is None or os.path.isdir(state.best_model_checkpoint or ""):
            return
        if args.load_best_model_at_end and state.is_world_process_zero:
            log.warning(
                f"The best checkpoint so far, of step {state.best_global_step:,} ({args.metric_for_best_model} "
                f"{state.best_metric:g}), is missing. --load_best_model_at_end chooses among the steps from now on."
            )
        state.best_metric = state.best_global_step = state.best_model_checkpoint = None


def rotate(run: Path, limit: int | None, best: str | None) -> None:
    """Deletes checkpoints above the limit, those of the fewest steps first; neither the last nor the best one.

    By step, not by time of modification: the clock may be set back."""
    rotate_checkpoints(output_dir=str(run), save_total_limit=limit, best_model_checkpoint=best, use_mtime=False)
