"""A plain transformers encoder from a config, a folder or a Hub id; and whether it takes a kind of data, by trying.

config -> a fresh encoder; path -> its config; encoder + noise of a kind -> last_hidden_state, or `ValueError`
"""

import copy
import os

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

WEIGHTS = (".safetensors", ".bin")  # what files of weights end in
TRIED = 2  # examples of noise
TRIED_SIDE = 64  # pixels of an image, where no config names a size
TRIED_TOKENS = 4
TRIED_FRAMES = {"audio": 100, "video": 16}  # log-mel frames and images of a film, where no config names a number
TRIED_SAMPLES = 8_000  # of a raw waveform: half a second at 16 kHz
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
    trial = globals()[f"{kind}_trial"]
    reason = refusal(encoder, trial(encoder))
    if reason is not None and any(p.is_meta for p in encoder.parameters()):  # some can't run without numbers
        real = zeros_like(encoder)
        reason = refusal(real, trial(real))
    if reason is not None:
        raise ValueError(
            f"This objective needs an encoder of the kind {kind}, but {type(encoder).__name__} "
            f"({encoder.config.model_type}) can't take noise of that kind: {reason}"
        )


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


def image_trial(encoder: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Batches of noise that an encoder of images takes one of."""
    return [{"pixel_values": noise(encoder, TRIED, 3, *side)} for side in image_sides(encoder)]


def text_trial(encoder: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Batches of noise that an encoder of texts takes one of."""
    vocabulary = getattr(encoder.config.get_text_config(), "vocab_size", None) or 2
    ids = torch.randint(vocabulary, (TRIED, TRIED_TOKENS), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": ids.to(encoder.device)}]


def audio_trial(encoder: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Batches of noise that an encoder of sounds takes one of: a waveform, or log-mel features with frames or with
    bins first."""
    config, name = encoder.config, encoder.main_input_name
    if name not in ("input_values", "input_features"):
        name = "input_values"
    names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel")
    bins = next((value for value in (getattr(config, name, None) for name in names) if value), None)
    if bins is None:
        return [{name: noise(encoder, TRIED, TRIED_SAMPLES)}]
    frames = getattr(config, "max_length", None) or TRIED_FRAMES["audio"]
    shapes = [(frames, bins), (bins, frames)]
    positions = getattr(config, "max_source_positions", None)
    shapes += [(bins, 2 * positions)] if positions else []  # Whisper's encoder takes this number of frames alone
    return [{name: noise(encoder, TRIED, *shape)} for shape in shapes]


def video_trial(encoder: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Batches of noise that an encoder of films takes one of."""
    config = encoder.config
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None) or TRIED_FRAMES["video"]
    names = ("pixel_values_videos", "pixel_values")
    names = names if encoder.main_input_name == names[0] else names[::-1]
    return [{name: noise(encoder, TRIED, frames, 3, *side)} for name in names for side in image_sides(encoder)]


def is_shape_alone(path: str) -> bool:
    """Whether this is a folder with a config.json but no weights, which gives a fresh encoder of that shape."""
    return os.path.isdir(path) and not any(name.endswith(WEIGHTS) for name in os.listdir(path))


def encoder_config(path: str, kind: str, option: str = "--encoder") -> PreTrainedConfig:
    """The config of what an option names. Raises `ValueError` for what is no encoder; whether it takes a kind of data
    shows when it is tried (see `check_encoder`)."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{option} {path} is neither a folder with a config.json nor a Hub model that can be reached. {error}"
        ) from error
    without_words = kind == "text" and not getattr(config.get_text_config(), "vocab_size", None)
    if type(config) not in MODEL_MAPPING or without_words:
        lacks = "a vocabulary" if without_words else "a plain encoder in transformers"
        raise ValueError(
            f"{option} {path} is a {config.model_type} model, without {lacks}, but one for "
            f"{' and '.join(f'{part}s' for part in kind.split('_'))} is needed."
        )
    return config
