"""Image processors of transformers: loads them, or makes a default one, and reads size and normalisation."""

import torch
from torch import Tensor

from ..utils.foreign import refuse_custom_code

USUAL_SIZE = 224  # pixels; used if neither the encoder nor an option sets a size


def pixel_statistics(processor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each channel, `(3,)` each, for pixels from 0 to 255."""
    mean = processor.image_mean if processor.do_normalize else [0.0] * 3
    std = processor.image_std if processor.do_normalize else [1.0] * 3
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    return torch.tensor(mean) / scale, torch.tensor(std) / scale


def default_processor(size: int):
    """Returns the image processor for an encoder without one.

    It resizes the shorter side to `size` pixels, crops the central square and scales to [-1, 1]."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=2,  # bilinear, as in training
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def target_size(processor) -> tuple[int, int]:
    """Returns height and width of a processor's outputs, in pixels. Raises `ValueError` if they vary."""
    sizes = [getattr(processor, "crop_size", None)] if getattr(processor, "do_center_crop", False) else []
    for size in [*sizes, getattr(processor, "size", None)]:
        size = dict(size or {})
        if size.get("height") and size.get("width"):
            return size["height"], size["width"]
    raise ValueError(
        f"{type(processor).__name__} outputs images of varying size ({processor.size}). Set one size with --image_size "
        "(for videos: --video_size)."
    )


def saved_processor(encoder_path: str):
    """Returns the image processor of a folder or Hub id, or None if it has none.

    Raises `ValueError` for one that needs custom code."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(encoder_path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        refuse_custom_code(encoder_path, error)
        return None


def load_processor(encoder_path: str | None, image_size: int | None, fallback_size: int):
    """Returns the image processor of an encoder, or a default one.

    encoder_path: folder or Hub id of a pretrained encoder, or None for a fresh one. image_size: overrides the
    processor's size, in pixels. fallback_size: size of a default processor without an `image_size`, in pixels.
    """
    processor = saved_processor(encoder_path) if encoder_path is not None else None
    data = getattr(processor, "data_config", None)
    if data is not None:  # of timm's wrapper: training uses transformers processors only
        processor = default_processor(image_size or data["input_size"][-1])
        processor.image_mean, processor.image_std = list(data["mean"]), list(data["std"])
    elif processor is None:
        processor = default_processor(image_size or fallback_size)
    elif image_size is not None:
        processor.do_center_crop, processor.do_resize = True, True
        processor.size = type(default_processor(image_size).size)(shortest_edge=image_size)
        processor.crop_size = default_processor(image_size).crop_size
    return processor
