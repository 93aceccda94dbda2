"""Compiles the encoders of a model with torch.compile.

--torch_compile -> `forward` of each trained encoder is compiled; heads, corruption and losses are not

Heads and losses see masked positions, drawn negatives and tiles of scores. Their shapes change from step to step, and
they take little of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from accelerate.utils import DynamoBackend, TorchDynamoPlugin

from ..modeling import PretextModel


def compile_encoders(model: PretextModel, plugin: TorchDynamoPlugin) -> None:
    """Compiles the trained encoders of a model in place, with the backend and the other options of `plugin`.

    Does nothing if `plugin` has no backend. Names in the state dict do not change. Call `freeze_unused` before, as a
    run does: a compiled encoder gives unused parameters gradients of 0 instead of none, and weight decay would change
    them."""
    if plugin.backend == DynamoBackend.NO:
        return
    options = plugin.to_kwargs()
    for encoder in model.trained_encoders():
        # Not `encoder.compile()`, which also traces hooks of the encoder: it would keep those of the first step.
        encoder.forward = MethodType(torch.compile(type(encoder).forward, **options), encoder)


@contextmanager
def encoders_only(plugin: TorchDynamoPlugin) -> Iterator[None]:
    """Keeps accelerate from compiling the complete model, with the loss, while the context lasts.

    `plugin` belongs to the process, so its backend returns at the end: the next seed compiles its encoders too."""
    backend, plugin.backend = plugin.backend, DynamoBackend.NO
    try:
        yield
    finally:
        plugin.backend = backend
