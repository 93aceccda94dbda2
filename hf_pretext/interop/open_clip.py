"""Conversion between open_clip and transformers: CLIP and SigLIP models, in both directions.

open_clip model or checkpoint <-> CLIPModel, SiglipModel: same weights under other names, same features

    model = from_open_clip("ViT-B-32", "checkpoint.pt") # a CLIPModel
    to_open_clip(model, processor, "folder")            # open_clip.create_model_and_transforms("local-dir:folder")
"""

import copy
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel, PreTrainedModel, SiglipModel

from ..data.decoding import needed
from ..data.tokenizer import SCHEMAS
from ..utils.files import atomic_path, write_json
from .open_clip_configs import clip_cfg, clip_config, siglip_cfg, siglip_config
from .open_clip_names import clip_names, renamed, siglip_names

ROUNDED = 0.06  # of normalised pixels: allows rounding by one or two of 255 levels, but no other mean or crop
ALIKE = 1e-4  # largest relative difference of features of equal models


def from_open_clip(model: nn.Module | str, checkpoint: str | os.PathLike | None = None) -> CLIPModel | SiglipModel:
    """Converts an open_clip model to a transformers model.

    model: an open_clip model, which is not changed, or a name for `open_clip.create_model`: "ViT-B-32" with a
    checkpoint, or "local-dir:folder" without one. checkpoint: a file of weights; only tensors are unpickled. Raises
    `ValueError` if neither `CLIPModel` nor `SiglipModel` supports the architecture, or if features differ. Raises
    `ImportError` without `open_clip_torch`.
    """
    open_clip = needed("open_clip", "open_clip")
    if isinstance(model, str):
        if (checkpoint is None) != model.startswith(SCHEMAS):
            raise ValueError(
                f"{model} already has weights. Leave the checkpoint out."
                if checkpoint is not None
                else f"{model} names an architecture only, so its weights would be random. Give a checkpoint."
            )
        model = open_clip.create_model(model, pretrained=None if checkpoint is None else str(checkpoint))
    model = copy.deepcopy(model).cpu().float().eval()
    siglip = "text" in dict(model.named_children())
    ours = (SiglipModel if siglip else CLIPModel)(siglip_config(model) if siglip else clip_config(model)).eval()
    names = siglip_names(ours) if siglip else clip_names(ours)
    theirs = model.state_dict()
    if siglip and model.logit_bias is None:
        raise ValueError(
            "The open_clip model has no logit_bias, so it is no SigLIP model. Give a CLIP or SigLIP model."
        )
    ours.load_state_dict(renamed(theirs, ours.state_dict(), (same.back() for same in names), type(model).__name__))
    check_alike(ours, model, f"transformers' {type(ours).__name__} does not support all of this open_clip model")
    return ours


def to_open_clip(model: PreTrainedModel, processor, folder: str | os.PathLike) -> Path:
    """Writes a folder that `open_clip.create_model_and_transforms("local-dir:...")` loads, with the same features.

    model: a `CLIPModel` or `SiglipModel`, or a hf_pretext model that contains one as `full_model`. processor: the
    model's processor. Returns the folder. Raises `ValueError` if open_clip does not support the model or the processor,
    and `ImportError` without `open_clip_torch`.
    """
    open_clip = needed("open_clip", "open_clip")
    ours = copy.deepcopy(getattr(model, "full_model", model)).cpu().float().eval()
    config, folder = ours.config, Path(folder)
    if type(ours) not in (CLIPModel, SiglipModel):
        raise ValueError(f"open_clip has no architecture for {type(ours).__name__}. Give a CLIPModel or a SiglipModel.")
    siglip = type(ours) is SiglipModel
    model_cfg = siglip_cfg(config) if siglip else clip_cfg(config)
    bias = {}
    if (
        not siglip and getattr(getattr(model, "task", None), "loss", None) == "sigmoid"
    ):  # CLIP trained with the sigmoid loss
        bias["logit_bias"] = model.bias.detach().cpu()
        model_cfg["init_logit_bias"] = float(bias["logit_bias"])
    built = open_clip.model.CustomTextCLIP if siglip else open_clip.model.CLIP
    theirs = built(**model_cfg).eval()
    names = siglip_names(ours) if siglip else clip_names(ours)
    target = {name: value for name, value in theirs.state_dict().items() if name not in bias}
    weights = {**renamed(ours.state_dict(), target, names, type(ours).__name__), **bias}
    theirs.load_state_dict(weights)
    check_alike(ours, theirs, "open_clip does not support all of this model")
    prepared = preprocessing(processor)
    check_prepared(processor, prepared, config.vision_config.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.save_pretrained(folder)
    model_cfg["text_cfg"]["hf_tokenizer_name"] = "."  # the tokenizer in the same folder
    if siglip:
        model_cfg["custom_text"] = True
    write_json(folder / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": prepared})
    with atomic_path(folder / "open_clip_model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
    return folder


def preprocessing(processor) -> dict:
    """Returns the settings of an image processor as the `preprocess_cfg` of open_clip.

    Raises `ValueError` for an interpolation that open_clip does not support."""
    images = processor.image_processor
    interpolation = {2: "bilinear", 3: "bicubic"}.get(int(images.resample))
    if interpolation is None:
        raise ValueError(
            f"The image processor has resample={images.resample}. open_clip needs 2 (bilinear) or 3 (bicubic)."
        )
    squashed = not getattr(images, "do_center_crop", False)  # SigLIP resizes both sides and does not crop
    mode = "squash" if squashed else "shortest"
    return {"mean": list(images.image_mean), "std": list(images.image_std), "interpolation": interpolation,
            "resize_mode": mode}  # fmt: skip


def check_prepared(processor, prepared: dict, side: int) -> None:
    """Raises `ValueError` if open_clip's preprocessing gives other pixels than the processor.

    prepared: `preprocess_cfg` of open_clip. side: image size of the model, in pixels."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    ramp = torch.linspace(0, 255, 3 * (side + 9) * (side + 14)).view(side + 9, side + 14, 3).to(torch.uint8)
    image = Image.fromarray(ramp.numpy())
    theirs = image_transform_v2(PreprocessCfg(size=side, **prepared), is_train=False)(image)
    ours = processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
    if ours.shape != theirs.shape or (ours - theirs).abs().max() > ROUNDED:
        raise ValueError(
            f"open_clip does not support the preprocessing of this {type(processor.image_processor).__name__}. Give an "
            f"image processor that only resizes to {side} pixels, crops, rescales to [0, 1] and normalises."
        )


@torch.no_grad()
def check_alike(ours: CLIPModel | SiglipModel, theirs: nn.Module, reason: str) -> None:
    """Raises `ValueError` if two models give different features of images or texts. reason: start of the message."""
    random = torch.Generator().manual_seed(0)
    text, side = ours.config.text_config, ours.config.vision_config.image_size
    pixels = torch.randn(2, 3, side, side, generator=random)
    ids = torch.randint(text.vocab_size, (2, text.max_position_embeddings), generator=random)
    if isinstance(ours, CLIPModel):  # CLIP pools at the end-of-text token
        ids[:, -1] = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id
    for what, mine, other in (
        ("images", ours.get_image_features(pixels).pooler_output, theirs.encode_image(pixels)),
        ("texts", ours.get_text_features(ids).pooler_output, theirs.encode_text(ids)),
    ):
        difference = float((mine - other).abs().max() / other.abs().max())
        if not difference < ALIKE:
            raise ValueError(f"{reason}: features of {what} differ by {difference:.1e} of the largest feature.")
