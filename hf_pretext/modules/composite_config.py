"""The config of a composite, apart from its model: `AutoConfig` knows it as soon as hf_pretext is imported.

Importing transformers' models takes seconds, so `import hf_pretext` does not. The config is registered when
`AutoConfig` is imported, the model when the first config of a composite is made.
"""

from importlib import import_module
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


@strict
class CompositeConfig(PreTrainedConfig):
    """The config of a `CompositeModel`.

    encoders: the config of each encoder, by kind of data, as its config.json has it.
    """

    model_type = "hf_pretext_composite"

    encoders: dict[str, dict[str, Any]] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        import_module(".composite", __package__)  # registers the model; at the top of this file it would be a cycle


AutoConfig.register(CompositeConfig.model_type, CompositeConfig, exist_ok=True)
