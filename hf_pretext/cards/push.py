"""Push of a run to a Hub repository: checks and stages the files, then makes one commit for each revision.

folder -> a staging folder for each revision -> commits -> URL of the last commit
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from transformers.utils import logging

from ..utils.files import write_text
from ..utils.hub import check_repository, check_revision, explained
from . import CARD, REPORT, RESULTS, read_results, render, unfinished
from .metadata import eval_files
from .staging import PICKLES, WEIGHTS, checkpoints_of, stage

log = logging.get_logger(__name__)


def push(
    folder: str | os.PathLike,
    repository: str,
    private: bool | None = None,
    revision: str = "main",
    checkpoints: str = "last",
    training_state: bool = False,
    token: str | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Pushes a finished run: weights, config, processor, card, results and report, in one commit.

    A second push after a broken upload sends only the missing files.

    folder: output folder of a run. repository: user/name; created if it does not exist. private: create it as private.
    revision: branch of the commit. checkpoints: "last" pushes the end of the run; "all" also pushes each checkpoint to
    a branch of its name (`checkpoint-200`). training_state: also push the state that resumes the run: the last
    checkpoint as a folder, or with "all" the state of each checkpoint in its branch. The state contains pickles
    (optimizer, random generators); loading a model never reads them. token: default: the token of `hf auth login`.
    say: called with progress messages.

    Returns the URL of the commit. Raises `ValueError` for files that can't be shared, before any request to the Hub,
    and for requests that the Hub refuses, with the fix; a refused commit changes nothing.
    """
    for _, check in checks(folder, repository, revision, checkpoints):
        check()
    with staged(folder, repository, revision, checkpoints, training_state) as to_push, explained(repository):
        api = HfApi(token=token)
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
        if private and not api.repo_info(repository).private:
            raise ValueError(
                f"{repository} already exists and is public. Make it private in its settings, leave out --private, "
                "or give another name."
            )
        for into, name, message in to_push:
            say(f"{name}: {describe(into)}")
            address = commit(api, repository, into, name, message)
    return address


def checks(
    folder: str | os.PathLike, repository: str, revision: str, checkpoints: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields the checks of a push before its files are staged: what is checked, and a function that raises
    `ValueError`. Arguments as in `push`."""
    yield f"name of the repository: {repository}", lambda: check_repository(repository, with_owner=True)
    yield f"name of the revision: {revision}", lambda: check_revision(revision)
    yield f"checkpoints: {checkpoints}", lambda: check_checkpoints(checkpoints)
    yield f"{RESULTS} and {CARD}", lambda: card_of(Path(folder), repository)


def check_checkpoints(checkpoints: str) -> None:
    """Raises `ValueError` for checkpoints other than "last" and "all"."""
    if checkpoints not in ("last", "all"):
        raise ValueError(f"--checkpoints {checkpoints} is not supported. Give last or all.")


def card_of(folder: Path, repository: str) -> str:
    """Returns the card of a run for a repository. Raises `ValueError` for results that are missing or incomplete."""
    return render(read_results(folder), (folder / REPORT).exists(), repository)


@contextmanager
def staged(
    folder: str | os.PathLike, repository: str, revision: str, checkpoints: str, training_state: bool
) -> Iterator[list[tuple[Path, str, str]]]:
    """Yields the staged revisions, see `revisions`. Their folders are deleted at the end. Arguments as in `push`.

    Raises `ValueError` for files that can't be shared."""
    with tempfile.TemporaryDirectory(prefix=".push-", dir=folder) as temporary:  # same disk: hard links, no copies
        yield list(revisions(Path(folder), repository, revision, checkpoints, training_state, Path(temporary)))


def revisions(
    folder: Path, repository: str, revision: str, checkpoints: str, training_state: bool, temporary: Path
) -> Iterator[tuple[Path, str, str]]:
    """Stages every revision. Yields (staging folder, revision, commit message).

    The end of the run comes last: once it is visible, its checkpoints are too. Raises `ValueError` as `push`."""
    results, card = read_results(folder), card_of(folder, repository)
    if checkpoints == "all":
        for checkpoint in checkpoints_of(folder):
            into = temporary / checkpoint.name
            stage(checkpoint, into, training_state)
            write_text(
                into / CARD,
                unfinished(results["recipe"], results["objective"]["name"], checkpoint.name, results.get("card")),
            )
            yield into, checkpoint.name, f"{results['recipe']}, {checkpoint.name}"
    into = temporary / "end"
    left_out = stage(folder, into)
    if left_out:
        log.warning(f"Not pushed from {folder}: {', '.join(left_out)}")
    if training_state and checkpoints == "last":
        last = checkpoints_of(folder)[-1]
        stage(last, into / last.name, training_state)
    write_text(into / CARD, card)
    for name, text in eval_files(results).items():
        write_text(into / name, text)
    yield into, revision, f"{results['recipe']}: {results['objective']['name']} pretraining"


def commit(api: HfApi, repository: str, into: Path, revision: str, message: str) -> str:
    """Commits a folder on top of the current state of a revision and returns the commit's URL.

    The Hub refuses the commit if somebody else has committed in the meantime."""
    operations = [CommitOperationAdd(path.relative_to(into).as_posix(), str(path)) for path in files_of(into)]
    if revision != "main":
        api.preupload_lfs_files(repository, operations)  # first: a new branch has main's files until the commit
        api.create_branch(repository, branch=revision, exist_ok=True)
    parent = api.repo_info(repository, revision=revision).sha
    names = {operation.path_in_repo for operation in operations}
    existing = api.list_repo_files(repository, revision=parent)
    operations += [CommitOperationDelete(name) for name in existing if is_stale(name, names)]
    done = api.create_commit(repository, operations, commit_message=message, revision=revision, parent_commit=parent)
    return done.commit_url


def is_stale(name: str, pushed: Set[str]) -> bool:
    """Returns True for a file that the push deletes: in the folders that are pushed, weight files that would be loaded
    instead of the new ones, and old results and reports. All other files belong to the owner and stay.

    name: path in the repository; pushed: paths of the pushed files."""
    folder, _, file = name.rpartition("/")
    beside = folder in {other.rpartition("/")[0] for other in pushed}
    weights = file.startswith(("model", "pytorch_model", "pretext")) and file.endswith((*WEIGHTS, *PICKLES))
    return name not in pushed and beside and (weights or file in (RESULTS, REPORT))


def describe(into: Path) -> str:
    """Returns the number of files of a staging folder and their size in MB, in words."""
    files = files_of(into)
    return f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB"


def files_of(into: Path) -> list[Path]:
    """Returns the files below a staging folder, sorted."""
    return sorted(path for path in into.rglob("*") if path.is_file())
