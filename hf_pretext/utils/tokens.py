"""Removes secrets from texts: tokens, and passwords in addresses."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress

HIDDEN = "***"


def known_tokens() -> list[str]:
    """Returns the Hub tokens of the environment and the login, which must not be shown."""
    tokens = [os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")]
    with suppress(Exception):  # `hf-pretext doctor` also runs without huggingface_hub
        from huggingface_hub import get_token

        tokens.append(get_token())
    return [token.strip() for token in tokens if token and token.strip()]


def safe(text: str, secrets: Sequence[str]) -> str:
    """Returns a text without tokens, passwords in addresses and control characters. secrets: texts to remove."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = re.sub(r"\bhf_\w{8,}", HIDDEN, text)
    text = re.sub(r"://[^/\s]*@", f"://{HIDDEN}@", text)
    return "".join(letter if letter.isprintable() else " " for letter in text)
