"""Lists the files that a URL, a glob of URLs, a remote folder or a list of files stands for (fsspec).

"s3://bucket/*.parquet", "https://host/folder/", "hf://datasets/user/name", "@list.txt" -> URLs and paths
"""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import fsspec
from fsspec.registry import known_implementations

from ..utils.paths import without_query
from .ranges import HTTP, is_remote
from .remote import patiently

HUB_FOLDER = re.compile(r"(hf://datasets/[^/@]+/[^/@]+)(@refs/[^/]+/[^/]+|@[^/]+)?(/.*)?")


def is_url(dataset: str) -> bool:
    """Returns True for a URL and for "@" with the path or URL of a list of files."""
    return is_remote(dataset) or dataset.startswith("@")


def listed(dataset: str, suffixes: Iterable[str]) -> dict[str, PurePosixPath | None]:
    """Returns the files of a URL or list, `{file: path below the folder}`; the path is None if no folder was given.

    A URL is a file if it ends with one of `suffixes`, else a folder, unless it is a glob. "@" and a path or URL names a
    file of one path, URL or glob a line, with comments after "#"; paths are relative to its folder. Raises `ValueError`
    for a protocol whose package is missing, a list that can't be read, and a URL without files."""
    if dataset.startswith("@"):
        if not (lines := lines_of(dataset[1:])):
            raise ValueError(f"{without_query(dataset[1:])} names no file. Give a path, URL or glob a line.")
        return {file: None for line in lines for file in listed(line, suffixes)}
    if not is_remote(dataset):
        if not (files := sorted(glob.glob(dataset, recursive=True))):
            raise ValueError(f"{dataset}: no such file.")
        return dict.fromkeys(files)
    try:
        dataset = with_commit(dataset)
        system, path = fsspec.core.url_to_fs(dataset)
        last = without_query(dataset).rpartition("/")[2].lower()
        is_glob = "*" in path
        if is_glob:
            files = patiently(lambda: system.glob(path), remote=True)
        elif any(f"{suffix}." in f"{last}." for suffix in suffixes):
            return {dataset: None}
        else:
            files = patiently(lambda: system.find(path), remote=True)
    except ImportError as error:
        protocol = dataset.partition("://")[0]
        package = known_implementations.get(protocol, {}).get("class", protocol).partition(".")[0]
        raise ValueError(f"{protocol}:// needs the package {package}: pip install {package}. {error}") from error
    urls = sorted(system.unstrip_protocol(file) for file in files if not file.endswith("/"))
    if not urls:
        raise ValueError(
            f"{without_query(dataset)} has no files, or its server does not list them. Name each file, or give "
            "@list.txt, a file of one URL a line."
        )
    if is_glob:
        return dict.fromkeys(urls)
    folder = PurePosixPath(system.unstrip_protocol(path))
    return {url: PurePosixPath(url).relative_to(folder) for url in urls}


def with_commit(url: str) -> str:
    """Returns the URL of files on the Hub with the commit of its branch: they can't change. Others are unchanged."""
    if not (match := HUB_FOLDER.fullmatch(url)):
        return url
    from huggingface_hub import HfApi

    repository, revision, path = match.groups(default="")
    if re.fullmatch("@[0-9a-f]{40}", revision):
        return url
    name = repository.removeprefix("hf://datasets/")
    info = patiently(lambda: HfApi().dataset_info(name, revision=revision[1:] or None, expand=["sha"]), remote=True)
    return f"{repository}@{info.sha}{path}"


def lines_of(file: str) -> list[str]:
    """Returns the paths and URLs of a list of files."""

    def read() -> str:
        with fsspec.open(file, "rt", encoding="utf-8-sig") as opened:
            return opened.read()

    lines = [line.partition(" #")[0].strip() for line in patiently(read, is_remote(file)).splitlines()]
    folder = (file.partition("?")[0] if file.startswith(HTTP) else file).rpartition("/")[0]
    return [
        line if is_remote(line) or os.path.isabs(line) or not folder else f"{folder}/{line}"
        for line in lines
        if line and not line.startswith("#")
    ]
