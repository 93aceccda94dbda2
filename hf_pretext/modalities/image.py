"""Images: random crops and colours, with size and normalisation of a transformers image processor.

row {"image"} -> decode -> random crop, flip -> pixel_values (3, S, S) uint8, colors (8,)        in a worker
batch (B, 3, S, S) uint8 -> change colours, normalise -> pixel_values (B, 3, S, S) float         on the device

Images have different sizes, so a worker crops them one by one. The device changes the colours of a batch in one matrix
product. The random numbers of both are drawn in the worker from (seed, sample number).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from ..data.decoding import (
    SHRINKS,
    open_image,
    pixels_of,
    to_pixels,
    to_rgb,
    upright_size,
)
from ..data.limits import LIMITS, Limits
from ..encoders import TRIED, image_side, image_sides, noise
from ..modules.colors import COLOR_DRAWS, change_colors
from ..modules.crops import CROP_DRAWS, crop_and_resize, random_box, resize, scaled_box
from ..modules.lab import gray_of
from ..utils.settings import accepts_ints
from ._image_processor import (
    USUAL_SIZE,
    check_same,
    default_processor,
    is_of_videos,
    load_processor,
    pixel_statistics,
    plain_processor,
    saved_processor,
    target_size,
)
from ._modality import Batch, Context, Example, Modality

__all__ = [
    "Augmentation",
    "Image",
    "ImageArguments",
    "default_processor",
    "load_processor",
    "saved_processor",
    "target_size",
]
COLOR_OPTIONS = ("color_jitter", "hue", "grayscale", "channel_shuffle")  # of `Augmentation`
UNCHANGED = {"crop_scale": 1.0, **dict.fromkeys(("horizontal_flip", *COLOR_OPTIONS), 0.0)}  # no augmentation
KEPT_BYTES = 2**28  # memory for decoded images, in each worker


USAGE = """
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
image = Image.new("RGB", (200, 100), "orange")  # for your image: Image.open("image.png").convert("RGB")
with torch.no_grad():
    hidden = encoder(**processor(image, return_tensors="pt"){{ hidden_of }}
features = hidden{{ pooled }}  # from the layer of the linear probe under "Transfer"
print(encoder.__class__.__name__, features.shape)
"""


@strict
@dataclass
class ImageArguments:
    """Options of images.

    image_column: Column of the images. If not set: detected from the column names and types.
    eval_image_column: Column of the images in --eval_dataset. If not set: detected.
    image_size: Side of the square input images, in pixels. If not set: the size in the encoder's image processor, else
        in its config, else 224.
    image_white: Pixel value that becomes white in images of more than 8 bits, e.g. 4095 for 12 bits. If not set: what
        the file states, else 65535 for 16 bits.
    """

    _argument_group_name: ClassVar[str] = "images"

    image_column: str | None = None
    eval_image_column: str | None = None
    image_size: int | None = None
    image_white: int | None = None

    def validate_image_size(self):
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, but is {self.image_size}.")

    def validate_image_white(self):
        if self.image_white is not None and self.image_white < 1:
            raise ValueError(f"image_white must be at least 1, but is {self.image_white}. Give 4095 for 12 bits.")


@accepts_ints
@strict
@dataclass
class Augmentation:
    """Augmentation of training images. Evaluation images are not augmented.

    crop_scale: Smallest share of the image area that a random crop keeps, above 0 and at most 1. With 1 there is
        no random crop: images are resized and cropped as in evaluation.
    horizontal_flip: Probability of a horizontal flip, 0 to 1.
    color_jitter: Strength x of colour jitter, 0 to 1. Brightness, contrast and saturation are multiplied by random
        factors from [1 - x, 1 + x].
    hue: Largest random rotation of hues, as a share of the colour circle, 0 to 0.5.
    grayscale: Probability of converting an image to grayscale, 0 to 1.
    channel_shuffle: Probability of a random permutation of the colour channels, 0 to 1.
    """

    _argument_group_name: ClassVar[str] = "augmentation"

    crop_scale: float = 0.5
    horizontal_flip: float = 0.5
    color_jitter: float = 0.4
    hue: float = 0.0
    grayscale: float = 0.0
    channel_shuffle: float = 0.0

    @property
    def changes_colors(self) -> bool:
        """True if any option changes colours."""
        return any(getattr(self, name) for name in COLOR_OPTIONS)

    def change_colors(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Returns pixels (`(B, 3, H, W)`, 0 to 255) with changed colours. draws (`(B, 8)`): random numbers of each
        image, uniform in [0, 1), see `modules.colors.change_colors`."""
        return change_colors(pixels, draws, self.color_jitter, self.hue, self.grayscale, self.channel_shuffle)

    def validate_ranges(self):
        highest = dict(horizontal_flip=1, color_jitter=1, hue=0.5, grayscale=1, channel_shuffle=1)
        for name, high in highest.items():
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be between 0 and {high}, but is {getattr(self, name)}.")
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale must be above 0 and at most 1, but is {self.crop_scale}.")


class Image(Modality):
    """Images.

    processor: a transformers image processor. It sets size and normalisation. Evaluation uses it unchanged, so the
    processor that is saved with the checkpoint gives the features of the evaluation. augmentation: None for evaluation.
    limits: of one image. white: value of white in images of more than 8 bits, see `data.decoding.to_rgb`. gray: whether
    images become gray, of the same lightness.
    """

    name = "image"
    columns = ("image",)
    options = (ImageArguments, Augmentation)
    samples = "images"
    role = "image_processor"
    processors = (ImageProcessingMixin,)
    processor_example = 'AutoImageProcessor.from_pretrained("google/vit-base-patch16-224")'
    encoder_input = "pixel_values"
    task_type = "image-classification"
    packages = ("pillow",)
    usage = USAGE
    outputs = ("pixel_values", "colors")

    def __init__(
        self,
        processor,
        augmentation: Augmentation | None = None,
        limits: Limits = LIMITS,
        white: int | None = None,
        gray: bool = False,
    ):
        self.processor, self.augmentation, self.limits = processor, augmentation, limits
        self.white, self.gray = white, gray
        self.size = target_size(processor)
        self.mean, self.std = pixel_statistics(processor)
        self._kept: dict[str, Tensor] = {}
        self._room = KEPT_BYTES

    @classmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Image":
        """Builds the modality from options. Raises `ValueError` for a processor that `check_processor` rejects."""
        given: ImageArguments = options[ImageArguments]
        processor = context.processor and plain_processor(context.processor)
        if processor is None:
            processor = load_processor(context.start, given.image_size, context.image_size or USUAL_SIZE)
        check_processor(cls(processor))  # without the limits, which its image may exceed
        return cls(processor, options[Augmentation], context.limits, given.image_white)

    @classmethod
    def processor_in(cls, processing_class: Any) -> Any:
        """Returns the image processor in `processing_class`, as `Modality.processor_in`; None for one of videos."""
        processor = super().processor_in(processing_class)
        return None if processor is None or is_of_videos(processor) else processor

    @classmethod
    def default_processor(cls, encoder: PreTrainedModel | None) -> Any:
        """Returns the image processor that was saved with an encoder; for a fresh encoder, the default one of the size
        in its config. None without a size, and for a trained encoder without a processor."""
        start, side = getattr(encoder, "name_or_path", ""), image_side(encoder) if encoder is not None else None
        if start:
            return saved_processor(start)
        return default_processor(side[0]) if side is not None and side[0] == side[1] else None

    @classmethod
    def from_saved(
        cls, folder: str, encoder: PreTrainedModel, source: str, size: int | None = None, white: int | None = None
    ) -> "Image":
        """Builds the modality for a saved encoder. Raises `ValueError` if it has no processor and no size is given."""
        if size is None and saved_processor(folder) is None:
            raise ValueError(
                f"{source} has no image processor, so size and normalisation of its images are unknown. Save the "
                "encoder's image processor in its folder (for an encoder in a sub-folder, give the model's folder), or "
                "give --image_size, which scales images to [-1, 1]."
            )
        return cls(load_processor(folder, size, size or USUAL_SIZE), white=white)

    @staticmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Returns batches of noise with the image size of the encoder's config."""
        return [{"pixel_values": noise(encoder, TRIED, 3, *side)} for side in image_sides(encoder)]

    @staticmethod
    def words(results: Mapping) -> str:
        """Returns a description of the encoder's inputs from the results of a run."""
        return "images of {}x{} pixels".format(*results["image_size"])

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Returns sentences for a card on the augmentation and the value of white, from the results of a run."""
        settings = ", ".join(f"{name} {value}" for name, value in (results["augmentation"] or {}).items())
        white = results.get("image_white")
        scaled = f"In images of more than 8 bits, {white} is the value of white (`--image_white`); scale yours alike."
        return [f"Augmentation: {settings or 'none'}.", *([scaled] if white else [])]

    def largest(self) -> str:
        """Returns a description of `noise` with its options."""
        return "Images of {}x{} pixels (--image_size)".format(*self.size)

    def __call__(self, row: dict, random: np.random.Generator | None, at: float = 0.0) -> Example:
        """Returns pixel_values, uint8 `(3, S, S)`, and in training colors, `(8,)`: random numbers for the colours.

        Raises `BadSample` for an image that can't be read."""
        if self.augmentation is None or random is None:
            return {"pixel_values": self._processed(row)}
        draws = random.random(CROP_DRAWS + 1 + COLOR_DRAWS, dtype=np.float32)  # one call: each costs as much as a crop
        *crop, flip = draws[: CROP_DRAWS + 1].tolist()
        image = self._cropped(row, crop) if self.augmentation.crop_scale < 1 else self._processed(row)
        if flip < self.augmentation.horizontal_flip:
            image = image.flip(-1)
        return {"pixel_values": image, "colors": torch.from_numpy(draws[CROP_DRAWS + 1 :])}

    def _processed(self, row: dict) -> Tensor:
        """Returns an image that the processor resized and cropped, uint8 `(3, S, S)`."""
        image = to_pixels(open_image(row["image"], self.limits), white=self.white)
        return self.processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]

    def _cropped(self, row: dict, draws: Sequence[float]) -> Tensor:
        """Returns a random crop, uint8 `(3, S, S)`. draws: four numbers, uniform in [0, 1), see `random_box`.

        Decoding is most of the work, so decoded pixels stay in memory, up to `KEPT_BYTES`. Large images do not, since
        they are decoded at a reduced size. The first images stay: after a shuffle all are equally likely to come again.
        """
        smallest = self.augmentation.crop_scale
        image = self._kept.get(row.get("key"))
        if image is None:
            encoded = open_image(row["image"], self.limits)
            size = upright_size(encoded)
            box = random_box(size, smallest, draws)
            shrinks = () if isinstance(row["image"], PIL.Image.Image) else SHRINKS  # it would stay small
            shrink = next((n for n in shrinks if box[2] >= n * self.size[0] and box[3] >= n * self.size[1]), 1)
            decoded = to_rgb(encoded, shrink, self.white)
            box = scaled_box(box, size, (decoded.height, decoded.width))
            may_shrink = size[0] >= 2 * self.size[0] and size[1] >= 2 * self.size[1]  # for another crop
            if may_shrink or "key" not in row or 3 * decoded.height * decoded.width > self._room:
                return resize(pixels_of(decoded, box), self.size)  # copies the crop only
            image = self._kept[row["key"]] = pixels_of(decoded)
            self._room -= image.nbytes
        else:
            box = random_box(image.shape[1:], smallest, draws)
        return crop_and_resize(image, box, self.size)

    def evaluation(self) -> "Image":
        """Returns the modality without augmentation."""
        return Image(self.processor, None, self.limits, self.white, self.gray)

    def for_views(self) -> "Image":
        """Returns the modality with the augmentation of training; with the default one if that changes nothing."""
        changes = self.augmentation is not None and dataclasses.asdict(self.augmentation) != UNCHANGED
        augmentation = self.augmentation if changes else Augmentation()
        return Image(self.processor, augmentation, self.limits, self.white, self.gray)

    def in_gray(self) -> "Image":
        """Returns the modality without augmentation, with images in grey of the same lightness."""
        return Image(self.processor, None, self.limits, self.white, gray=True)

    def finish(self, batch: Batch) -> Batch:
        """Returns normalised float pixel_values, `(B, 3, H, W)`, in training with changed colours."""
        batch = dict(batch)
        pixels, draws = batch["pixel_values"].to(torch.float32, copy=True), batch.pop("colors", None)
        if self.augmentation is not None and self.augmentation.changes_colors and draws is not None:
            pixels = self.augmentation.change_colors(pixels, draws)
        if self.gray:
            pixels = (255 * gray_of(pixels / 255)).repeat(1, 3, 1, 1)
        return {**batch, "pixel_values": self.normalised_(pixels)}

    def normalised_(self, pixels: Tensor) -> Tensor:
        """Normalises float pixels from 0 to 255 (`(B, 3, H, W)`) in place, as the processor does. Returns them."""
        self.mean, self.std = self.mean.to(pixels.device), self.std.to(pixels.device)  # keeps the copy
        return pixels.sub_(self.mean[:, None, None]).div_(self.std[:, None, None])

    def shape(self) -> dict[str, int]:
        """Returns `image_size`, in pixels."""
        return {"image_size": self.size[0]}

    def noise(self, count: int = 2) -> Batch:
        """Returns normalised noise, pixel_values `(count, 3, S, S)`."""
        return {"pixel_values": self.normalised_(torch.randint(0, 256, (count, 3, *self.size)).float())}

    def facts(self) -> dict:
        """Returns the size, the augmentation, and the value of white if it is set."""
        augmentation = None if self.augmentation is None else dataclasses.asdict(self.augmentation)
        white = {} if self.white is None else {"image_white": self.white}
        return {"image_size": list(self.size), "augmentation": augmentation, **white}

    def images_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns uint8 images, `(..., 3, S, S)`. Undoes the normalisation of finished batches."""
        pixels = batch["pixel_values"]
        if pixels.dtype == torch.uint8:
            return pixels
        mean, std = (values.to(pixels.device)[:, None, None] for values in (self.mean, self.std))
        return (pixels.float() * std + mean).round().clamp(0, 255).to(torch.uint8)


def check_processor(images: Image) -> None:
    """Raises `ValueError` if the processor gives other pixels than `Image` does: the processor in the checkpoint would
    then give other features than the encoder was trained on."""
    height, width = images.size
    ramp = torch.linspace(0, 255, 3 * (height + 9) * (width + 14)).view(height + 9, width + 14, 3)
    image = PIL.Image.fromarray(ramp.to(torch.uint8).numpy())
    check_same(images, {"image": image}, lambda: images.processor(image, return_tensors="pt")["pixel_values"][0])
