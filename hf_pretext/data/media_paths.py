"""Follows the paths of images, sounds and videos in a column of a table.

{"image": "cat/1.jpg"} in /data/captions.csv -> {"image": {"bytes": None, "path": "/data/cat/1.jpg"}}
"""

import os
import re

from .columns import DOWNLOAD
from .decoding import BadSample

URL = re.compile(r"[a-z][a-z0-9+]+://", re.IGNORECASE)


def followed(path: str | None, folder: str | None, remote: bool) -> dict[str, str | None] | None:
    """Returns the undecoded form of a file, `{"bytes": None, "path"}`; None for a missing or blank path.

    folder: of the table, where a relative path starts; None if unknown. remote: True for a table of a server, whose
    paths could name any file of this machine. Raises `BadSample` for a URL, and for a path that leads out of the folder
    or is of a remote table."""
    if path is None or not path.strip():
        return None
    if URL.match(path):
        raise BadSample(f"a URL, not a path: {path[:200]}")
    if remote:
        raise BadSample("a path in a remote table is not followed")
    if not os.path.isabs(path):
        if folder is None:
            raise BadSample("a relative path in data without a folder")
        place = os.path.normpath(folder)
        path = os.path.normpath(os.path.join(place, path))
        if os.path.commonpath([os.path.abspath(place), os.path.abspath(path)]) != os.path.abspath(place):
            raise BadSample("a path that leads out of the folder of its table")
    return {"bytes": None, "path": path}


def check_no_url(values: list, column: str, name: str) -> None:
    """Raises `ValueError` if a column of paths has URLs. values: of the first rows."""
    url = next((value for value in values if isinstance(value, str) and URL.match(value)), None)
    if url is not None:
        raise ValueError(
            f"{name}: the column {column!r} has URLs ({url[:100]}), which are not fetched during training: {DOWNLOAD}"
        )
