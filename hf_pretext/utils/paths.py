"""Paths without the names of private folders."""

import os
from pathlib import Path


def relative(value):
    """Returns a path for publication, without the user's name.

    A path below the current folder is relative to it. A path below the cache starts with `$HF_HOME`, and a path below
    the home folder with `~`. In a list, converts each element. Returns other values unchanged."""
    from huggingface_hub import constants

    if isinstance(value, list):
        return [relative(part) for part in value]
    if isinstance(value, str) and Path(value).is_absolute():
        for name, folder in (("", Path.cwd()), ("$HF_HOME", constants.HF_HOME), ("~", Path.home())):
            if Path(value).is_relative_to(folder):
                return os.path.join(name, os.path.relpath(value, folder))
    return value
