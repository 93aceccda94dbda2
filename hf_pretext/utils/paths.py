"""Paths as others may see them."""

import os
from pathlib import Path


def relative(value):
    """A path as others may see it: below the current folder as seen from there, below the cache as `$HF_HOME/...`,
    below the home, whose name is its owner's, as `~/...`; also in a list. All else as it is."""
    from huggingface_hub import constants

    if isinstance(value, list):
        return [relative(part) for part in value]
    if isinstance(value, str) and Path(value).is_absolute():
        for name, folder in (("", Path.cwd()), ("$HF_HOME", constants.HF_HOME), ("~", Path.home())):
            if Path(value).is_relative_to(folder):
                return os.path.join(name, os.path.relpath(value, folder))
    return value
