"""Builds plain transformers encoders, loads their configs, and checks on noise which kinds of data they accept.

config -> a fresh encoder; path -> its config; encoder + noise of a kind -> last_hidden_state, or `ValueError`
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .registry import modality_class, names
from .utils.foreign import check_folder, refuse_custom_code

WEIGHTS = (".safetensors", ".bin")  # extensions of weight files
TRIED = 2  # batch size of the noise
TRIED_SIDE = 64  # side of a noise image in pixels, if the config has no image size
REASON = 160  # maximum length of an error that is quoted, in characters
# Whether an encoder takes images, by its number of channels
_takes_images: WeakKeyDictionary[PreTrainedModel, dict[int, bool]] = WeakKeyDictionary()


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Returns a fresh encoder with the initialisation of its library, in float32 for any dtype in the config."""
    encoder = AutoModel.from_config(copy.deepcopy(config), dtype=torch.float32, trust_remote_code=False)
    for module in encoder.modules():
        if hasattr(module, "timm_model"):
            # transformers' wrapper initialises timm's convolutions and linear layers again, all with one deviation
            import timm

            wrapped = module.config
            fresh = timm.create_model(
                wrapped.architecture, pretrained=False, num_classes=0, **(wrapped.model_args or {})
            )
            module.timm_model.load_state_dict(fresh.state_dict())
    return encoder


def as_encoder(encoder: PreTrainedModel | PreTrainedConfig | nn.Module) -> PreTrainedModel:
    """Returns a fresh encoder of a config, timm's model as a transformers model with its weights, and any other model
    as it is. Raises `ValueError` for a model that is neither of transformers nor of timm."""
    if isinstance(encoder, PreTrainedModel):
        return encoder
    if isinstance(encoder, PreTrainedConfig):
        return build_encoder(encoder)
    library, name = type(encoder).__module__.partition(".")[0], type(encoder).__name__
    if library == "timm" and hasattr(encoder, "pretrained_cfg"):
        return wrapped_timm(encoder)
    advice = "For your own architecture, subclass PreTrainedModel and register it with AutoModel."
    if library == "torchvision":
        advice = "timm has torchvision's architectures and weights: timm.create_model('resnet50.tv_in1k', ...)."
    raise ValueError(
        f"The encoder must be a transformers or timm model, or a transformers config, but it is a {name} of "
        f"{library}: AutoModel could not load its checkpoint. {advice}"
    )


@torch.no_grad()
def wrapped_timm(model: nn.Module) -> PreTrainedModel:
    """Returns timm's model as a transformers `TimmWrapperModel` without classifier, with a copy of its weights.

    Raises `ValueError` if its weights do not fit its architecture with default arguments, or with its image size: the
    wrapper needs the arguments that it was created with, which the model does not keep."""
    architecture = model.pretrained_cfg["architecture"]
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    for arguments in (None, {"img_size": list(size)}) if size else (None,):
        config = AutoConfig.for_model("timm_wrapper", architecture=architecture, model_args=arguments)
        wrapper = AutoModel.from_config(config, dtype=torch.float32)
        expected, weights = wrapper.timm_model.state_dict(), model.state_dict()
        if all(name in weights and weights[name].shape == value.shape for name, value in expected.items()):
            wrapper.timm_model.load_state_dict({name: weights[name] for name in expected})
            if same_features(model, wrapper.timm_model):
                return wrapper
    raise ValueError(
        f"timm's {architecture} was created with arguments that its checkpoint would lack. Give them in a config: "
        f"AutoConfig.for_model('timm_wrapper', architecture='{architecture}', model_args={{...}})."
    )


@torch.no_grad()
def same_features(one: nn.Module, other: nn.Module) -> bool:
    """Returns True if two timm models have the same feature maps for noise: arguments such as the output stride change
    them, but not the shapes of weights."""
    modes = one.training, other.training
    size = getattr(getattr(one, "patch_embed", None), "img_size", None) or one.pretrained_cfg["input_size"][1:]
    pixels = torch.randn(2, one.pretrained_cfg["input_size"][0], *size, generator=torch.Generator().manual_seed(0))
    first, second = (
        model.eval().forward_features(pixels.to(next(model.parameters()).device)) for model in (one, other)
    )
    one.train(modes[0])
    other.train(modes[1])
    return first.shape == second.shape and torch.allclose(first.cpu(), second.cpu(), atol=1e-4)


def check_encoder(encoder: PreTrainedModel, kind: str) -> None:
    """Raises `ValueError` unless `AutoModel` returns the class of `encoder`, and it returns hidden states for noise.

    kind: kind of data of the noise: "image", "text", "audio" or "video"."""
    if not isinstance(encoder, PreTrainedModel):
        raise ValueError(f"The encoder must be a transformers model, not a {type(encoder).__name__}.")
    native = MODEL_MAPPING.get(type(encoder.config), None)
    native = native if isinstance(native, (tuple, list)) else (native,)
    if type(encoder) not in native:
        raise ValueError(
            f"The encoder must be a model without a head, as AutoModel returns, but it is {type(encoder).__name__}. "
            "Give its `.base_model`."
        )
    trial = modality_class(kind).trial
    reason = refusal(encoder, trial(encoder))
    if reason is not None and any(p.is_meta for p in encoder.parameters()):  # some models can't run on the meta device
        real = zeros_like(encoder)
        reason = refusal(real, trial(real))
    if reason is not None:
        raise ValueError(
            f"The {kind} encoder must accept {kind} inputs, but {type(encoder).__name__} ({encoder.config.model_type}) "
            f"does not. Give another encoder. Its error: {reason}"
        )


def takes_kind(encoder: PreTrainedModel, kind: str) -> bool:
    """Returns True if an encoder returns hidden states for noise of a kind of data."""
    return refusal(encoder, modality_class(kind).trial(encoder)) is None


@torch.compiler.assume_constant_result  # a traced function gets the result of a trial outside its graph
def takes_images(encoder: PreTrainedModel, channels: int = 3) -> bool:
    """Returns True if an encoder takes images `(B, channels, H, W)`: an encoder of videos takes no images.

    It is tried once, on noise, and not in its compiled form."""
    known = _takes_images.setdefault(encoder, {})
    if channels not in known:
        sides = image_sides(encoder)
        images = [{"pixel_values": noise(encoder, images_at_a_time(encoder), channels, *side)} for side in sides]
        with uncompiled(encoder):
            known[channels] = refusal(encoder, images) is None
    return known[channels]


def images_at_a_time(encoder: PreTrainedModel) -> int:
    """Returns how many images an encoder is tried on: XCLIP's takes the frames of a video, always `num_frames`."""
    return getattr(encoder.config, "num_frames", None) or TRIED


@contextmanager
def uncompiled(encoder: PreTrainedModel) -> Iterator[None]:
    """Runs an encoder without torch.compile while the context lasts, see `modules.compiled`."""
    compiled, call = vars(encoder).pop("forward", None), encoder._compiled_call_impl
    encoder._compiled_call_impl = None
    try:
        yield
    finally:
        encoder._compiled_call_impl = call
        if compiled is not None:
            encoder.forward = compiled


@torch.no_grad()
def zeros_like(encoder: PreTrainedModel) -> PreTrainedModel:
    """Returns a copy of an encoder on the CPU, with all weights set to zero."""
    real = copy.deepcopy(encoder).to_empty(device="cpu")
    for tensor in (*real.parameters(), *real.buffers()):
        tensor.zero_()
    return real


def refusal(encoder: PreTrainedModel, batches: list[dict[str, Tensor]]) -> str | None:
    """Returns None if the encoder returns a last hidden state for one of the batches, else its first error in one line.

    The training modes of the encoder and the global generators stay unchanged."""
    reasons = []
    with tried(encoder):
        for batch in batches:
            try:
                hidden = getattr(encoder(**batch), "last_hidden_state", None)
            except Exception as error:  # architectures raise errors of many types
                reasons.append(f"{type(error).__name__}: {error}".splitlines()[0][:REASON])
                continue
            if isinstance(hidden, Tensor) and hidden.ndim > 2 and len(hidden) == len(next(iter(batch.values()))):
                return None
            reasons.append("its output has no last_hidden_state with one vector for each token or position.")
    return reasons[0]


@contextmanager
def tried(encoder: PreTrainedModel) -> Iterator[None]:
    """Sets `eval()` without gradients, and restores the training modes and the global generators at the end."""
    modes = {module: module.training for module in encoder.modules()}
    devices = [encoder.device] if encoder.device.type == "cuda" else []
    encoder.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def noise(encoder: PreTrainedModel, *shape: int) -> Tensor:
    """Returns Gaussian noise of a shape, on the device and in the dtype of an encoder. The seed is fixed."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values.to(encoder.device, encoder.dtype)


def image_sides(encoder: PreTrainedModel) -> list[tuple[int, int]]:
    """Returns the candidates for an encoder's image size, `[(height, width)]`, in pixels."""
    return [image_side(encoder) or (TRIED_SIDE, TRIED_SIDE)]


def image_side(encoder: PreTrainedModel) -> tuple[int, int] | None:
    """Returns the image size that an encoder's config names, (height, width) in pixels; None without one."""
    embedding = getattr(getattr(encoder, "timm_model", None), "patch_embed", None)
    names = ("image_size", "crop_size")
    sizes = [getattr(embedding, "img_size", None), *(getattr(encoder.config, name, None) for name in names)]
    size = next((size for size in sizes if size is not None), None)
    return size if size is None else tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def patch_side(encoder: PreTrainedModel) -> int | None:
    """Returns the side of an encoder's patches in pixels; None for an encoder without square patches of one size."""
    embedding = getattr(getattr(encoder, "timm_model", None), "patch_embed", None)
    size = getattr(embedding, "patch_size", None) or getattr(encoder.config, "patch_size", None)
    size = size[0] if isinstance(size, (tuple, list)) and len(set(size)) == 1 else size
    return size if isinstance(size, int) else None


class TrainedEncoders:
    """Gradient checkpointing of a model with `encoders`: in every trained encoder."""

    encoders: dict[str, PreTrainedModel]

    def trained_encoders(self) -> list[PreTrainedModel]:
        """Returns the encoders with trainable parameters, for gradient checkpointing and compilation."""
        encoders = {id(encoder): encoder for encoder in self.encoders.values()}.values()
        return [encoder for encoder in encoders if any(p.requires_grad for p in encoder.parameters())]

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict | None = None, **kwargs) -> None:
        """Enables gradient checkpointing in every trained encoder. Raises `ValueError` for one without support."""
        for model in self.trained_encoders():
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            try:
                enable(gradient_checkpointing_kwargs, **kwargs)
            except (ValueError, NotImplementedError) as error:
                raise ValueError(f"{type(model).__name__} can't use --gradient_checkpointing. Leave it out.") from error

    def gradient_checkpointing_disable(self) -> None:
        """Disables gradient checkpointing in every trained encoder."""
        for model in self.trained_encoders():
            getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()


def is_shape_alone(path: str) -> bool:
    """Returns True for a folder with a config.json but without weights, which stands for a fresh encoder."""
    return os.path.isdir(path) and not any(name.endswith(WEIGHTS) for name in os.listdir(path))


def encoder_config(
    path: str, option: str = "--encoder", revision: str | None = None, auto_class: type = AutoModel
) -> PreTrainedConfig:
    """Loads the config of an encoder. It does not check which kinds of data the encoder accepts (see `check_encoder`).

    path: folder or Hub id. option: named in errors. revision: branch, tag or commit of a Hub repository. auto_class:
    loads full models that the path may also be of. Raises `ValueError` if the path can't be loaded, is neither an
    encoder nor such a model, or needs custom code."""
    check_folder(path, names("modalities"))
    try:
        config = AutoConfig.from_pretrained(path, revision=revision or "main", trust_remote_code=False)
    except OSError as error:
        raise ValueError(
            f"{option} {path} can't be loaded: it is not a folder with a config.json, and the Hub did not return a "
            "model of this name. Check the spelling and the connection, or log in (`hf auth login`) for a private "
            f"model. Details: {error}"
        ) from error
    except ValueError as error:
        refuse_custom_code(f"{option} {path}", error)
        raise ValueError(
            f"{option} {path} can't be loaded: its config.json is not that of a model of transformers. Give another. "
            f"Details: {error}"
        ) from error
    if type(config) not in MODEL_MAPPING and type(config) not in auto_class._model_mapping:
        raise ValueError(
            f"{option} {path} is a {config.model_type} model, but AutoModel has no encoder of this type. Give another."
        )
    return config
