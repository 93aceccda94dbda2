"""A plain transformers encoder from a config, a folder or a Hub id; and whether it takes a kind of data, by trying.

config -> a fresh encoder; path -> its config; encoder + noise of a kind -> last_hidden_state, or `ValueError`
"""

import copy
import os

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .registry import modality_class

WEIGHTS = (".safetensors", ".bin")  # what files of weights end in
TRIED = 2  # examples of noise
TRIED_SIDE = 64  # pixels of an image, where no config names a size
REASON = 160  # letters of an error that are shown


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A fresh encoder with its library's own initialisation, in float32 whatever a checkpoint of it was kept in."""
    encoder = AutoModel.from_config(copy.deepcopy(config), dtype=torch.float32)
    for module in encoder.modules():
        if hasattr(module, "timm_model"):
            # transformers' wrapper draws timm's convolutions and linear layers again, with one width for all of them
            import timm

            wrapped = module.config
            fresh = timm.create_model(
                wrapped.architecture, pretrained=False, num_classes=0, **(wrapped.model_args or {})
            )
            module.timm_model.load_state_dict(fresh.state_dict())
    return encoder


def check_encoder(encoder: PreTrainedModel, kind: str) -> None:
    """Raises `ValueError` unless `encoder` is what `AutoModel` gives for its config, and gives hidden states for noise
    of a kind of data: "image", "text", "audio" or "video"."""
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
    trial = modality_class(kind).trial
    reason = refusal(encoder, trial(encoder))
    if reason is not None and any(p.is_meta for p in encoder.parameters()):  # some can't run without numbers
        real = zeros_like(encoder)
        reason = refusal(real, trial(real))
    if reason is not None:
        raise ValueError(
            f"This objective needs an encoder of the kind {kind}, but {type(encoder).__name__} "
            f"({encoder.config.model_type}) can't take noise of that kind: {reason}"
        )


def takes_kind(encoder: PreTrainedModel, kind: str) -> bool:
    """Whether an encoder gives hidden states for noise of a kind of data."""
    return refusal(encoder, modality_class(kind).trial(encoder)) is None


@torch.no_grad()
def zeros_like(encoder: PreTrainedModel) -> PreTrainedModel:
    """The same on the CPU, with zeros for weights."""
    real = copy.deepcopy(encoder).to_empty(device="cpu")
    for tensor in (*real.parameters(), *real.buffers()):
        tensor.zero_()
    return real


@torch.no_grad()
def refusal(encoder: PreTrainedModel, batches: list[dict[str, Tensor]]) -> str | None:
    """Why an encoder takes none of some batches, in one line, or None where it gives a last hidden state for one. The
    encoder's modes and the global generators stay as they are."""
    modes, reasons = {module: module.training for module in encoder.modules()}, []
    devices = [encoder.device] if encoder.device.type == "cuda" else []
    encoder.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            for batch in batches:
                try:
                    hidden = getattr(encoder(**batch), "last_hidden_state", None)
                except Exception as error:  # each architecture has its own
                    reasons.append(f"{type(error).__name__}: {error}".splitlines()[0][:REASON])
                    continue
                if isinstance(hidden, Tensor) and hidden.ndim > 2 and len(hidden) == TRIED:
                    return None
                reasons.append("it gives no last_hidden_state with a vector for each part of an example.")
    finally:
        for module, training in modes.items():
            module.training = training
    return reasons[0]


def noise(encoder: PreTrainedModel, *shape: int) -> Tensor:
    """Normal noise of a shape, on an encoder's device and in its type of numbers."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values.to(encoder.device, encoder.dtype)


def image_sides(encoder: PreTrainedModel) -> list[tuple[int, int]]:
    """Heights and widths of images that an encoder may be made for."""
    embedding = getattr(getattr(encoder, "timm_model", None), "patch_embed", None)
    names = ("image_size", "crop_size")
    sizes = [getattr(embedding, "img_size", None), *(getattr(encoder.config, name, None) for name in names)]
    size = next((size for size in sizes if size is not None), TRIED_SIDE)
    return [tuple(size) if isinstance(size, (tuple, list)) else (size, size)]


def is_shape_alone(path: str) -> bool:
    """Whether this is a folder with a config.json but no weights, which gives a fresh encoder of that shape."""
    return os.path.isdir(path) and not any(name.endswith(WEIGHTS) for name in os.listdir(path))


def encoder_config(path: str, option: str = "--encoder") -> PreTrainedConfig:
    """The config of what an option names. Raises `ValueError` for what is no encoder; whether it takes a kind of data
    shows when it is tried (see `check_encoder`)."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{option} {path} is neither a folder with a config.json nor a Hub model that can be reached. {error}"
        ) from error
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"{option} {path} is a {config.model_type} model, of which transformers has no plain encoder.")
    return config
