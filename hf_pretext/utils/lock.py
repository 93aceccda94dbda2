"""A lock on a folder, so that only one run writes there: a file with the host and id of the process that holds it.

folder -> run.lock: {"host", "pid", "time"}, touched every `BEAT` seconds -> removed at the end
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transformers.utils import logging

from .files import write_json
from .processes import began_after, host, runs_here

LOCK, STARTING = "run.lock", "run.lock.starting"
BEAT = 20  # seconds between two signs of life
SILENT = 180  # seconds without a sign of life after which a process on a different machine counts as ended
PATIENCE = 10  # seconds to wait for another process that examines the lock at the same moment
log = logging.get_logger(__name__)


class FolderLock:
    """The lock of one folder.

    The lock is examined and written while `run.lock.starting` exists, which only one process can create (`O_EXCL`).
    So of several processes that find the lock of an ended process, one takes it over.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.path = self.folder / LOCK
        self._content: dict | None = None  # while this process holds the lock
        self._made: list[Path] = []  # folders that did not exist before, the innermost first
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Takes the lock, and creates the folder. Takes over the lock of a process that has ended, with a warning.

        Raises `ValueError` if a running process holds it, and if the folder can't be written to."""
        with self._removed_if_refused(), self._starting() as now:
            owner = self._owner()
            if owner is not None:
                age = now - self.path.stat().st_mtime
                if not has_ended(owner, age):
                    raise ValueError(
                        f"--output_dir {self.folder} is in use: process {owner['pid']} on {owner['host'].split()[0]} "
                        f"writes to it (last sign of life {age:.0f} s ago). Wait for its end, stop it, or give "
                        f"another folder. If it does not run any more, delete {self.path}."
                    )
                log.warning(
                    f"{self.folder} was locked by process {owner['pid']} on {owner['host'].split()[0]}, which has "
                    "ended without removing its lock. This run takes it over."
                )
            content = {"host": host(), "pid": os.getpid(), "time": time.time(), "token": secrets.token_hex(8)}
            write_json(self.path, content)
            self._content = content
        threading.Thread(target=self._beat, name="lock", daemon=True).start()

    def release(self) -> None:
        """Removes the lock, and folders that `acquire` created and that are still empty."""
        self._ended.set()
        with suppress(OSError):
            if self._owner() == self._content:
                self.path.unlink()
        self._remove_made()

    @contextmanager
    def _starting(self) -> Iterator[float]:
        """Keeps other processes from examining the lock. Yields the present time of the file system, in seconds."""
        guard, deadline = self.folder / STARTING, time.monotonic() + PATIENCE
        try:
            self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    break
                except FileExistsError as error:
                    if time.monotonic() > deadline:
                        raise ValueError(
                            f"{guard} exists since more than {PATIENCE} s: a process ended while it examined the lock "
                            "of the folder. Delete the file."
                        ) from error
                    time.sleep(0.02)
        except OSError as error:
            reason = f"can't be written to: {error.strerror}"
            raise ValueError(f"--output_dir {self.folder} {reason}. Give another folder.") from error
        try:
            yield guard.stat().st_mtime  # clocks of machines differ, the file system has one
        finally:
            guard.unlink(missing_ok=True)

    @contextmanager
    def _removed_if_refused(self) -> Iterator[None]:
        """Removes the created folders after an error."""
        try:
            yield
        except BaseException:
            self._remove_made()
            raise

    def _remove_made(self) -> None:
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # not empty
                return

    def _owner(self) -> dict | None:
        """Returns the content of the lock; None if it does not exist or is no lock."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):
                if self._owner() != self._content:
                    if not self._ended.is_set():
                        log.warning(
                            f"{self.path} was removed or taken over while this run writes to the folder. Stop the "
                            "other run, or this one: they overwrite each other."
                        )
                    return
                os.utime(self.path)


def has_ended(owner: dict, age: float) -> bool:
    """Returns True if the process that wrote a lock has ended.

    owner: content of the lock. age: seconds since its last sign of life. On this machine, its process must exist. A
    younger process of the same id does not count. On a different machine, the sign of life must not be too old."""
    if owner["host"] != host():
        return age > SILENT
    if owner["pid"] == os.getpid():  # of an earlier process: a restarted container reuses its ids
        return True
    return not runs_here(owner["pid"]) or (age > SILENT and began_after(owner["pid"], owner["time"]))
