"""Self-supervised and multimodal pretraining: any pretext task, one loop, one stream, one evaluation.

The names below are imported when first used (PEP 562): `import hf_pretext` itself costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "PretextModel": "modeling",
    "PretextOutput": "modeling",
    "load": "modeling",
    "PretextTrainer": "trainer",
    "Recipe": "recipe",
    "extract": "features",
    "pool": "features",
}
_OBJECTIVE_SUFFIX = "ForPreTraining"

if TYPE_CHECKING:
    from .features import extract as extract
    from .features import pool as pool
    from .modeling import PretextModel as PretextModel
    from .modeling import PretextOutput as PretextOutput
    from .modeling import load as load
    from .objectives.rotation import RotationForPreTraining as RotationForPreTraining
    from .recipe import Recipe as Recipe
    from .trainer import PretextTrainer as PretextTrainer


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name.endswith(_OBJECTIVE_SUFFIX):  # an objective is one file; its name says which
        stem = name.removesuffix(_OBJECTIVE_SUFFIX)
        module = "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(stem))
        try:
            return getattr(import_module(f".objectives.{module}", __name__), name)
        except ModuleNotFoundError:
            pass
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOMES])
