"""A plain transformers encoder from a config, a folder or a Hub id.

config -> a fresh encoder; path -> its config
"""

import copy
import os

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

WEIGHTS = (".safetensors", ".bin")  # what files of weights end in
EXAMPLES = {"image": "a ViT or a ResNet", "text": "a BERT or a ModernBERT", "image_text": "a CLIP or a SigLIP"}


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A fresh encoder with its library's own initialisation, in float32 whatever a checkpoint of it was kept in."""
    encoder = AutoModel.from_config(copy.deepcopy(config), dtype=torch.float32)
    for module in encoder.modules():
        if hasattr(module, "timm_model"):
            # transformers' wrapper draws timm's convolutions and linear layers again, with one width for all of them
            import timm

            own = module.config
            fresh = timm.create_model(own.architecture, pretrained=False, num_classes=0, **(own.model_args or {}))
            module.timm_model.load_state_dict(fresh.state_dict())
    return encoder


def check_encoder(encoder: PreTrainedModel, modality: str) -> None:
    """Raises `ValueError` unless `encoder` is what `AutoModel` gives for its config, and of this modality."""
    if not isinstance(encoder, PreTrainedModel):
        raise ValueError(
            f"The encoder must be a transformers model or config, not {type(encoder).__name__}. A timm model comes as "
            "AutoConfig.for_model('timm_wrapper', architecture='resnet18')."
        )
    native = MODEL_MAPPING.get(type(encoder.config), None)
    native = native if isinstance(native, (tuple, list)) else (native,)
    if type(encoder) not in native:
        raise ValueError(
            f"The encoder must be a class that AutoModel gives, without a head, but is {type(encoder).__name__}. "
            "Give its `.base_model`."
        )
    modalities = encoder.input_modalities
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    if modalities != (modality,):
        raise ValueError(
            f"This objective needs an encoder of one modality, {modality}, but {type(encoder).__name__} "
            f"({encoder.config.model_type}) takes {' and '.join(modalities)}."
        )


def is_shape_alone(path: str) -> bool:
    """Whether this is a folder with a config.json but no weights, which gives a fresh encoder of that shape."""
    return os.path.isdir(path) and not any(name.endswith(WEIGHTS) for name in os.listdir(path))


def encoder_config(path: str, modality: str, option: str = "--encoder") -> PreTrainedConfig:
    """The config of what an option names. Raises `ValueError` for what is no encoder, or of another modality."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{option} {path} is neither a folder with a config.json nor a Hub model that can be reached. {error}"
        ) from error
    native = MODEL_MAPPING.get(type(config), None)
    native = native[0] if isinstance(native, (tuple, list)) else native
    takes = getattr(native, "input_modalities", None)
    takes = (takes,) if isinstance(takes, str) else tuple(takes or ())
    wanted = modality.split("_")
    if set(takes) != set(wanted):
        raise ValueError(
            f"{option} {path} is a {config.model_type} model, which takes {' and '.join(takes)}, but one for "
            f"{' and '.join(f'{kind}s' for kind in wanted)} is needed, as {EXAMPLES[modality]}."
        )
    return config
