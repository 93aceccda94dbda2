"""Row to tensors, and the last touches on the device.

    row {"image"} -> decode -> random crop, flip -> pixel_values (3, S, S) uint8, colors (8,)        in a worker
    batch (B, 3, S, S) uint8 -> change colours, normalise -> pixel_values (B, 3, S, S) float         on the device

Cropping needs pictures of any size, so it is done one by one; changing colours is one matrix product for the whole
batch, since brightness, contrast, saturation, hue, grey and swapped channels are all linear. The numbers behind both
are drawn from (seed, sample number) in the worker.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..stream.settings import Augmentation
from .decoding import HIGHEST_MAX_PIXELS, MAX_PIXELS, SHRINKS, open_image, pixels_of, to_pixels, to_rgb, upright_size

RATIO = (3 / 4, 4 / 3)  # of a random crop's sides, as everywhere
GRAY = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow and torchvision
CROP_DRAWS, COLOR_DRAWS = 4, 8
KEPT_BYTES = 2**28  # of decoded pictures, in each worker


class ImageProcessing:
    """What happens to a picture between its row and the model.

    processor: a transformers image processor. It says the size and the normalisation, and is what evaluation uses
    whole; so whoever loads it from the checkpoint gets our features.
    augmentation: None for evaluation.
    """

    def __init__(self, processor, augmentation: Augmentation | None = None, max_image_pixels: int = MAX_PIXELS):
        """Raises `ValueError` for a `max_image_pixels` that is not positive or above what Pillow itself allows."""
        if not 0 < max_image_pixels <= HIGHEST_MAX_PIXELS:
            raise ValueError(
                f"max_image_pixels must lie above 0 and at most at {HIGHEST_MAX_PIXELS:,}, but is {max_image_pixels:,}."
            )
        self.processor, self.augmentation, self.max_pixels = processor, augmentation, max_image_pixels
        self.size = target_size(processor)
        mean = processor.image_mean if processor.do_normalize else [0.0] * 3
        std = processor.image_std if processor.do_normalize else [1.0] * 3
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        self.mean, self.std = torch.tensor(mean) / scale, torch.tensor(std) / scale  # on pixels from 0 to 255
        self._kept: dict[str, Tensor] = {}
        self._room = KEPT_BYTES

    def __call__(self, row: dict, random: np.random.Generator | None) -> dict[str, Tensor]:
        """One example. Raises `BadSample` for a picture that can't be read."""
        if self.augmentation is None:
            image = to_pixels(open_image(row["image"], self.max_pixels))
            pixels = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
            return {"pixel_values": pixels[0]}
        draws = random.random(CROP_DRAWS + 1 + COLOR_DRAWS, dtype=np.float32)  # at once: a call costs as much as a crop
        *crop, flip = draws[: CROP_DRAWS + 1].tolist()
        image = self._cropped(row, crop)
        if flip < self.augmentation.horizontal_flip:
            image = image.flip(-1)
        return {"pixel_values": image, "colors": torch.from_numpy(draws[CROP_DRAWS + 1 :])}

    def _cropped(self, row: dict, draws: Sequence[float]) -> Tensor:
        """A random crop. Pixels of pictures that are never shrunk stay in memory while there is room, since decoding is
        most of the work. What came first stays: in a shuffled epoch none is more likely to come again."""
        smallest = self.augmentation.crop_scale
        image = self._kept.get(row.get("key"))
        if image is None:
            picture = open_image(row["image"], self.max_pixels)
            size = upright_size(picture)
            box = random_box(size, smallest, draws)
            shrink = next((n for n in SHRINKS if box[2] >= n * self.size[0] and box[3] >= n * self.size[1]), 1)
            picture = to_rgb(picture, shrink)
            box = scaled_box(box, size, (picture.height, picture.width))
            may_shrink = size[0] >= 2 * self.size[0] and size[1] >= 2 * self.size[1]  # by another crop
            if may_shrink or "key" not in row or 3 * picture.height * picture.width > self._room:
                return resize(pixels_of(picture, box), self.size)  # the rest need not be copied
            image = self._kept[row["key"]] = pixels_of(picture)
            self._room -= image.nbytes
        else:
            box = random_box(image.shape[1:], smallest, draws)
        return crop_and_resize(image, box, self.size)

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """uint8 pixels to the floats that the model wants, on the batch's device."""
        batch = dict(batch)
        pixels, draws = batch["pixel_values"].to(torch.float32, copy=True), batch.pop("colors", None)
        if self.augmentation is not None and self.augmentation.changes_colors:
            pixels = change_colors(pixels, draws, self.augmentation)
        return {**batch, "pixel_values": self.normalised_(pixels)}

    def normalised_(self, pixels: Tensor) -> Tensor:
        """Float pixels from 0 to 255 (`(B, 3, H, W)`), in place, as the processor says."""
        self.mean, self.std = self.mean.to(pixels.device), self.std.to(pixels.device)  # copied once
        return pixels.sub_(self.mean[:, None, None]).div_(self.std[:, None, None])


def random_box(size: Sequence[int], smallest: float, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of a picture, at least `smallest` of its area.

    size: height and width. draws: four numbers, uniform in [0, 1), for its area, the ratio of its sides, its top and
    its left.
    """
    height, width = size
    area = height * width * (smallest + (1 - smallest) * draws[0])
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** draws[1] if smallest < 1 else width / height
    w = min(max(round(math.sqrt(area * ratio)), 1), width)
    h = min(max(round(math.sqrt(area / ratio)), 1), height)
    return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w


def scaled_box(box: Sequence[int], size: Sequence[int], new: Sequence[int]) -> tuple[int, int, int, int]:
    """The same part of a picture that has the height and width `new` instead of `size`."""
    top, bottom = (round(at * new[0] / size[0]) for at in (box[0], box[0] + box[2]))
    left, right = (round(at * new[1] / size[1]) for at in (box[1], box[1] + box[3]))
    return top, left, max(bottom - top, 1), max(right - left, 1)


def crop_and_resize(image: Tensor, box: Sequence[int], size: tuple[int, int]) -> Tensor:
    """A part of a picture (uint8 `(3, H, W)`) at another size, as uint8 `(3, *size)`."""
    top, left, h, w = box
    return resize(image[:, top : top + h, left : left + w], size)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture (uint8 `(3, H, W)`) at another size, as uint8 `(3, *size)`."""
    if image.shape[1:] == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def change_colors(pixels: Tensor, draws: Tensor, settings: Augmentation) -> Tensor:
    """Changes the colours of each picture by its own draw, all in one matrix product.

    pixels (`(B, 3, H, W)`, 0 to 255), draws (`(B, 8)`, uniform in [0, 1)). Returns pixels, clamped to 0 to 255.
    """
    gray = torch.tensor(GRAY, device=pixels.device)
    eye = torch.eye(3, device=pixels.device)
    brightness, contrast, saturation = (1 + settings.color_jitter * (2 * draws[:, :3] - 1)).T
    saturation = torch.where(draws[:, 3] < settings.grayscale, 0.0, saturation)
    matrix = hue_rotation((2 * draws[:, 4] - 1) * settings.hue * 2 * math.pi)  # (B, 3, 3)
    matrix = torch.lerp(gray.expand(3, 3), eye, saturation[:, None, None]) @ matrix
    shuffled = eye[draws[:, 5:8].argsort(dim=1)]  # a permutation matrix for each picture
    swaps = (draws[:, 5:8].sum(1) * 997 % 1 < settings.channel_shuffle)[:, None, None]
    matrix = torch.where(swaps, shuffled @ matrix, matrix) * brightness[:, None, None]
    level = (pixels.mean((2, 3))[:, None] @ matrix.mT)[:, 0] @ gray  # mean grey after all that, (B,)
    offset = ((1 - contrast) * level)[:, None, None].expand(-1, 3, 1)
    changed = torch.baddbmm(offset, matrix * contrast[:, None, None], pixels.flatten(2))
    return changed.clamp_(0, 255).view_as(pixels)


def hue_rotation(angle: Tensor) -> Tensor:
    """Rotations of RGB space about its grey axis (Rodrigues' formula). angle (`(B,)`, radians). Returns `(B, 3, 3)`."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    eye, ones = torch.eye(3, device=angle.device), torch.full((3, 3), 1 / 3, device=angle.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device) / math.sqrt(3)
    return cos * eye + (1 - cos) * ones + sin * cross


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
    """Height and width that a processor gives. Raises `ValueError` where it gives pictures of any size."""
    sizes = [getattr(processor, "crop_size", None)] if getattr(processor, "do_center_crop", False) else []
    for size in [*sizes, getattr(processor, "size", None)]:
        size = dict(size or {})
        if size.get("height") and size.get("width"):
            return size["height"], size["width"]
    raise ValueError(
        f"{type(processor).__name__} gives pictures of varying size ({processor.size}); set one with --image_size."
    )


def own_processor(encoder_path: str):
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
    processor = own_processor(encoder_path) if encoder_path is not None else None
    if processor is not None and hasattr(processor, "data_config"):  # timm's wrapper: the same in transformers' words
        data = processor.data_config
        processor = default_processor(image_size or data["input_size"][-1])
        processor.image_mean, processor.image_std = list(data["mean"]), list(data["std"])
    elif processor is None:
        processor = default_processor(image_size or fallback_size)
    elif image_size is not None:
        processor.do_center_crop, processor.do_resize = True, True
        processor.size = type(default_processor(image_size).size)(shortest_edge=image_size)
        processor.crop_size = default_processor(image_size).crop_size
    return processor
