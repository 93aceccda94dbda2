"""Frozen models that a checkpoint names instead of containing them: where they are, and a digest of their weights.

folder or Hub id -> name in a checkpoint -> folder or Hub id again
model -> digest of its weights, which shows that a model is still the same one
"""

import hashlib
import os

from huggingface_hub import constants
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.hub import extract_commit_hash

from ..utils.paths import relative

PLACES: dict[str, str] = {}  # folder or Hub id of each named model of this process, by its name in checkpoints


def note_place(path: str) -> None:
    """Notes where a model is, so that this process finds it by the name that a checkpoint gives it."""
    PLACES[relative(path, to_current=False)] = path


def place_of(name: str) -> str:
    """Returns the folder or Hub id of a model. name: its name in a checkpoint."""
    return PLACES.get(name) or os.path.expanduser(name).replace("$HF_HOME", constants.HF_HOME)


def digest_of(model: PreTrainedModel) -> str:
    """Returns a digest of the names and values of the weights of a model on the CPU: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def commit_of(path: str, revision: str | None = None) -> str | None:
    """Returns the commit of a model of the Hub, None for a folder. revision: branch, tag or commit; default: main."""
    return None if os.path.isdir(path) else extract_commit_hash(cached_file(path, CONFIG_NAME, revision=revision), None)
