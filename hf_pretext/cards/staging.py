"""What of a run is shared: weights in safetensors, configs, the processor's files, results and pictures; no pickles, no
paths of this machine.

a run's or a checkpoint's folder -> checked -> a staging folder, which stays as it is while it is uploaded
"""

import os
import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.state import STREAM_STATE

SHARED = {".json", ".safetensors", ".txt", ".model", ".jinja", ".png", ".md"}  # suffixes of a checkpoint's files
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack"}
OF_TRAINING = {"optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", STREAM_STATE}  # to go on with a run
RANDOM_STATE = "rng_state"  # what the files of each process begin with
OF_THE_RUN = {"run.json", "README.md"}  # a card is rendered for the repository that it goes to
CONFIG = "config.json"


def stage(folder: Path, into: Path, training_state: bool = False) -> list[str]:
    """Puts what may be shared of a run or a checkpoint into a staging folder, and returns the names of what may not.

    training_state: with what going on with the run takes, the optimizer's and the random generators' pickles.
    Raises `ValueError` where there is no checkpoint, for weights that can't be read, and for other pickles."""
    if not (folder / CONFIG).exists() or not list(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} holds no checkpoint: {CONFIG} and *.safetensors. Give the --output_dir of a run.")
    left_out = []
    for path in sorted(folder.iterdir()):
        name = path.name
        if path.is_dir():
            if name.startswith((".", PREFIX_CHECKPOINT_DIR, "seed-")):
                continue  # known not to be of the checkpoint
            if (path / CONFIG).exists() and not path.is_symlink():  # a side, or a module of sentence-transformers
                files = [file for file in sorted(path.iterdir()) if file.is_file()]
                left_out += [f"{name}/{file.name}" for file in files if not take(file, into / name)]
            else:
                left_out.append(f"{name}/")
        elif name in OF_TRAINING or name.startswith(RANDOM_STATE):
            if training_state:
                link(path, into)
        elif not take(path, into):
            left_out.append(name)
    return [name for name in left_out if name not in OF_THE_RUN]


def take(path: Path, into: Path) -> bool:
    """Takes a file if it is of a kind that is shared. Raises `ValueError` for what may be a pickle, and for weights
    that can't be read."""
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} may be a pickle, which runs code when it is loaded. Save weights as safetensors, and take it away."
        )
    if path.is_symlink() or path.suffix not in SHARED or path.name.startswith(".") or path.name in OF_THE_RUN:
        return False
    if path.suffix == ".safetensors":
        check_weights(path)
    link(path, into)
    return True


def link(path: Path, into: Path) -> None:
    """The same file, or a copy where it lies on another disk: rotating checkpoints must not take it away meanwhile."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, into / path.name)
    except OSError:
        shutil.copy2(path, into / path.name)


def check_weights(path: Path) -> None:
    """Raises `ValueError` for a file that is damaged or cut."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as weights:
            weights.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read: {error}. It is damaged or cut; save the model again.") from error


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first. Raises `ValueError` where there is none."""
    found = sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if not found:
        raise ValueError(f"{folder} holds no {PREFIX_CHECKPOINT_DIR}-* folder: there is no checkpoint to share.")
    return found
