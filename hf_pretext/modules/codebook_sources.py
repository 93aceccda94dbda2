"""Where a codebook comes from: a setting's path, or the entry of a config.json.

path -> a codebook of pixels, of an encoder's features, or a ready one; {"kind", "size", "patch_size"} -> its shape
"""

from contextlib import suppress
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    FlavaConfig,
    FlavaForPreTraining,
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
    PreTrainedModel,
)

from ..encoders import build_encoder, encoder_config
from .codebook import PatchCodebook, ReadyCodebook, normalisation_of


def codebook_config(codebook: PatchCodebook | ReadyCodebook) -> dict[str, Any]:
    """What a codebook's shape is built from again by `codebook_from`, in JSON's types; its values are in its state."""
    shape = {"kind": codebook.kind, "size": codebook.size, "patch_size": codebook.patch_size}
    inner = codebook.codebook if codebook.kind == "ready" else codebook.encoder
    if inner is not None:
        shape["encoder"] = inner.config.to_diff_dict()
        shape["encoder"].pop("pretext", None)  # what it was pretrained with does not make its shape
    return shape


def codebook_from(config: dict[str, Any]) -> PatchCodebook | ReadyCodebook:
    """A codebook of the shape that `codebook_config` gives, to be filled by `load_state_dict`.

    Raises `ValueError` for an unknown kind."""
    kind, inner = config.get("kind"), config.get("encoder")
    if kind == "pixels":
        return PatchCodebook(config["size"], config["patch_size"])
    if kind == "features":
        return PatchCodebook(config["size"], config["patch_size"], build_encoder(AutoConfig.for_model(**inner)))
    if kind == "ready":
        return ReadyCodebook(FlavaImageCodebook(FlavaImageCodebookConfig(**inner)), config["patch_size"])
    raise ValueError(f"There is no codebook of the kind {kind!r}: there are 'pixels', 'features' and 'ready'.")


def open_codebook(
    path: str | None,
    size: int,
    patch_size: int,
    option: str = "--codebook",
) -> PatchCodebook | ReadyCodebook:
    """The codebook that a path stands for: None for one of pixels; a FLAVA codebook, or a FLAVA with its
    codebook, is ready (and has a size already); any other image encoder describes patches for one that is to be fitted.

    path: a folder or a Hub id. option: what errors call it.
    Raises `ValueError` for what can't be reached, is no encoder of pictures, or lacks weights.
    """
    if path is None:
        return PatchCodebook(size, patch_size)
    config = None
    with suppress(OSError, ValueError):
        config = AutoConfig.from_pretrained(path)
    if isinstance(config, FlavaImageCodebookConfig):
        return ReadyCodebook(pretrained(FlavaImageCodebook, path, option), patch_size)
    if isinstance(config, FlavaConfig):
        inner = pretrained(FlavaForPreTraining, path, option, "image_codebook.").image_codebook
        return ReadyCodebook(inner, patch_size)
    encoder_config(path, option)  # says what is wrong
    codebook = PatchCodebook(size, patch_size, pretrained(AutoModel, path, option))
    with suppress(OSError, ValueError):  # a folder may have no processor
        codebook.set_normalisation(*normalisation_of(AutoImageProcessor.from_pretrained(path)), prefix="encoder_")
    return codebook


def pretrained(auto: type, path: str, option: str, part: str = "") -> PreTrainedModel:
    """A model with all of its weights, or all those of a part. Raises `ValueError` where any is missing.

    A pooler may be: it comes after the tokens, and no code depends on it."""
    try:
        model, info = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    except OSError as error:
        raise ValueError(f"{option} {path} has no weights that can be loaded: {error}") from error
    missing = sorted(name for name in info["missing_keys"] if name.startswith(part) and "pooler." not in name)
    if missing or not any(name.startswith(part) for name in model.state_dict()):
        raise ValueError(
            f"{option} {path} lacks weights of {type(model).__name__}, which would stay random: "
            f"{', '.join(missing[:5]) or part}. Give a checkpoint that has them."
        )
    return model
