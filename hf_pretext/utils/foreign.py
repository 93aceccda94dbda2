"""Checks files of folders that others made before they are read: regular files of limited size, depth and numbers.

folder or file -> the content, or a `ValueError` that names the file
"""

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
MOST_BYTES = 10**8  # of a JSON file; the largest tokenizers have a third of it
MOST_LEVELS = 100  # of nested JSON; recursive functions read the content
LARGEST = 2**31 - 1  # number in a config
MOST_LAYERS = 4096  # also of depths, blocks and stages, which are built one by one
MOST_LABELS = 10**6  # transformers makes a name for each
MOST_PIXELS = 8192  # side of an image
SIDES = ("image_size", "img_size", "crop_size", "height", "width")
PARTS = ("layers", "depth", "depths", "blocks", "stages")  # last word of a config's numbers of parts
JSON_FILES = ("*config.json", "*.index.json", "*token*.json", "special_tokens_map.json", "vocab.json")
FIX = "Save, download or copy it again."


def check_folder(folder: str | os.PathLike, subfolders: Iterable[str] = ()) -> None:
    """Checks the files of a model's folder before transformers reads them. Does nothing for a Hub id.

    subfolders: folders inside it that are checked too, if they exist. Raises `ValueError` as `check_file`."""
    for place in (Path(folder), *(Path(folder) / name for name in subfolders)):
        if not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            if not path.is_dir() and (path.exists() or not path.is_symlink()):  # transformers ignores broken links
                check_file(path)


def check_file(path: Path) -> None:
    """Raises `ValueError` for a file that is not regular, and for a config, tokenizer, index or weights that can't be
    read safely."""
    check_regular(path)
    if path.suffix == ".safetensors":
        check_weights(path)
    elif path.name.endswith(".index.json"):
        read_index(path)
    elif path.name == CONFIG:
        read_config(path)
    elif any(path.match(pattern) for pattern in JSON_FILES) and not isinstance(read_json(path), dict):
        raise ValueError(f"{path} is no JSON object. {FIX}")


def check_regular(path: str | os.PathLike) -> None:
    """Raises `ValueError` for a pipe, a device or a socket, which may block forever or never end."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}. {FIX}") from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is a pipe, device, socket or folder, not a regular file. {FIX}")


def read_json(path: str | os.PathLike, **options) -> Any:
    """Returns the content of a JSON file. options: arguments of `json.loads`.

    Raises `ValueError` for a file that is not regular, too large, nested too deeply, or no JSON."""
    check_regular(path)
    size = os.path.getsize(path)
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, more than the {MOST_BYTES:,} of a JSON file. {FIX}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), **options)
        if is_deep(content):
            raise RecursionError
    except RecursionError:
        raise ValueError(f"{path} is nested in more than {MOST_LEVELS} levels. {FIX}") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}. {FIX}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}. {FIX}") from error
    return content


def is_deep(content) -> bool:
    """Returns True if JSON content is nested in more than `MOST_LEVELS` levels."""
    level = [content]
    for _ in range(MOST_LEVELS):
        inside = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level = [value for part in inside for value in part if isinstance(value, (dict, list))]
    return bool(level)


def read_config(path: str | os.PathLike) -> dict:
    """Returns the content of a config.json.

    Raises `ValueError` as `read_json`, for content that is not an object or empty, and for sizes that no machine can
    build."""
    config = read_json(path)
    if not isinstance(config, dict) or not config:
        raise ValueError(
            f"{path} is no config of a model: it must be a JSON object that is not empty. Save the model again."
        )
    for name, value in numbers_of(config):
        last = name.rpartition("_")[2]
        most = MOST_LAYERS if last in PARTS else MOST_LABELS if name == "num_labels" else LARGEST
        most = MOST_PIXELS if name in SIDES else most
        if abs(value) > most:
            raise ValueError(f"{path} has {name} {value:.10g}, but no model has more than {most:,}. {FIX}")
    return config


def numbers_of(content, name: str = "") -> Iterable[tuple[str, int | float]]:
    """Yields the numbers in JSON content, with the name of the key that they belong to."""
    if isinstance(content, (dict, list)):
        for key, value in content.items() if isinstance(content, dict) else ((name, value) for value in content):
            yield from numbers_of(value, key)
    elif isinstance(content, int) and not isinstance(content, bool):
        yield name, content


def read_index(path: str | os.PathLike) -> set[str]:
    """Returns the names of the weight files that an index lists.

    Raises `ValueError` as `read_json`, for content that is no index, and for files outside of its folder."""
    try:
        names = read_json(path)["weight_map"].values()
        outside = sorted(name for name in names if name in ("", "..") or set(name) & {"/", "\\", "\0"})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).removeprefix(f"{path} ")
        raise ValueError(f"{path} is no valid index of weights: {reason}. Save the model again.") from error
    if outside:
        raise ValueError(f"{path} lists {outside[0]!r}, which is not a file of its folder. {FIX}")
    return set(names)


def check_weights(path: str | os.PathLike) -> None:
    """Raises `ValueError` for a safetensors file that is not regular, damaged or truncated."""
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    try:
        with safe_open(path, "pt") as weights:
            weights.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read: {error}. It is damaged or truncated. {FIX}") from error


def refuse_custom_code(path: str | os.PathLike, error: Exception) -> None:
    """Raises `ValueError` if transformers' error asks for permission to run the code of a folder or repository.

    path: named in the message, with its option where it has one."""
    if "trust_remote_code" in str(error):
        raise ValueError(
            f"{path} needs its own Python code (auto_map), which hf_pretext does not run. Give a model of an "
            "architecture that transformers has."
        ) from error
