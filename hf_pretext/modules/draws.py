"""Arguments of random draws on the device of a batch."""

import torch


def drawn_by(generator: torch.Generator | None) -> dict[str, torch.Generator]:
    """Returns the argument `generator` of a random draw, for example `torch.rand(2, **drawn_by(generator))`.

    Without a generator it is left out: torch.compile refuses `generator=None` for shapes that are not constant."""
    return {} if generator is None else {"generator": generator}
