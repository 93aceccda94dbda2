"""Which process wrote a file, and whether it still runs: by its id on this machine, by the file's age on others."""

import hashlib
import os
import platform
import re
import secrets
from pathlib import Path

import psutil

TEMPORARY = re.compile(r"\.(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{8}\.tmp\..+")
FORGOTTEN = 24 * 3600  # seconds without a change after which a temporary file of a different machine is a leftover
NAMESPACE = "/proc/self/ns/pid"  # containers of one host name may have process ids of their own


def host() -> str:
    """Returns the name of this machine, with its namespace of process ids where the system has them."""
    try:
        return f"{platform.node()} {os.readlink(NAMESPACE)}"
    except OSError:  # not on Linux
        return platform.node()


def host_digest() -> str:
    """Returns a hash of `host()`, 8 hexadecimal digits, for file names."""
    return hashlib.blake2b(host().encode(), digest_size=4).hexdigest()


def runs_here(pid: int) -> bool:
    """Returns True if this machine has a process of this id that has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # of a different user
        return True


def began_after(pid: int, seconds: float) -> bool:
    """Returns True if the process of an id on this machine began after a time, so that its id was used before.

    seconds: since the epoch, as `time.time()`."""
    try:
        return psutil.Process(pid).create_time() > seconds
    except psutil.Error:
        return False


def temporary_name(name: str) -> str:
    """Returns a temporary name for a file or folder: hidden, unique, with the process that made it."""
    return f".{os.getpid()}-{host_digest()}-{secrets.token_hex(4)}.tmp.{name}"


def is_leftover(path: Path, now: float) -> bool:
    """Returns True for a temporary file or folder of `atomic_path` whose process has ended.

    now: present time in seconds since the epoch."""
    name = TEMPORARY.fullmatch(path.name)
    if name is None:
        return False
    if name["host"] == host_digest():
        return not runs_here(int(name["pid"]))
    try:
        changed = max(file.stat().st_mtime for file in (path, *path.rglob("*")))
    except OSError:  # its process still works on it
        return False
    return now - changed > FORGOTTEN
