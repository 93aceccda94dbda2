"""The config of a `CompositeModel`. Its module is separate, so that `AutoConfig` can load it at low cost.

Importing transformers' models takes seconds, so `import hf_pretext` does not import them. The config is registered when
`AutoConfig` is imported, the model when the first `CompositeConfig` is created.
"""

from importlib import import_module
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


@strict
class CompositeConfig(PreTrainedConfig):
    """Config of a `CompositeModel`.

    encoders: the config of each encoder, by kind of data, with the content of its config.json.
    """

    model_type = "hf_pretext_composite"

    encoders: dict[str, dict[str, Any]] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        import_module(".composite", __package__)  # registers the model; a cyclic import at the top of this file


AutoConfig.register(CompositeConfig.model_type, CompositeConfig, exist_ok=True)
