"""A run to a Hub repository: checked and staged first, then one commit, or none.

folder -> a staging folder for each revision -> commits -> the address of the last
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Future
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from transformers.utils import logging
from transformers.utils.hub import hf_api

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
    """Publishes a finished run: weights, config, processor, card, results and report, in one commit.

    What a broken upload has brought is not sent again. checkpoints: "last" for the run's end alone, or "all" for each
    checkpoint as a revision by its name (`checkpoint-200`), too. training_state: with the last checkpoint as a folder
    (with "all": in each revision), the optimizer's and the random generators' pickles included, which loading a model
    never reads, to go on with the run elsewhere. token: by itself that of `hf auth login`. say: is told what happens.

    Returns the address of the commit. Raises `ValueError` for what can't be shared, before the Hub is asked anything;
    and for what the Hub refuses, with the mend: that commit is not made then.
    """
    check_repository(repository, whole=True)
    check_revision(revision)
    results = read_results(folder)
    with tempfile.TemporaryDirectory(prefix=".push-", dir=folder) as temporary:  # on its disk, files are linked
        staged = list(
            revisions(Path(folder), results, repository, revision, checkpoints, training_state, Path(temporary))
        )
        with explained(repository):
            api = HfApi(token=token)
            repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
            if private and not api.repo_info(repository).private:
                raise ValueError(
                    f"{repository} is there already, and everybody may read it. Make it private in its settings, leave "
                    "out --private, or give another name."
                )
            for into, name, message in staged:
                say(f"{name}: {told(into)}")
                address = commit(api, repository, into, name, message)
    return address


def revisions(
    folder: Path, results: dict, repository: str, revision: str, checkpoints: str, training_state: bool, temporary: Path
) -> Iterator[tuple[Path, str, str]]:
    """Staging folders, the revisions they are for, and what their commits are called; the run's end last, so that who
    sees it finds its checkpoints there. Raises `ValueError` as `push`."""
    card = render(results, (folder / REPORT).exists(), repository)  # which looks at all of them
    if checkpoints not in ("last", "all"):
        raise ValueError(f"--checkpoints {checkpoints}: last or all.")
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
        log.warning(f"Not shared of {folder}: {', '.join(left_out)}")
    if training_state and checkpoints == "last":
        last = checkpoints_of(folder)[-1]
        stage(last, into / last.name, training_state)
    write_text(into / CARD, card)
    for name, text in eval_files(results).items():
        write_text(into / name, text)
    yield into, revision, f"{results['recipe']}: {results['objective']['name']} pretraining"


def push_meanwhile(
    checkpoint: str | os.PathLike, repository: str, message: str, card: str, beside: str | None, **options
) -> Future:
    """Publishes a checkpoint of a training that goes on, in the background: encoder and card, and where `beside` names
    a folder all of the checkpoint there, to go on with. options: `revision` and `token`. What fails is a warning."""
    temporary = tempfile.TemporaryDirectory()
    into, checkpoint = Path(temporary.name), Path(checkpoint)
    ready = False
    try:
        stage(checkpoint, into)
        write_text(into / CARD, card)
        if beside:
            stage(checkpoint, into / beside, training_state=True)
        ready = True
    except Exception as error:
        log.warning(f"{checkpoint} is not published: {error} Training goes on.")

    def run() -> None:
        with temporary:
            try:
                with explained(repository):
                    if ready:
                        api = HfApi(token=options.get("token"))
                        commit(api, repository, into, options.get("revision") or "main", message)
            except Exception as error:
                log.warning(f"{error} Training goes on.")

    return hf_api().run_as_future(run)  # one after the other: each commit goes on top of the last


def commit(api: HfApi, repository: str, into: Path, revision: str, message: str) -> str:
    """One commit of a folder on top of what the revision holds now; none where somebody else commits meanwhile."""
    files = sorted(path for path in into.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(path.relative_to(into).as_posix(), str(path)) for path in files]
    if revision != "main":
        api.preupload_lfs_files(repository, operations)  # first: a new branch holds what main holds until it is done
        api.create_branch(repository, branch=revision, exist_ok=True)
    parent = api.repo_info(repository, revision=revision).sha
    names = {operation.path_in_repo for operation in operations}
    there = api.list_repo_files(repository, revision=parent)
    operations += [CommitOperationDelete(name) for name in there if is_stale(name, names)]
    done = api.create_commit(repository, operations, commit_message=message, revision=revision, parent_commit=parent)
    return done.commit_url


def is_stale(name: str, pushed: Set[str]) -> bool:
    """Whether a file of the repository would be in the way of what is pushed: weights that are loaded in place of the
    new ones, what was measured of another state. What else lies there is its owner's."""
    folder, _, file = name.rpartition("/")
    beside = folder in {other.rpartition("/")[0] for other in pushed}
    weights = file.startswith(("model", "pytorch_model", "pretext")) and file.endswith((*WEIGHTS, *PICKLES))
    return name not in pushed and beside and (weights or file in (RESULTS, REPORT))


def told(into: Path) -> str:
    """What lies in a staging folder, in words."""
    files = [path for path in into.rglob("*") if path.is_file()]
    return f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB"
