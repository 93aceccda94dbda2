"""open_clip both ways: its models as transformers' CLIP and SigLIP, and ours as a folder that open_clip loads.

open_clip model or checkpoint <-> CLIPModel, SiglipModel: the same weights under other names, the same features

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

ROUNDED = 0.06  # of normalised pixels: whole levels of 255 may differ by one or two, a mean or a crop must not
ALIKE = 1e-4  # of features: what differs by more is not the same model


def from_open_clip(model: nn.Module | str, checkpoint: str | os.PathLike | None = None) -> CLIPModel | SiglipModel:
    """An open_clip model in transformers' words.

    model: one, which stays as it is, or a name that `open_clip.create_model` takes, as "ViT-B-32" with a checkpoint, or
    "local-dir:folder" without one. checkpoint: a file of its weights, which is never unpickled beyond tensors.
    Raises `ValueError` for an architecture that neither `CLIPModel` nor `SiglipModel` can express, and where the
    features turn out to differ; `ImportError` without `open_clip_torch`.
    """
    open_clip = needed("open_clip", "open_clip")
    if isinstance(model, str):
        if (checkpoint is None) != model.startswith(SCHEMAS):
            raise ValueError(
                f"{model} brings its own weights: leave the checkpoint out."
                if checkpoint is not None
                else f"{model} is an architecture alone, whose weights would be random. Give a checkpoint of it."
            )
        model = open_clip.create_model(model, pretrained=None if checkpoint is None else str(checkpoint))
    model = copy.deepcopy(model).cpu().float().eval()
    siglip = "text" in dict(model.named_children())
    ours = (SiglipModel if siglip else CLIPModel)(siglip_config(model) if siglip else clip_config(model)).eval()
    names = siglip_names(ours) if siglip else clip_names(ours)
    theirs = model.state_dict()
    if siglip and model.logit_bias is None:
        raise ValueError("The open_clip model has no logit_bias, so it is no SigLIP: transformers has no class for it.")
    ours.load_state_dict(renamed(theirs, ours.state_dict(), (same.back() for same in names), type(model).__name__))
    check_alike(ours, model, f"transformers' {type(ours).__name__} can't express something in this open_clip model")
    return ours


def to_open_clip(model: PreTrainedModel, processor, folder: str | os.PathLike) -> Path:
    """Writes a folder that `open_clip.create_model_and_transforms("local-dir:...")` loads, with the same features.

    model: a `CLIPModel` or `SiglipModel`, or one of ours around it. processor: its own. Returns the folder. Raises
    `ValueError` for what open_clip can't express; `ImportError` without `open_clip_torch`.
    """
    open_clip = needed("open_clip", "open_clip")
    ours = copy.deepcopy(getattr(model, "full_model", model)).cpu().float().eval()
    config, folder = ours.config, Path(folder)
    if type(ours) not in (CLIPModel, SiglipModel):
        raise ValueError(
            f"open_clip has no architecture for {type(ours).__name__}. It takes CLIPModel and SiglipModel alone."
        )
    siglip = type(ours) is SiglipModel
    model_cfg = siglip_cfg(config) if siglip else clip_cfg(config)
    bias = {}
    if not siglip and getattr(getattr(model, "task", None), "loss", None) == "sigmoid":  # of a CLIP of ours
        bias["logit_bias"] = model.bias.detach().cpu()
        model_cfg["init_logit_bias"] = float(bias["logit_bias"])
    built = open_clip.model.CustomTextCLIP if siglip else open_clip.model.CLIP
    theirs = built(**model_cfg).eval()
    names = siglip_names(ours) if siglip else clip_names(ours)
    wanted = {name: value for name, value in theirs.state_dict().items() if name not in bias}
    weights = {**renamed(ours.state_dict(), wanted, names, type(ours).__name__), **bias}
    theirs.load_state_dict(weights)
    check_alike(ours, theirs, "open_clip can't express something in this model")
    prepared = preprocessing(processor)
    check_prepared(processor, prepared, config.vision_config.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.save_pretrained(folder)
    model_cfg["text_cfg"]["hf_tokenizer_name"] = "."  # the folder's own
    if siglip:
        model_cfg["custom_text"] = True
    write_json(folder / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": prepared})
    with atomic_path(folder / "open_clip_model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
    return folder


def preprocessing(processor) -> dict:
    """An image processor as open_clip's configuration describes it."""
    images = processor.image_processor
    interpolation = {2: "bilinear", 3: "bicubic"}.get(int(images.resample))
    if interpolation is None:
        raise ValueError(f"open_clip resizes bilinearly or bicubically, not by Pillow's method {images.resample}.")
    squashed = not getattr(images, "do_center_crop", False)  # SigLIP's: both sides to the size, no crop
    mode = "squash" if squashed else "shortest"
    return {"mean": list(images.image_mean), "std": list(images.image_std), "interpolation": interpolation,
            "resize_mode": mode}  # fmt: skip


def check_prepared(processor, prepared: dict, side: int) -> None:
    """Raises `ValueError` where open_clip would make other pixels of an image than the processor does."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    ramp = torch.linspace(0, 255, 3 * (side + 9) * (side + 14)).view(side + 9, side + 14, 3).to(torch.uint8)
    image = Image.fromarray(ramp.numpy())
    theirs = image_transform_v2(PreprocessCfg(size=side, **prepared), is_train=False)(image)
    ours = processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
    if ours.shape != theirs.shape or (ours - theirs).abs().max() > ROUNDED:
        raise ValueError(
            f"open_clip can't prepare images as this {type(processor.image_processor).__name__} does: it resizes to "
            f"the model's {side} pixels, crops, rescales to [0, 1] and normalises, no more."
        )


@torch.no_grad()
def check_alike(ours: CLIPModel | SiglipModel, theirs: nn.Module, reason: str) -> None:
    """Raises `ValueError` unless both give the same features of an image and a text."""
    random = torch.Generator().manual_seed(0)
    text, side = ours.config.text_config, ours.config.vision_config.image_size
    pixels = torch.randn(2, 3, side, side, generator=random)
    ids = torch.randint(text.vocab_size, (2, text.max_position_embeddings), generator=random)
    if isinstance(ours, CLIPModel):  # which pools where a text ends
        ids[:, -1] = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id
    for what, mine, other in (
        ("images", ours.get_image_features(pixels).pooler_output, theirs.encode_image(pixels)),
        ("texts", ours.get_text_features(ids).pooler_output, theirs.encode_text(ids)),
    ):
        apart = float((mine - other).abs().max() / other.abs().max())
        if not apart < ALIKE:
            raise ValueError(f"{reason}: its features of {what} differ by {apart:.1e} of the largest.")
