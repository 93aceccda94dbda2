"""What of a run is shared: weights in safetensors, configs, the processor's files, results and pictures; no pickles, no
paths of this machine.

a run's or a checkpoint's folder -> checked -> a staging folder, which stays as it is while it is uploaded
"""

import json
import os
import re
import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..stream.state import STREAM_STATE

SHARED = {  # what a checkpoint is made of, beside its weights
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "feature_extractor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "results.json", "report.png",
}  # fmt: skip
WEIGHTS = (".safetensors", ".safetensors.index.json")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
OF_TRAINING = {  # to go on with a run
    "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "trainer_state.json", STREAM_STATE,
}  # fmt: skip
RANDOM_STATE = "rng_state"  # what the files of each process begin with
OF_THE_RUN = {"run.json", "README.md"}  # a card is rendered for the repository that it goes to
CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
CONFIG, INDEX = "config.json", "model.safetensors.index.json"


def stage(folder: Path, into: Path, training_state: bool = False) -> list[str]:
    """Puts what may be shared of a run or a checkpoint into a staging folder, and returns the names of what may not:
    files of other names, links, folders that are none of the checkpoint's.

    training_state: with what going on with the run takes, the optimizer's and the random generators' pickles.
    Raises `ValueError` where there is no whole checkpoint, for weights that can't be read, and for other pickles."""
    left_out = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name
        if path.is_symlink():  # it may lead anywhere
            left_out.append(name)
        elif path.is_dir():
            if name.startswith((".", PREFIX_CHECKPOINT_DIR, "seed-")):
                continue  # known not to be of the checkpoint
            if (path / CONFIG).exists():  # a side, or a module of sentence-transformers
                files = [file for file in sorted(path.iterdir()) if file.is_file()]
                left_out += [f"{name}/{file.name}" for file in files if not take(file, into / name)]
            else:
                left_out.append(f"{name}/")
        elif name in OF_TRAINING or name.startswith(RANDOM_STATE):
            if training_state:
                link(path, into)
        elif not take(path, into):
            left_out.append(name)
    check_whole(folder, into)
    return [name for name in left_out if name not in OF_THE_RUN]


def take(path: Path, into: Path) -> bool:
    """Takes a file if it is one that is shared. Raises `ValueError` for what may be a pickle, and for weights that
    can't be read."""
    if path.name.endswith(PICKLES):
        raise ValueError(
            f"{path} may be a pickle, which runs code when it is loaded. Save weights as safetensors, and take it away."
        )
    if path.is_symlink() or not (path.name in SHARED or path.name.endswith(WEIGHTS)):
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


def check_whole(folder: Path, into: Path) -> None:
    """Raises `ValueError` where what was staged is no checkpoint, or lacks some of its weights."""
    if not (into / CONFIG).exists() or not [*into.glob("model*.safetensors"), *into.glob("*/model*.safetensors")]:
        raise ValueError(
            f"{folder} holds no checkpoint: {CONFIG} and *.safetensors, as files and not as links. Give the "
            "--output_dir of a run."
        )
    if (into / INDEX).exists():
        try:
            named = set(json.loads((into / INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / INDEX} is no index of weights. Save the model again.") from error
        lacking = sorted(name for name in named if not (into / name).exists())
        if lacking:
            raise ValueError(f"{folder} lacks {', '.join(lacking)}, which its {INDEX} names. Save the model again.")


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
    there = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    found = sorted(
        (path for path in there if CHECKPOINT.fullmatch(path.name)),
        key=lambda path: int(CHECKPOINT.fullmatch(path.name)[1]),
    )
    if not found:
        raise ValueError(f"{folder} holds no {PREFIX_CHECKPOINT_DIR}-* folder: there is no checkpoint to share.")
    return found
