"""Access to the Hub: downloads repositories, and converts errors of the Hub to messages with a fix.

folder or user/name -> local folder
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .tokens import known_tokens, safe


def brought(source: str | os.PathLike, revision: str | None, names: Sequence[str], folders: Sequence[str] = ()) -> Path:
    """Returns the local folder of a source. Downloads a repository of the Hub to the cache.

    source: folder or Hub id. names: patterns of the files to download, with `*` for any characters. folders: downloads
    these files from the top level and from these folders. Raises `ValueError` if the source is neither a folder nor a
    repository, has no such revision, or the Hub refuses the request.
    """
    if os.path.isdir(source):
        return Path(source)
    check_repository(str(source))
    with explained(str(source)):
        try:
            options = {"repo_id": str(source), "revision": revision}
            inside = [f"{folder}/{name}" for folder in folders for name in names]
            if inside:
                snapshot_download(**options, allow_patterns=inside, ignore_patterns="*/*/*")
            return Path(snapshot_download(**options, allow_patterns=names, ignore_patterns="*/*"))
        except LocalEntryNotFoundError as error:
            why = str(error).partition("\n")[0]
            raise ValueError(
                f"{source} is not a folder, not in the cache, and the Hub can't be reached: {why}"
            ) from error


def check_revision(name: str) -> None:
    """Raises `ValueError` if a name is not valid for a branch."""
    if not re.fullmatch(r"\w[\w./-]*", name) or ".." in name or name.endswith(("/", ".", ".lock")):
        raise ValueError(f"--revision {name!r} is not a branch name. Use letters, digits and . _ - /, as in v1.0.")


def full_name(repository: str, token: str | None = None) -> str:
    """Returns the name of a repository with its owner: the user of the token if the name has none.

    Raises `ValueError` if the Hub refuses the token."""
    if "/" in repository:
        return repository
    with explained(repository):
        return f"{HfApi(token=token).whoami()['name']}/{repository}"


def check_repository(repository: str, with_owner: bool = False) -> None:
    """Raises `ValueError` if a name is not valid for a repository. with_owner: also if it has no owner."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(
            f"{repository!r} is not a valid repository name: {error} Give a name like user/my-encoder."
        ) from error
    if with_owner and "/" not in repository:
        raise ValueError(f"{repository!r} has no user or organisation. Give user/{repository}.")


@contextmanager
def explained(repository: str) -> Iterator[None]:
    """Converts errors of the Hub to a `ValueError` with a fix. The message never contains a token."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError(
            f"{repository}: offline mode (HF_HUB_OFFLINE) is on. Unset HF_HUB_OFFLINE to use the Hub."
        ) from error
    except GatedRepoError as error:  # before RepositoryNotFoundError, its base class
        raise ValueError(f"{repository} is gated. Request access on its page, then try again.") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"The Hub has no repository {repository}, or you have no access to it. Check the name, and your account "
            "with `hf auth whoami`."
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{repository} does not have this revision. Check the name of the revision.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise ValueError(f"{repository}: {MENDS.get(status, server_message_of(error))}") from error
    except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:  # uploads raise RuntimeError
        cause = error.__cause__ or error
        raise ValueError(f"{repository}: the connection failed ({type(cause).__name__}). {RETRY}") from error


RETRY = "Run the same command again. It only sends missing files."
MENDS = {  # problem and fix by HTTP status
    401: "the Hub does not accept the token, or no token is set. Log in: `hf auth login`.",
    403: "the token has no write access. Create a token with the role `write` in the Hub's settings, then run "
    "`hf auth login`.",
    409: "another user or process is changing the repository. Run the same command again.",
    412: "another user or process has committed to the repository. Check that commit, then run the same command again.",
    429: f"too many requests to the Hub. Wait a few minutes. {RETRY}",
    **dict.fromkeys((500, 502, 503, 504), f"the Hub has a server error. Wait a few minutes. {RETRY}"),
}


def server_message_of(error: HfHubHTTPError) -> str:
    """Returns the Hub's error message without tokens, which it may contain."""
    return safe((error.server_message or str(error).partition("\n")[0]).strip(), known_tokens())
