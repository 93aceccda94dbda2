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
from .manifest import MANIFEST, damage, read_manifest, write_manifest
from .state import check_is_checkpoint

STAGING = ".saving"  # folder in which a checkpoint is written, before it is moved to its final name
RECORD, ABANDONED = "checkpoints.json", "abandoned"
LAST = "last"  # stands for the last checkpoint, in --resume_from_checkpoint
NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
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
        chosen, faults = newest_intact(checkpoints, contents)
        if chosen is None:
            raise ValueError(f"{run} has no intact checkpoint: {faults}. {start_from(checkpoints[-1])}")
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
        raise ValueError(
            f"{chosen} was written with --save_only_model, so it has no optimizer state and can't be resumed. "
            f"{start_from(chosen)}"
        )
    return str(chosen), f"Damaged: {faults}. Resuming from {chosen}, the newest intact checkpoint." if faults else None


def newest_intact(checkpoints: list[Path], contents: bool) -> tuple[Path | None, str]:
    """Returns the last intact checkpoint of a list, None without one, and the damage of those after it, in words."""
    faults = []
    for checkpoint in reversed(checkpoints):
        damaged = damage(checkpoint, contents)
        if not damaged:
            return checkpoint, "; ".join(faults)
        faults.append(f"{checkpoint.name}: {', '.join(damaged)}")
    return None, "; ".join(faults)


def start_from(checkpoint: str | os.PathLike) -> str:
    """Returns the hint that a new run can start from the weights of a checkpoint."""
    return f"Start a new run from its weights, in another --output_dir: --encoder {checkpoint}"


def begin_from(run: str | os.PathLike, checkpoint: str | None) -> None:
    """Continues a run from a checkpoint, None for step 0. Moves checkpoints that did not lead to it aside, to the
    folder `abandoned`, and logs their names."""
    run, names = Path(run), [path.name for path in branch_of(run)]
    kept = []
    if checkpoint and Path(checkpoint).absolute().parent.resolve() == run.resolve():
        name = Path(checkpoint).name
        kept = names[: names.index(name) + 1] if name in names else [name]
    others = [name for name in all_checkpoints(run) if name not in kept]
    if others or kept != names:
        write_json(run / RECORD, {"branch": kept})  # first: a process killed while it moves them leaves no doubt
    for name in others:
        (run / ABANDONED).mkdir(exist_ok=True)
        (run / name).rename(free_place(run / ABANDONED / name))
    if others:
        since = f"training continues from {checkpoint}" if checkpoint else "training starts at step 0"
        log.warning(f"Moved {', '.join(others)} to {run / ABANDONED}: {since}.")


def free_place(path: Path) -> Path:
    """Returns the path, with a number after it if it exists."""
    number, place = 2, path
    while place.exists():
        place, number = path.with_name(f"{path.name}.{number}"), number + 1
    return place


def finish_checkpoint(written: Path, run: Path, **facts) -> None:
    """Writes the manifest of a checkpoint in the staging folder, and gives it its final name in the run's folder.

    facts: see `write_manifest`."""
    final = run / written.name
    write_manifest(written, **facts)
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
    """Keeps track of the best checkpoint of a resumed run whose folder was moved."""

    def on_train_begin(self, args, state, control, **kwargs):
        name_best(state, Path(args.output_dir))


def rotate(run: Path, limit: int | None, best: str | None) -> None:
    """Deletes checkpoints above the limit, those of the fewest steps first; neither the last nor the best one.

    By step, not by time of modification: the clock may be set back."""
    rotate_checkpoints(output_dir=str(run), save_total_limit=limit, best_model_checkpoint=best, use_mtime=False)
