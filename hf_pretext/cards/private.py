"""Removes the names of private files and folders from files of training state, before they are pushed.

stream.json, trainer_state.json -> the same content with hashes in place of file names, which resumes a run
"""

import json
from pathlib import Path

from ..stream.state import STREAM_STATE
from ..utils.foreign import read_json
from ..utils.paths import hashed, relative


def shared(path: Path) -> str:
    """Returns the text to push of one of the files in `PRIVATE`. Raises `ValueError` for a damaged file."""
    try:
        content = json.dumps(PRIVATE[path.name](read_json(path)), indent=2)  # may contain NaN, like the file
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}. Resume from an earlier checkpoint, or delete it.") from error
    return content + "\n"


def stream_state(state: dict) -> dict:
    """Returns the content of stream.json with hashed names of data files. `load_state` recognises their names again."""
    sources, contents = state.get("source", []), state.get("contents") or []
    hidden = {"contents": with_hashed_keys(contents)} if contents else {}
    return {**state, "source": [public(source) for source in sources], **hidden}


def public(source: dict) -> dict:
    """Returns the fingerprint of a source with hashed file names and without the folders of its name."""
    hidden = {key: with_hashed_keys(value) for key, value in source.items()}
    return {**hidden, "name": relative(source["name"])} if "name" in source else hidden


def with_hashed_keys(content):
    """Returns JSON content with hashes in place of the keys of all objects."""
    if isinstance(content, dict):
        return {hashed(key): with_hashed_keys(value) for key, value in content.items()}
    return [with_hashed_keys(value) for value in content] if isinstance(content, list) else content


def trainer_state(state: dict) -> dict:
    """Returns the content of trainer_state.json without the path of the best checkpoint.

    Its entry `best_global_step` names the best checkpoint."""
    return {**state, "best_model_checkpoint": None}


PRIVATE = {STREAM_STATE: stream_state, "trainer_state.json": trainer_state}
