"""Self-supervised and multimodal pretraining with transformers: one trainer, one data stream and one evaluation for
all objectives.

The public names are imported at their first use (PEP 562), so `import hf_pretext` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import registry
from .utils.after_import import after_import

__version__ = "0.1.0"

_HOMES = {
    "PretextModel": "modeling",
    "PretextOutput": "modeling",
    "load": "modeling",
    "CompositeModel": "modules.composite",
    "PretextTrainer": "trainer",
    "Recipe": "recipe",
    "pretrain": "recipe",
    "Inputs": "modalities",
    "Image": "modalities.image",
    "Augmentation": "modalities.image",
    "Text": "modalities.text",
    "Audio": "modalities.audio",
    "Video": "modalities.video",
    "open_source": "data.sources",
    "evaluate": "evaluation.standalone",
    "extract": "features",
    "pool": "features",
}
_OBJECTIVE_SUFFIX = "ForPreTraining"

if TYPE_CHECKING:
    from .data.sources import open_source as open_source
    from .evaluation.standalone import evaluate as evaluate
    from .features import extract as extract
    from .features import pool as pool
    from .modalities import Inputs as Inputs
    from .modalities.audio import Audio as Audio
    from .modalities.image import Augmentation as Augmentation
    from .modalities.image import Image as Image
    from .modalities.text import Text as Text
    from .modalities.video import Video as Video
    from .modeling import PretextModel as PretextModel
    from .modeling import PretextOutput as PretextOutput
    from .modeling import load as load
    from .modules.composite import CompositeModel as CompositeModel
    from .recipe import Recipe as Recipe
    from .recipe import pretrain as pretrain
    from .trainer import PretextTrainer as PretextTrainer


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name.endswith(_OBJECTIVE_SUFFIX):  # each objective is one file: RotationForPreTraining is in rotation.py
        stem = name.removesuffix(_OBJECTIVE_SUFFIX).lower()
        for objective in registry.names(registry.OBJECTIVES):
            if objective.replace("_", "") == stem:
                return getattr(registry.find(registry.OBJECTIVES, objective), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOMES])


# registers CompositeModel with AutoConfig and AutoModel, in either order of importing the two packages
after_import(
    "transformers.models.auto.configuration_auto", lambda: import_module(".modules.composite_config", __name__)
)
