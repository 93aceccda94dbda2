"""Checks the columns of a batch against the arguments of a model's `forward`.

class of a model, {"pixel_values": ..., "labels": ...} -> nothing, or `ValueError` with the fix
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

LABELS = (
    " A pretext task makes its labels itself. To train with labels, save the model and load its folder with a class of "
    "transformers, e.g. AutoModelForImageClassification."
)


@cache
def known_columns(model: type) -> frozenset[str] | None:
    """Returns the names of the columns that the `forward` of a model takes; None for any."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters) - {"self"}


def check_columns(model: type, batch: Mapping[str, Any]) -> None:
    """Raises `ValueError` for columns that a model does not take, e.g. labels of the data."""
    known = known_columns(model)
    unknown = [] if known is None else [name for name in batch if name not in known]
    if unknown:
        raise ValueError(
            f"{model.__name__} takes {', '.join(sorted(known))}, not {', '.join(unknown)}. Leave it out."
            + LABELS * ("labels" in unknown)
        )
