"""Compiles the encoders of a model with torch.compile.

--torch_compile -> `forward` of each trained encoder is compiled; heads, corruption and losses are not

Heads and losses see masked positions, drawn negatives and tiles of scores. Their shapes change from step to step, and
they take little of the time.
"""

from types import MethodType

import torch
from accelerate.utils import DynamoBackend, TorchDynamoPlugin

from ..modeling import PretextModel


def compile_encoders(model: PretextModel, plugin: TorchDynamoPlugin) -> None:
    """Compiles the trained encoders of a model in place, with the backend and the other options of `plugin`.

    Does nothing if `plugin` has no backend. Otherwise switches it off, because accelerate would compile the complete
    model, with the loss. Names in the state dict do not change. Call `freeze_unused` before, as a run does: a compiled
    encoder gives unused parameters gradients of 0 instead of none, and weight decay would change them."""
    if plugin.backend == DynamoBackend.NO:
        return
    options = plugin.to_kwargs()
    plugin.backend = DynamoBackend.NO
    for encoder in model.trained_encoders():
        # Not `encoder.compile()`, which also traces hooks of the encoder: it would keep those of the first step.
        encoder.forward = MethodType(torch.compile(type(encoder).forward, **options), encoder)
