"""Image and video processors of transformers: loads them, or makes default ones, and reads size and normalisation."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import AutoVideoProcessor, VideoMAEVideoProcessor

from ..utils.foreign import refuse_custom_code
from ._saved_clips import without_clips

USUAL_SIZE = 224  # pixels; used if neither the encoder nor an option sets a size
TOLERANCE = 0.05  # of normalised pixels: allows other rounding to integers, but no other mean or crop


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
    processor = processor and plain_processor(processor)
    if processor is None:
        processor = default_processor(image_size or fallback_size)
    elif image_size is not None:
        processor.do_center_crop, processor.do_resize = True, True
        processor.size = type(default_processor(image_size).size)(shortest_edge=image_size)
        processor.crop_size = default_processor(image_size).crop_size
    return processor


def plain_processor(processor):
    """Returns a copy of an image processor that saves no clips; for that of timm's wrapper, a transformers processor of
    its size and normalisation."""
    data = getattr(processor, "data_config", None)
    if data is None:
        return without_clips(processor)
    plain = default_processor(data["input_size"][-1])
    plain.image_mean, plain.image_std = list(data["mean"]), list(data["std"])
    return plain


def check_same(modality, row: dict, theirs: Callable[[], Tensor]) -> None:
    """Raises `ValueError` if the processor gives other pixels than the modality does: the processor in the checkpoint
    would then give other features than the encoder was trained on.

    row: of a test image or clip. theirs: returns what the processor makes of it."""
    name, example = type(modality.processor).__name__, example_of(modality.processor)
    try:
        expected = theirs()
        batch = modality(row, None, 0.5)
        ours = modality.finish({name: value[None] for name, value in batch.items()})[modality.encoder_input][0]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"The encoder's image processor, {name}, can't be used: {error}. Save another image processor with the "
            f"encoder, for example a {example}, or remove its preprocessor_config.json to use a default one."
        ) from error
    if expected.shape != ours.shape or (expected - ours).abs().max() > TOLERANCE:
        raise ValueError(
            f"The encoder's image processor, {name}, does more than resize, crop, rescale and normalise, so the "
            f"encoder would be trained on other images. Save another image processor with the encoder, for example a "
            f"{example}."
        )


def example_of(processor) -> str:
    """Returns the name of a processor class that can be used in place of another."""
    return "VideoMAEVideoProcessor" if is_of_videos(processor) else "CLIPImageProcessor"


# videos


def is_of_videos(processor) -> bool:
    """Returns True for a video processor, False for an image processor."""
    return hasattr(processor, "do_sample_frames")


def saved_video_processor(path: str):
    """Returns the video processor of a folder or Hub id, or None if it has none.

    Raises `ValueError` for one that needs custom code."""
    try:
        return AutoVideoProcessor.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        refuse_custom_code(path, error)
        return None


def load_video_processor(path: str | None, size: int | None, fallback_size: int):
    """Returns the video processor of an encoder; of an encoder of images, its image processor, which takes each frame;
    or a default video processor.

    path: folder or Hub id of a pretrained encoder, or None for a fresh one. size: overrides the processor's size, in
    pixels. fallback_size: size of a default processor without a `size`, in pixels."""
    processor = None if path is None else saved_video_processor(path)
    if processor is None and path is not None and saved_processor(path) is not None:
        return load_processor(path, size, fallback_size)
    if processor is None:
        return default_video_processor(size or fallback_size)
    if size is not None:
        usual = default_video_processor(size)
        processor.size, processor.crop_size = usual.size, usual.crop_size
        processor.do_resize = processor.do_center_crop = True
    return processor


def default_video_processor(size: int):
    """Returns the video processor for an encoder without one.

    It resizes the shorter side to `size` pixels, crops the central square and scales to [-1, 1]."""
    return VideoMAEVideoProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def converted(processor, videos: bool):
    """Returns a video processor with size and normalisation of an image processor, or the other way round. Returns a
    processor that is of this kind already.

    videos: whether to return a video processor."""
    if is_of_videos(processor) == videos:
        return processor
    height, width = target_size(processor)
    mean, std = pixel_statistics(processor)
    other = (default_video_processor if videos else default_processor)(max(height, width))
    other.crop_size = type(other.crop_size)(height=height, width=width) if other.crop_size else None
    other.image_mean, other.image_std = (mean / 255).tolist(), (std / 255).tolist()
    return other
