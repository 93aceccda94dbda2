"""The Hub as it is asked here: what lies there is brought, and what it refuses is explained.

folder or user/name -> a folder of this machine
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


def brought(
    source: str | os.PathLike, revision: str | None, names: Sequence[str], folders: Sequence[str] = ()
) -> Path:
    """Where a folder or repository lies here, of a repository only the files of these names (with * for any letters)
    that lie in no folder, or in one of `folders`. Raises `ValueError` for what is neither, and where the Hub refuses,
    or has no such revision.
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
            raise ValueError(f"{source} is no folder, nor in the cache, and the Hub is not reached: {why}") from error


def check_revision(name: str) -> None:
    """Raises `ValueError` for what can't be the name of a branch."""
    if not re.fullmatch(r"\w[\w./-]*", name) or ".." in name or name.endswith(("/", ".", ".lock")):
        raise ValueError(f"--revision {name!r} is no name of a branch: letters, digits and . _ - / in it, as in v1.0.")


def full_name(repository: str, token: str | None = None) -> str:
    """A repository's name with its user: whose the token is, where none is given. Raises `ValueError` where the Hub
    does not tell."""
    if "/" in repository:
        return repository
    with explained(repository):
        return f"{HfApi(token=token).whoami()['name']}/{repository}"


def check_repository(repository: str, with_owner: bool = False) -> None:
    """Raises `ValueError` for what is no name of a repository; with_owner: also for one without a user."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is no name of a repository, as user/my-encoder is: {error}") from error
    if with_owner and "/" not in repository:
        raise ValueError(f"{repository!r} lacks its user or organisation: give user/{repository}.")


@contextmanager
def explained(repository: str) -> Iterator[None]:
    """What the Hub refuses, as a `ValueError` with the mend. It never says a token."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{repository}: offline mode (HF_HUB_OFFLINE) is on. Unset it to reach the Hub.") from error
    except GatedRepoError as error:  # which is one of the next kind, too
        raise ValueError(f"{repository} is gated: ask for access on its page, then try again.") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"There is no {repository} on the Hub that you may see: is the name right, and `hf auth whoami` you?"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{repository} has no such revision.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise ValueError(f"{repository}: {MENDS.get(status, server_message_of(error))}") from error
    except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:  # RuntimeError: of a file's upload
        broke = error.__cause__ or error
        raise ValueError(f"{repository}: the connection broke ({type(broke).__name__}). {RETRY}") from error


RETRY = "Run the same command again: it sends only what is missing."
MENDS = {  # by the status of the Hub's answer
    401: "the Hub does not know the token, or there is none. Log in: `hf auth login`.",
    403: "the token may not write there. Make one with the role `write` in the Hub's settings, then `hf auth login`.",
    409: "the repository is being changed by somebody else. Run the same command again.",
    412: "somebody else has committed meanwhile. Look at what they did, then run the same command again.",
    429: f"the Hub asks for patience. Wait a while. {RETRY}",
    **dict.fromkeys((500, 502, 503, 504), f"the Hub is not well. Wait a while. {RETRY}"),
}


def server_message_of(error: HfHubHTTPError) -> str:
    """The Hub's own words, which may quote a token back."""
    return safe((error.server_message or str(error).partition("\n")[0]).strip(), known_tokens())
