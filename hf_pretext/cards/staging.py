"""Staging of the files of a run that are pushed: safetensors weights, configs, processor files, results, report.

Pickles and unknown files are not pushed. The pushed files contain no paths of this machine.

folder of a run or checkpoint -> checks -> a staging folder that does not change during the upload
"""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..stream.branch import ABANDONED, RECORD
from ..stream.manifest import MANIFEST, write_manifest_of_copy
from ..stream.state import STREAM_STATE
from ..utils.files import write_text
from ..utils.finite import check_finite
from ..utils.foreign import CONFIG, INDEX, check_weights, read_index
from ..utils.lock import LOCK, STARTING
from .private import PRIVATE, shared

SHARED = {  # files of a checkpoint besides its weights
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "feature_extractor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "results.json", "report.png",
}  # fmt: skip
WEIGHTS = (".safetensors", ".safetensors.index.json")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
OF_TRAINING = {  # files that resume a run
    "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "trainer_state.json", STREAM_STATE, MANIFEST,
}  # fmt: skip
RANDOM_STATE = "rng_state"  # prefix of the files of each process
# Not pushed. The card is rendered again for its repository.
OF_THE_RUN = {"run.json", "README.md", RECORD, LOCK, STARTING}
CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
NATIVE_WEIGHTS = "model*.safetensors"


def stage(folder: Path, into: Path, training_state: bool = False) -> list[str]:
    """Puts the files of a run or checkpoint that may be pushed into a staging folder.

    training_state: also stage the files that resume the run; they include pickles of the optimizer and the random
    generators.
    Returns the names left out: unknown files, links, and folders that are not part of the checkpoint.
    Raises `ValueError` for an incomplete checkpoint, for weights that can't be read or are not finite, and for other
    pickles."""
    left_out = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name
        if path.is_symlink() or not (path.is_file() or path.is_dir()):  # a link may lead to any file; a pipe never ends
            left_out.append(name)
        elif path.is_dir():
            if name.startswith((".", PREFIX_CHECKPOINT_DIR, "seed-", ABANDONED)):
                continue  # not part of this checkpoint, and not worth a warning
            if (path / CONFIG).exists():  # one of several encoders, or a module of sentence-transformers
                files = [file for file in sorted(path.iterdir()) if not file.is_dir()]
                left_out += [f"{name}/{file.name}" for file in files if not take(file, into / name)]
            else:
                left_out.append(f"{name}/")
        elif name in OF_TRAINING or name.startswith(RANDOM_STATE):
            if training_state and name in PRIVATE:
                write_text(into / name, shared(path))
            elif training_state:
                link(path, into)
        elif not take(path, into):
            left_out.append(name)
    check_complete(folder, into)
    if (into / MANIFEST).exists():
        with suppress(ValueError):  # a damaged manifest stays as it is, and counts as damaged
            write_manifest_of_copy(folder, into, PRIVATE)
    return [name for name in left_out if name not in OF_THE_RUN]


def take(path: Path, into: Path) -> bool:
    """Stages a file if it may be pushed, and returns whether it did.

    Raises `ValueError` for files that may be pickles, and for weights that can't be read or are not finite."""
    if path.name.endswith(PICKLES):
        raise ValueError(
            f"{path} may be a pickle, and loading a pickle can run code. Save weights as safetensors and delete this "
            "file."
        )
    if path.is_symlink() or not path.is_file() or not (path.name in SHARED or path.name.endswith(WEIGHTS)):
        return False
    if path.suffix == ".safetensors":
        check_weights(path)
        check_finite(path)
    link(path, into)
    return True


def link(path: Path, into: Path) -> None:
    """Hard-links a file into a folder; copies it if the folder is on another disk.

    The file stays available if the run deletes the checkpoint during the upload."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, into / path.name)
    except OSError:
        shutil.copy2(path, into / path.name)


def check_complete(folder: Path, into: Path) -> None:
    """Raises `ValueError` if the staged files are no checkpoint or lack some of its weights."""
    parts = [path.parent for path in into.glob(f"*/{CONFIG}") if list(path.parent.glob(NATIVE_WEIGHTS))]
    if not (into / CONFIG).exists() or not (list(into.glob(NATIVE_WEIGHTS)) or len(parts) > 1):
        raise ValueError(
            f"{folder} contains no checkpoint. A checkpoint is {CONFIG} and {NATIVE_WEIGHTS}, as files and not as "
            "links; with several encoders, one sub-folder for each. Give the --output_dir of a run."
        )
    for index in sorted([*into.glob(INDEX), *into.glob(f"*/{INDEX}")]):
        of_folder = folder / index.parent.relative_to(into)
        lacking = sorted(name for name in read_index(of_folder / INDEX) if not (index.parent / name).exists())
        if lacking:
            raise ValueError(f"{of_folder} lacks {', '.join(lacking)}, which {INDEX} lists. Save the model again.")


def checkpoints_of(folder: Path) -> list[Path]:
    """Returns the checkpoint folders of a run, oldest first. Raises `ValueError` if there are none."""
    folders = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    checkpoints = sorted(
        (path for path in folders if CHECKPOINT.fullmatch(path.name)),
        key=lambda path: int(CHECKPOINT.fullmatch(path.name)[1]),
    )
    if not checkpoints:
        raise ValueError(
            f"{folder} contains no {PREFIX_CHECKPOINT_DIR}-* folder. Give the --output_dir of a run with checkpoints."
        )
    return checkpoints
