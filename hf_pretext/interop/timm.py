"""Conversion of trained timm encoders back to timm.

run, `TimmWrapperModel` or hf_pretext model -> timm model: same weights under timm's names, same features

    model = to_timm("runs/mine")         # a plain timm model without a classifier
    save_timm("runs/mine", "folder")     # timm.create_model("local-dir:folder", pretrained=True)
"""

import copy
import os
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from torch import nn
from transformers import AutoImageProcessor, PreTrainedModel, TimmWrapperModel
from transformers.utils import CONFIG_NAME

from .. import registry
from ..encoders import image_sides, noise, tried
from ..evaluation.standalone import LOADED, open_encoder, processor_folder
from ..modalities._image_processor import target_size
from ..modeling import PretextModel
from ..utils.files import atomic_path, write_json
from ..utils.foreign import read_json
from ..utils.hub import brought
from .open_clip import ROUNDED

ALIKE = 1e-6  # largest relative difference of features of equal models
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # by PIL's numbers


def to_timm(source: PreTrainedModel | str | os.PathLike) -> nn.Module:
    """Converts a timm encoder of transformers to a timm model without a classifier, in `eval()`, on the CPU.

    source: a `TimmWrapperModel`, a hf_pretext model whose image encoder is one, or a folder or Hub id of either. It is
    not changed. `reset_classifier(num_classes)` of the result adds a classifier. Raises `ValueError` if the encoder is
    not timm's, or if features on noise differ."""
    return converted(opened(source)[0])


def save_timm(source: PreTrainedModel | str | os.PathLike, folder: str | os.PathLike, processor=None) -> Path:
    """Writes a folder in timm's own format: model.safetensors, and config.json with the preprocessing.

    `timm.create_model("local-dir:folder", pretrained=True)` loads it; from the Hub, `"hf-hub:user/name"`. source: as in
    `to_timm`. processor: image processor of transformers; default: that of the source's folder. A model without one
    keeps the preprocessing of timm's architecture. Returns the folder. Raises `ValueError` as `to_timm`, for a folder
    with files, and for a processor that timm does not support."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty. Give a new folder: its files would be replaced.")
    encoder, place = opened(source)
    model = converted(encoder)
    if processor is None and place is not None:
        processor = AutoImageProcessor.from_pretrained(processor_folder(place, "image"), trust_remote_code=False)
    prepared = {} if processor is None else preprocessing(processor)
    with atomic_path(folder) as temporary:
        save_for_hf(
            model,
            str(temporary),
            model_config={"pretrained_cfg": prepared},
            model_args=encoder.config.model_args,
            safe_serialization=True,
        )
        written = read_json(temporary / CONFIG_NAME)
        # some versions of timm repeat it, which transformers refuses; the root of the config has it
        written.get("model_args", {}).pop("num_classes", None)
        write_json(temporary / CONFIG_NAME, written)
    return folder


def opened(source: PreTrainedModel | str | os.PathLike) -> tuple[TimmWrapperModel, str | None]:
    """Returns the timm encoder of a source, and the source's local folder if it is not a model.

    Raises `ValueError` if the encoder is not timm's."""
    place = None
    if isinstance(source, PretextModel):
        encoder = source.encoders.get("image", source.encoder)
    elif isinstance(source, PreTrainedModel):
        encoder = source
    else:
        place = str(brought(source, None, LOADED, registry.names("modalities")))
        encoder = open_encoder(place, source)[0]
    if not isinstance(encoder, TimmWrapperModel):
        name = type(source).__name__ if place is None else source
        raise ValueError(
            f"{name} has a {type(encoder).__name__} of transformers, which timm has no architecture for. Give a run "
            "whose encoder is a timm_wrapper."
        )
    return encoder, place


def converted(encoder: TimmWrapperModel) -> nn.Module:
    """Returns a new timm model with the weights of an encoder. Raises `ValueError` if features on noise differ."""
    config = encoder.config
    encoder = copy.deepcopy(encoder).cpu().float()
    model = timm.create_model(config.architecture, pretrained=False, num_classes=0, **(config.model_args or {}))
    model.load_state_dict(encoder.timm_model.state_dict())
    images = noise(encoder, 2, model.pretrained_cfg["input_size"][0], *image_sides(encoder)[0])
    with tried(encoder):
        mine, other = encoder(images).last_hidden_state, model.eval().forward_features(images)
    difference = float((mine - other).abs().max() / other.abs().max())
    if not difference < ALIKE:
        raise ValueError(
            f"timm {timm.__version__} computes other features than the encoder: they differ by {difference:.1e} of the "
            "largest. Give the version of timm of the training."
        )
    return model


def preprocessing(processor) -> dict:
    """Returns the settings of an image processor as a `pretrained_cfg` of timm.

    Raises `ValueError` if timm's transform gives other pixels than the processor."""
    height, width = target_size(processor)
    squashed = not getattr(processor, "do_center_crop", False)  # resizes both sides and does not crop
    shortest = None if squashed else dict(processor.size).get("shortest_edge")
    prepared = {
        "input_size": (3, height, width),
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
        "interpolation": INTERPOLATIONS.get(int(processor.resample), "bicubic"),
        "crop_pct": 1.0 if shortest is None else min(height, width) / shortest,
        "crop_mode": "squash" if squashed else "center",
    }
    ramp = torch.linspace(0, 255, 3 * (height + 9) * (width + 14)).view(height + 9, width + 14, 3).to(torch.uint8)
    image = Image.fromarray(ramp.numpy())
    theirs = create_transform(**resolve_data_config(pretrained_cfg=prepared))(image)
    ours = processor(image, return_tensors="pt")["pixel_values"][0]
    if ours.shape != theirs.shape or (ours - theirs).abs().max() > ROUNDED:
        raise ValueError(
            f"timm does not support the preprocessing of this {type(processor).__name__}. Give an image processor that "
            f"only resizes to {height}x{width} pixels, crops, rescales to [0, 1] and normalises."
        )
    return prepared
