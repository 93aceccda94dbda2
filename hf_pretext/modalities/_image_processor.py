"""Image processors of transformers: brought or default, their size and normalisation."""

import torch
from torch import Tensor

USUAL_SIZE = 224  # pixels, where neither an encoder nor an option says one


def pixel_statistics(processor) -> tuple[Tensor, Tensor]:
    """Returns the channels' mean and standard deviation, `(3,)`, that pixels of 0 to 255 are normalised by."""
    mean = processor.image_mean if processor.do_normalize else [0.0] * 3
    std = processor.image_std if processor.do_normalize else [1.0] * 3
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    return torch.tensor(mean) / scale, torch.tensor(std) / scale


def default_processor(size: int):
    """The processor of an encoder that came without one: shorter side to `size`, central square, [-1, 1]."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=2,  # bilinear, as in training
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def target_size(processor) -> tuple[int, int]:
    """Height and width that a processor gives. Raises `ValueError` where it gives images of any size."""
    sizes = [getattr(processor, "crop_size", None)] if getattr(processor, "do_center_crop", False) else []
    for size in [*sizes, getattr(processor, "size", None)]:
        size = dict(size or {})
        if size.get("height") and size.get("width"):
            return size["height"], size["width"]
    raise ValueError(
        f"{type(processor).__name__} gives images of varying size ({processor.size}); set one with --image_size."
    )


def saved_processor(encoder_path: str):
    """The image processor that a folder or Hub id brings, or None."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(encoder_path)
    except (OSError, ValueError):
        return None


def load_processor(encoder_path: str | None, image_size: int | None, fallback_size: int):
    """The image processor that an encoder brings, or a default one; both at `image_size` where that is given.

    encoder_path: folder or Hub id of a pretrained encoder, or None for a fresh one.
    """
    processor = saved_processor(encoder_path) if encoder_path is not None else None
    data = getattr(processor, "data_config", None)
    if data is not None:  # timm's wrapper: the same in transformers' words
        processor = default_processor(image_size or data["input_size"][-1])
        processor.image_mean, processor.image_std = list(data["mean"]), list(data["std"])
    elif processor is None:
        processor = default_processor(image_size or fallback_size)
    elif image_size is not None:
        processor.do_center_crop, processor.do_resize = True, True
        processor.size = type(default_processor(image_size).size)(shortest_edge=image_size)
        processor.crop_size = default_processor(image_size).crop_size
    return processor
