"""Paths and names of files without the names of private folders and files."""

import hashlib
import os
import re
from pathlib import Path

# user, password and query of a URL may hold a token
SECRETS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*://)(?:[^/\s@'\"]*@)?(?P<path>[^\s'\"]*)", re.IGNORECASE)
HASHED = re.compile(r"#[0-9a-f]{16}")


def relative(value, to_current: bool = True):
    """Returns a path for publication, without the names of private folders.

    A URL loses its user, password and query. A path below the current folder is relative to it. A path below the cache
    starts with `$HF_HOME`, and a path below the home folder with `~`. Any other absolute path keeps its last name only,
    after `...`. In a list, converts each element. Returns other values unchanged.

    to_current: False for a result that does not depend on the current folder."""
    from huggingface_hub import constants

    if isinstance(value, list):
        return [relative(part, to_current) for part in value]
    if isinstance(value, str) and "://" in value:
        return without_query(value)
    if isinstance(value, str) and value.startswith("@"):  # a file that lists others
        return "@" + relative(value[1:], to_current)
    if isinstance(value, str) and Path(value).is_absolute():
        places = {"$HF_HOME": constants.HF_HOME, "~": Path.home()}
        for name, folder in {**({"": Path.cwd()} if to_current else {}), **places}.items():
            if Path(value).is_relative_to(folder) and Path(folder) != Path(folder).parent:  # not below the root alone
                return os.path.join(name, os.path.relpath(value, folder))
        return os.path.join("...", Path(value).name)
    return value


def opened(published: str) -> str:
    """Returns the path that `relative` published, on this machine. Raises `ValueError` for one that kept its last name
    only."""
    from huggingface_hub import constants

    first, _, rest = published.partition(os.sep)
    if first == "...":
        raise ValueError(f"{published} has lost the folders before its name.")
    places = {"$HF_HOME": constants.HF_HOME, "~": str(Path.home())}
    return os.path.join(places[first], rest) if first in places else published


def without_query(text: str) -> str:
    """Returns a text with its URLs without user, password and, for HTTP, query: they may hold a token."""

    def public(url: re.Match) -> str:
        by_http = url["protocol"].lower().startswith("http")  # a "?" of other protocols is part of a glob
        return url["protocol"] + (url["path"].partition("?")[0] if by_http else url["path"])

    return SECRETS.sub(public, text)


def suffix_of(file: str) -> str:
    """Returns the last suffix of a path or URL, in lowercase: ".gz" of "a.txt.GZ"."""
    return os.path.splitext(os.path.basename(without_query(file) if "://" in file else file))[1].lower()


def without_paths(config):
    """Returns the content of a config.json without the folders that its parts were loaded from.

    transformers leaves out the folder of the config, but not those of the configs inside it."""
    if isinstance(config, dict):
        return {name: without_paths(value) for name, value in config.items() if name != "_name_or_path"}
    return [without_paths(value) for value in config] if isinstance(config, list) else config


def hashed(name: str) -> str:
    """Returns a hash that stands for the name of a private file: "#" and 16 hexadecimal digits.

    A hash is returned unchanged."""
    if HASHED.fullmatch(name):
        return name
    return "#" + hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def with_names(hashes, names):
    """Returns JSON content with names in place of the hashes in its keys.

    names: content with the names as keys, of the same structure. A hash without a name stays."""
    if isinstance(hashes, list) and isinstance(names, list):
        return [with_names(*pair) for pair in zip(hashes, names, strict=False)] + hashes[len(names) :]
    if isinstance(hashes, dict) and isinstance(names, dict):
        known = {hashed(name): name for name in names}
        result = {known.get(key, key): value for key, value in hashes.items()}
        return {name: with_names(value, names.get(name)) for name, value in result.items()}
    return hashes
