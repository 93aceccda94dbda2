"""Creates codebooks from the path in a setting, or from the entry of a config.json.

path -> a codebook of pixels, of an encoder's features, or a ready one
{"kind", "size", "patch_size"} -> a codebook of this shape, whose values are loaded afterwards
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
from .codebook import PatchCodebook, ReadyCodebook
from .normalisation import normalisation_of


def codebook_config(codebook: PatchCodebook | ReadyCodebook) -> dict[str, Any]:
    """Returns the shape of a codebook in JSON types, for `codebook_from`. Its values are in its state dict."""
    shape = {"kind": codebook.kind, "size": codebook.size, "patch_size": codebook.patch_size}
    inner = codebook.codebook if codebook.kind == "ready" else codebook.encoder
    if inner is not None:
        shape["encoder"] = inner.config.to_diff_dict()
        shape["encoder"].pop("pretext", None)  # the objective that it was pretrained with does not change its shape
    return shape


def codebook_from(config: dict[str, Any]) -> PatchCodebook | ReadyCodebook:
    """Creates a codebook of a shape that `codebook_config` returned. `load_state_dict` loads its values.

    Raises `ValueError` for an unknown kind."""
    kind, inner = config.get("kind"), config.get("encoder")
    if kind == "pixels":
        return PatchCodebook(config["size"], config["patch_size"])
    if kind == "features":
        return PatchCodebook(config["size"], config["patch_size"], build_encoder(AutoConfig.for_model(**inner)))
    if kind == "ready":
        return ReadyCodebook(FlavaImageCodebook(FlavaImageCodebookConfig(**inner)), config["patch_size"])
    raise ValueError(f"Unknown kind of codebook: {kind!r}. Give 'pixels', 'features' or 'ready'.")


def open_codebook(
    path: str | None,
    size: int,
    patch_size: int,
    option: str = "--codebook",
) -> PatchCodebook | ReadyCodebook:
    """Creates the codebook that a path names.

    path: a folder or Hub id. A FLAVA codebook, or a FLAVA model with its codebook, gives a `ReadyCodebook`. Any other
    image encoder gives a `PatchCodebook` of its features, still to be fitted. None gives a `PatchCodebook` of pixels.
    size: number of codes; a ready codebook ignores it. patch_size: side of a patch in pixels. option: name of the
    option in error messages.
    Raises `ValueError` for a path that can't be loaded, for a model that is not an image encoder, and for missing
    weights.
    """
    if path is None:
        return PatchCodebook(size, patch_size)
    config = None
    with suppress(OSError, ValueError):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if isinstance(config, FlavaImageCodebookConfig):
        return ReadyCodebook(pretrained(FlavaImageCodebook, path, option), patch_size)
    if isinstance(config, FlavaConfig):
        inner = pretrained(FlavaForPreTraining, path, option, "image_codebook.").image_codebook
        return ReadyCodebook(inner, patch_size)
    encoder_config(path, option)  # raises an error that names the problem
    codebook = PatchCodebook(size, patch_size, pretrained(AutoModel, path, option))
    with suppress(OSError, ValueError):  # a folder may have no processor
        processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=False)
        codebook.set_normalisation(*normalisation_of(processor), prefix="encoder_")
    return codebook


def pretrained(auto: type, path: str, option: str, part: str = "", revision: str | None = None) -> PreTrainedModel:
    """Loads a model in float32, with all of its weights.

    part: prefix of the weights that must be present; default: all. The pooler's weights may be missing: no code depends
    on them. revision: branch, tag or commit of a Hub repository. Raises `ValueError` for other missing weights."""
    options = {"dtype": torch.float32, "output_loading_info": True, "trust_remote_code": False}
    try:
        model, info = auto.from_pretrained(path, revision=revision or "main", **options)
    except OSError as error:
        at = f" at the revision {revision}" if revision else ""
        raise ValueError(
            f"{option} {path} has no weights that can be loaded{at}. Give a folder or Hub id with weights "
            f"(model.safetensors). Details: {error}"
        ) from error
    missing = sorted(name for name in info["missing_keys"] if name.startswith(part) and "pooler." not in name)
    if missing or not any(name.startswith(part) for name in model.state_dict()):
        raise ValueError(
            f"{option} {path} lacks weights of {type(model).__name__}, which would stay random: "
            f"{', '.join(missing[:5]) or part}. Give a checkpoint that has them."
        )
    return model
