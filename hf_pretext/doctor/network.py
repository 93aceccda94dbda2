"""Checks of the Hub: connection and token.

endpoint, token -> checks
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import Any

from .check import Check, summary

NET_SECONDS = 3  # timeout of a request


def hub() -> Iterator[Check]:
    """Checks that the Hub answers, and the token."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        yield Check(
            "Hub", "fine", f"offline mode (HF_HUB_OFFLINE): {endpoint} was not contacted, only the cache is used"
        )
        yield Check("token", "fine", "not checked in offline mode")
        return
    try:
        status = ask("HEAD", endpoint).status_code
        trouble = f"answers with status {status}" if status >= 500 or status == 407 else ""  # 407: of a proxy
    except Exception as error:
        trouble = f"can't be reached: {summary(error)}"
    if trouble:
        fix = "Check HF_ENDPOINT and the proxy (HTTPS_PROXY), or work offline: export HF_HUB_OFFLINE=1"
        yield Check("Hub", "lacking", f"{endpoint} {trouble}", fix)
    else:
        yield Check("Hub", "fine", f"{endpoint} answers")
    yield account(reached=not trouble)


def account(reached: bool) -> Check:
    """Returns the check of the token. reached: True if the Hub answers.

    Reports only the class of an error, since its message might contain the token."""
    from huggingface_hub import constants, get_token

    fix = "hf auth login --force"
    if os.environ.get("HF_TOKEN"):
        fix += ", or set another HF_TOKEN, which has priority"
    try:
        token = within(get_token)
        if not token:
            return Check("token", "lacking", "no token: no push, and public repositories only", "hf auth login")
        if not reached:
            return Check("token", "fine", "a token is set; not checked, since the Hub was not reached")
        answer = ask("GET", f"{constants.ENDPOINT}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code in (401, 403):
            return Check("token", "lacking", "a token is set, but the Hub does not accept it", fix)
        if answer.status_code != 200:
            detail = f"a token is set, but the Hub answered with status {answer.status_code}"
            return Check("token", "lacking", detail, fix)
        user = answer.json()
        role = user.get("auth", {}).get("accessToken", {}).get("role")
        return Check("token", "fine", f"user {user['name']}" + (f", role {role}" if role else ""))
    except Exception as error:
        return Check("token", "lacking", f"the token could not be checked ({type(error).__name__})", fix)


def ask(method: str, address: str, **options) -> Any:
    """Returns the response to a request through the session of huggingface_hub, which uses its proxies.

    Raises the errors of the session, and `TimeoutError`."""
    from huggingface_hub.utils import get_session

    return within(lambda: get_session().request(method, address, timeout=NET_SECONDS, **options))


def within(call: Callable[[], Any]) -> Any:
    """Returns what a call returns, or raises its error. Raises `TimeoutError` if it takes too long: a DNS lookup has no
    timeout."""
    future = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()  # a daemon does not delay the end of the process
    return future.result(NET_SECONDS + 1)
