"""Random changes of the content of files."""

import random


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Returns content with a few bytes changed, removed or added, and sometimes cut."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(content))
        act = rng.randrange(4)
        if act == 0:
            content[at] = rng.randrange(256)
        elif act == 1:
            del content[at : at + rng.randint(1, 30)]
        elif act == 2:
            content[at:at] = rng.randbytes(rng.randint(1, 10))
        else:
            content[at:at] = rng.choice([b'"', b"\n", b"\r", b"\x00", b"{", b"[", b"\\", b"\xff", b","])
        if not content:
            break
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.2 else content)
