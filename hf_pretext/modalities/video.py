"""Videos: a clip of each, with random crops and colours, and size and normalisation of a transformers processor.

row {"video"} -> decode frames at `at` -> one random crop, flip -> pixel_values_videos (F, 3, S, S) uint8  in a worker
batch (B, F, 3, S, S) uint8 -> change colours, normalise -> (B, F, 3, S, S) float                          on the device

Encoders of videos take frames together. Encoders of images take them one by one, see `features.encode`.
"""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from ..data.clips import Clip
from ..data.limits import LIMITS, Limits
from ..encoders import TRIED, image_sides, images_at_a_time, noise, refusal, takes_images
from ..modules.colors import COLOR_DRAWS
from ..modules.crops import CROP_DRAWS, crop_and_resize, random_box
from ..utils.settings import refuse_without_effect
from ..utils.units import in_seconds
from ._clips import ClipArguments, Part
from ._image_processor import (
    USUAL_SIZE,
    check_same,
    converted,
    default_video_processor,
    is_of_videos,
    load_video_processor,
    pixel_statistics,
    saved_processor,
    saved_video_processor,
    target_size,
)
from ._modality import Batch, Context, Example, Modality
from ._saved_clips import SavedClips, saved_clips, with_clips
from ._video_options import VideoArguments, check_lasts
from .image import Augmentation

__all__ = ["Video", "VideoArguments", "default_video_processor"]
FRAMES = 16  # of a clip; used if neither the processor nor the config has a number
USAGE = """
import torch
{% if frames_encoded == "separately" %}
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
video = torch.zeros({{ num_frames }}, 3, 100, 200, dtype=torch.uint8)  # for your video: RGB frames
with torch.no_grad():
    hidden = encoder(**processor(list(video), return_tensors="pt"){{ hidden_of }}
of_frames = hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden.mean(1)
features = of_frames.mean(0, keepdim=True)
{% else %}
from transformers import AutoModel, AutoVideoProcessor

processor = AutoVideoProcessor.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
video = torch.zeros({{ num_frames }}, 3, 100, 200, dtype=torch.uint8)  # for your video: RGB frames
with torch.no_grad():
    hidden = encoder(**processor([video], return_tensors="pt"){{ hidden_of }}
features = hidden.mean(1)
{% endif %}
print(encoder.__class__.__name__, features.shape)
"""
RESIZED = {"do_rescale": False, "do_normalize": False}  # arguments of a processor that gives uint8
INPUTS = ("pixel_values_videos", "pixel_values")  # argument names of video encoders


class Video(Modality):
    """Videos.

    processor: a transformers video processor; for an encoder of images, an image processor. It sets size and
    normalisation. Evaluation uses it unchanged. frames, fps: see `num_frames` and `fps` in `VideoArguments`. seconds:
    length of a clip; None: the full video. augmentation: the same for all frames of a clip; None for evaluation.
    limits: of one video.
    """

    name = "video"
    columns = ("video",)
    options = (ClipArguments, VideoArguments, Augmentation)
    samples = "videos"
    role, further_roles = "video_processor", ("image_processor",)  # that of an encoder of single frames
    processors = (ImageProcessingMixin,)
    processor_example = 'AutoVideoProcessor.from_pretrained("MCG-NJU/videomae-base")'
    timed = True
    fractions = (0.01, 0.1, 1.0)
    task_type, usage = "video-classification", USAGE
    packages = ("av", "torchvision")

    def __init__(
        self,
        processor,
        frames: int,
        fps: float | None = None,
        limits: Limits = LIMITS,
        seconds: float | None = None,
        augmentation: Augmentation | None = None,
    ):
        """Raises `ValueError` for a processor with outputs of varying size."""
        self.frames, self.fps, self.limits = frames, fps, limits
        self.seconds = frames / fps if seconds is None and fps is not None else seconds
        self.augmentation = augmentation
        self.use(processor)
        self.encoder_input = INPUTS[0]

    def use(self, processor) -> None:
        """Sets the processor, which saves the clips, too. Raises `ValueError` for one with outputs of varying size."""
        clips = SavedClips(self.name, self.seconds, self.frames, self.fps)
        self.processor, self.size = with_clips(processor, clips), target_size(processor)
        self.mean, self.std = (values[:, None, None] for values in pixel_statistics(processor))

    @classmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Video":
        """Builds the modality from options. Raises `ValueError` for frames that last longer than the clip, for seconds
        or fps next to full_video, and for a processor that `check_video_processor` rejects."""
        settings, clips = options[VideoArguments], options[ClipArguments]
        refuse_without_effect(clips, "seconds", settings.full_video, "clips, which are parts of videos (no full_video)")
        seconds = None if settings.full_video else clips.seconds
        check_lasts(settings, seconds)
        size = settings.video_size or context.image_size or USUAL_SIZE
        processor = context.processor or load_video_processor(context.start, settings.video_size, size)
        check_video_processor(cls(processor, 2))
        limits = replace(context.limits, frames=settings.max_video_frames)
        return cls(processor, settings.num_frames, settings.fps, limits, seconds, options[Augmentation])

    @classmethod
    def from_saved(
        cls, folder: str, encoder: PreTrainedModel, source: str, size: int | None = None, white: int | None = None
    ) -> "Video":
        """Builds the modality for a saved encoder, with clips as in training if its processor says so, else with frames
        spread over the video. Raises `ValueError` if it has no processor and no size is given."""
        if size is None and saved_video_processor(folder) is None and saved_processor(folder) is None:
            raise ValueError(f"{source} has no video processor. Save the encoder's video processor in its folder.")
        processor, clips = load_video_processor(folder, size, size or USUAL_SIZE), saved_clips(folder)
        frames = clips.num_frames or frames_of(encoder) or FRAMES
        videos = cls(processor, frames, clips.fps, seconds=clips.seconds)
        videos.fit(encoder)
        return videos

    @staticmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Returns batches of noise with the size and frame number of the encoder's config, for each of `INPUTS`, and
        of single frames, for an encoder of images."""
        frames = frames_of(encoder) or FRAMES
        names = INPUTS if encoder.main_input_name == INPUTS[0] else INPUTS[::-1]
        sides = image_sides(encoder)
        videos = [{name: noise(encoder, TRIED, frames, 3, *side)} for name in names for side in sides]
        return videos + [{"pixel_values": noise(encoder, images_at_a_time(encoder), 3, *side)} for side in sides]

    @staticmethod
    def words(results: Mapping) -> str:
        """Returns a description of the encoder's inputs from the results of a run."""
        return "videos of {} frames of {}x{} pixels".format(results["num_frames"], *results["video_size"])

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Returns sentences for a card on the place of frames, how they are encoded, and the augmentation."""
        fps, seconds = results["fps"], results["seconds"]
        clip = "each video" if seconds is None else f"a clip of {in_seconds(seconds)}"
        place = f"spread over {clip}" if fps is None else f"{fps:g} per second, in {clip}"
        encoded = " The encoder takes them one by one, and features are means over the frames."
        settings = ", ".join(f"{name} {value}" for name, value in (results["augmentation"] or {}).items())
        return [
            f"Frames: {place}, resized and cropped.{encoded if results['frames_encoded'] == 'separately' else ''}",
            f"Augmentation of a video, the same for all its frames: {settings or 'none'}.",
        ]

    def largest(self) -> str:
        """Returns a description of `noise` with its options."""
        height, width = self.size
        return f"Videos of {self.frames} frames (--num_frames) of {height}x{width} pixels (--video_size)"

    @property
    def outputs(self) -> tuple[str, ...]:
        """All columns that an example may have."""
        return self.encoder_input, "colors"

    @property
    def part(self) -> Part:
        """What it needs of a film."""
        return Part(self.seconds, self.fps, self.frames, limits=self.limits)

    def __call__(self, row: dict, random: np.random.Generator | None, at: float) -> Example:
        """Returns a clip, uint8 `(F, 3, S, S)`, and in training colors, `(8,)`: random numbers for the colours.

        Raises `BadSample` for a video that can't be read."""
        frames = self.part.clip(row["video"], at).frames
        if self.augmentation is None or random is None:
            return {self.encoder_input: self.by_processor(frames, **RESIZED)}
        draws = random.random(CROP_DRAWS + 1 + COLOR_DRAWS, dtype=np.float32)
        *crop, flip = draws[: CROP_DRAWS + 1].tolist()
        if self.augmentation.crop_scale < 1:
            frames = crop_and_resize(
                frames, random_box(frames.shape[-2:], self.augmentation.crop_scale, crop), self.size
            )
        else:
            frames = self.by_processor(frames, **RESIZED)
        if flip < self.augmentation.horizontal_flip:
            frames = frames.flip(-1)
        return {self.encoder_input: frames, "colors": torch.from_numpy(draws[CROP_DRAWS + 1 :])}

    def by_processor(self, frames: Tensor, **options) -> Tensor:
        """Returns what the processor makes of frames (uint8 `(F, 3, H, W)`): `(F, 3, S, S)`."""
        if is_of_videos(self.processor):
            made = self.processor([frames], return_tensors="pt", do_sample_frames=False, **options)
            return made[self.processor.model_input_names[0]][0]
        return self.processor(list(frames), return_tensors="pt", **options)["pixel_values"]

    def evaluation(self) -> "Video":
        """Returns the modality without augmentation."""
        other = copy.copy(self)
        other.augmentation = None
        return other

    def finish(self, batch: Batch) -> Batch:
        """Returns normalised float frames, `(B, F, 3, S, S)`, on the batch's device; in training with changed
        colours."""
        batch = dict(batch)
        pixels, draws = batch[self.encoder_input].to(torch.float32, copy=True), batch.pop("colors", None)
        if self.augmentation is not None and self.augmentation.changes_colors and draws is not None:
            frames, height = pixels.shape[1], pixels.shape[3]
            below = pixels.transpose(1, 2).flatten(2, 3)  # one image of all frames, so that they change alike
            changed = self.augmentation.change_colors(below, draws)
            pixels = changed.unflatten(2, (frames, height)).transpose(1, 2)
        mean, std = self.mean.to(pixels.device), self.std.to(pixels.device)
        return {**batch, self.encoder_input: pixels.sub_(mean).div_(std)}

    def shape(self) -> dict[str, int]:
        """Returns `image_size`, in pixels, and `num_frames`."""
        return {"image_size": self.size[0], "num_frames": self.frames}

    def fit(self, encoder: PreTrainedModel) -> None:
        """Sets `encoder_input` to the encoder's argument name, and an image processor for an encoder of images.

        Raises `ValueError` for an encoder of another kind, or of other sizes."""
        name = encoder.main_input_name
        if name not in INPUTS:
            raise ValueError(
                f"{type(encoder).__name__} takes {name}. Give a video encoder, which takes {' or '.join(INPUTS)}, or "
                "an image encoder."
            )
        self.encoder_input, images = name, takes_images(encoder)
        self.use(converted(self.processor, videos=not images))
        check_sizes(self, encoder, images and frames_of(encoder) is None)  # XCLIP's takes all frames of a video

    def noise(self, count: int = 2) -> Batch:
        """Returns normalised noise, `(count, F, 3, S, S)`."""
        pixels = torch.randint(0, 256, (count, self.frames, 3, *self.size), dtype=torch.uint8)
        return self.finish({self.encoder_input: pixels})

    def facts(self) -> dict:
        """Returns frame size, frame number, rate, length of clips and augmentation for results.json."""
        return {
            "video_size": list(self.size),
            "num_frames": self.frames,
            "fps": self.fps,
            "seconds": self.seconds,
            "frames_encoded": "together" if is_of_videos(self.processor) else "separately",
            "augmentation": None if self.augmentation is None else dataclasses.asdict(self.augmentation),
        }

    def images_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the middle frame of each clip, uint8 `(..., 3, S, S)`."""
        frames = batch[self.encoder_input][..., self.frames // 2, :, :, :]
        if frames.dtype == torch.uint8:
            return frames
        mean, std = self.mean.to(frames.device), self.std.to(frames.device)
        return (frames.float() * std + mean).round().clamp(0, 255).to(torch.uint8)


def frames_of(encoder: PreTrainedModel) -> int | None:
    """Returns the number of frames of a video that the encoder's config names; None without one."""
    return getattr(encoder.config, "num_frames", None) or getattr(encoder.config, "frames_per_clip", None)


def check_sizes(videos: Video, encoder: PreTrainedModel, images: bool) -> None:
    """Raises `ValueError` for an encoder that takes only other numbers of frames or pixels. It is tried, on noise, if
    its config names others.

    images: whether the encoder takes the frames one by one, any number of them."""
    frames, sides = () if images else (videos.frames,), image_sides(encoder)
    usual = {"--num_frames": frames_of(encoder) or videos.frames, "--video_size": sides[0][0]}
    if videos.size in sides and (images or usual["--num_frames"] == videos.frames):
        return
    tried = noise(encoder, TRIED, *frames, 3, *videos.size)
    reason = refusal(encoder, [{videos.encoder_input: tried}])
    if reason is not None:
        options = usual if not images else {"--video_size": usual["--video_size"]}
        fix = " ".join(f"{name} {value}" for name, value in options.items())
        raise ValueError(
            f"{videos.largest()} do not fit {type(encoder).__name__}. Give {fix}, as in its config, or another encoder."
            f" Its error: {reason}"
        )


def check_video_processor(videos: Video) -> None:
    """Raises `ValueError` if the processor gives other pixels than `Video` does."""
    height, width = videos.size
    ramp = torch.linspace(0, 255, 2 * 3 * (height + 9) * (width + 14)).view(2, 3, height + 9, width + 14)
    clip = Clip(ramp.to(torch.uint8), None, None, 0.0, 1.0)
    check_same(videos, {"video": clip}, lambda: videos.by_processor(clip.frames))
