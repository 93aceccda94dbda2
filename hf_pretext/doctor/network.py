"""The Hub: whether it answers, whom it takes us for.

endpoint, token -> checks
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import Any

from .check import Check, summary

NET_SECONDS = 3


def hub() -> Iterator[Check]:
    """Whether the Hub answers, and whom it takes us for."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        yield Check(
            "Hub", "fine", f"offline mode (HF_HUB_OFFLINE): {endpoint} is not asked, only what is cached is read"
        )
        yield Check("token", "fine", "not asked for in offline mode")
        return
    try:
        status = ask("HEAD", endpoint).status_code
        trouble = f"answers with status {status}" if status >= 500 or status == 407 else ""  # 407 is a proxy's
    except Exception as error:
        trouble = f"can't be reached: {summary(error)}"
    if trouble:
        mend = "Check HF_ENDPOINT and the proxy (HTTPS_PROXY), or work offline: export HF_HUB_OFFLINE=1"
        yield Check("Hub", "lacking", f"{endpoint} {trouble}", mend)
    else:
        yield Check("Hub", "fine", f"{endpoint} answers")
    yield account(reached=not trouble)


def account(reached: bool) -> Check:
    """The check of the token. Of what fails it tells the kind alone: the text might quote the token."""
    from huggingface_hub import constants, get_token

    mend = "hf auth login --force" + (", or another HF_TOKEN, which goes first" if os.environ.get("HF_TOKEN") else "")
    try:
        token = within(get_token)
        if not token:
            return Check("token", "lacking", "none: no push, and only what is public", "hf auth login")
        if not reached:
            return Check("token", "fine", "there is one; the Hub was not asked whose")
        answer = ask("GET", f"{constants.ENDPOINT}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code in (401, 403):
            return Check("token", "lacking", "there is one, but the Hub does not know it", mend)
        if answer.status_code != 200:
            return Check("token", "lacking", f"there is one; asked whose, the Hub answers {answer.status_code}", mend)
        user = answer.json()
        role = user.get("auth", {}).get("accessToken", {}).get("role")
        return Check("token", "fine", f"of {user['name']}" + (f", role {role}" if role else ""))
    except Exception as error:
        return Check("token", "lacking", f"the Hub could not be asked whose it is ({type(error).__name__})", mend)


def ask(method: str, address: str, **options) -> Any:
    """The response to a request through the session of huggingface_hub, so with its proxies. Raises what that raises,
    and `TimeoutError`."""
    from huggingface_hub.utils import get_session

    return within(lambda: get_session().request(method, address, timeout=NET_SECONDS, **options))


def within(call: Callable[[], Any]) -> Any:
    """What a call returns or raises, or `TimeoutError`: looking up a name knows no limit of its own."""
    future = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()  # it must not hold up the end of the process
    return future.result(NET_SECONDS + 1)
