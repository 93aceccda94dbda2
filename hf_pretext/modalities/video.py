"""Videos: a clip of each, with frames resized and cropped by a transformers video processor. No augmentation.

row {"video"} -> decode frames at `at` -> resize, crop -> pixel_values_videos (F, 3, S, S) uint8       in a worker
batch (B, F, 3, S, S) uint8 -> normalise -> (B, F, 3, S, S) float                                      on the device
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoVideoProcessor, PreTrainedModel, VideoMAEVideoProcessor

from ..data.clips import to_clip
from ..data.limits import LIMITS, Limits
from ..encoders import TRIED, image_sides, noise
from ..utils.foreign import refuse_custom_code
from ..utils.settings import accepts_ints
from ._image_processor import USUAL_SIZE, pixel_statistics, target_size
from ._modality import Batch, Context, Example, Modality

FRAMES = 16  # of a clip; used if the config has no number
USAGE = """
import torch
from transformers import AutoModel, AutoVideoProcessor

processor = AutoVideoProcessor.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
video = torch.zeros({{ num_frames }}, 3, 100, 200, dtype=torch.uint8)  # for your video: RGB frames
with torch.no_grad():
    hidden = encoder(**processor([video], return_tensors="pt"){{ hidden_of }}
features = hidden.mean(1)
print(encoder.__class__.__name__, features.shape)
"""
INPUTS = ("pixel_values_videos", "pixel_values")  # argument names of video encoders


@accepts_ints
@strict
@dataclass
class VideoArguments:
    """Options of videos.

    video_column: Column of the videos. If not set: detected from the column names and types.
    eval_video_column: Column of the videos in --eval_dataset. If not set: detected from the column names and types.
    num_frames: Number of frames of a clip.
    fps: Frames of a clip per second, so that a clip lasts `num_frames / fps` seconds at any frame rate of the video.
        Default: the frames are spread over the full video.
    video_size: Side of the square frames that the encoder takes, in pixels. Default: the size in the encoder's video
        processor, or else in its config, or else 224.
    max_video_frames: Videos of more frames count as bad samples.
    """

    _argument_group_name: ClassVar[str] = "videos"

    video_column: str | None = None
    eval_video_column: str | None = None
    num_frames: int = 16
    fps: float | None = None
    video_size: int | None = None
    max_video_frames: int = LIMITS.frames

    def validate_ranges(self):
        for name in ("num_frames", "video_size", "max_video_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps must be above 0, but is {self.fps}.")


class Video(Modality):
    """Videos.

    processor: a transformers video processor. It sets size and normalisation. frames, fps: see `num_frames` and `fps`
    in `VideoArguments`. limits: of one video.
    """

    name = "video"
    columns = ("video",)
    options = (VideoArguments,)
    samples = "videos"
    role = "video_processor"
    timed = True
    fractions = (0.01, 0.1, 1.0)
    task_type = "video-classification"
    packages = ("torchvision",)
    usage = USAGE

    def __init__(self, processor, frames: int, fps: float | None = None, limits: Limits = LIMITS):
        """Raises `ValueError` for a processor with outputs of varying size."""
        self.processor, self.frames, self.fps, self.limits = processor, frames, fps, limits
        self.size = target_size(processor)
        self.mean, self.std = pixel_statistics(processor)
        self.encoder_input = INPUTS[0]

    @classmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Video":
        """Builds the modality from options. Raises `ValueError` for a processor with outputs of varying size."""
        settings: VideoArguments = options[VideoArguments]
        size = settings.video_size or context.image_size or USUAL_SIZE
        processor = load_video_processor(context.start, settings.video_size, size)
        limits = replace(context.limits, frames=settings.max_video_frames)
        return cls(processor, settings.num_frames, settings.fps, limits)

    @classmethod
    def from_saved(
        cls, folder: str, encoder: PreTrainedModel, source: str, size: int | None = None, white: int | None = None
    ) -> "Video":
        """Builds the modality for a saved encoder. Raises `ValueError` if it has no processor and no size is given."""
        if size is None and saved_video_processor(folder) is None:
            raise ValueError(f"{source} has no video processor. Save the encoder's video processor in its folder.")
        frames = getattr(encoder.config, "num_frames", getattr(encoder.config, "frames_per_clip", FRAMES))
        videos = cls(load_video_processor(folder, size, size or USUAL_SIZE), frames)
        videos.fit(encoder)
        return videos

    @staticmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Returns batches of noise with the size and frame number of the encoder's config, for each of `INPUTS`."""
        config = encoder.config
        frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None) or FRAMES
        names = INPUTS if encoder.main_input_name == INPUTS[0] else INPUTS[::-1]
        clips = [{name: noise(encoder, TRIED, frames, 3, *side)} for name in names for side in image_sides(encoder)]
        return [*clips, *({INPUTS[1]: noise(encoder, TRIED, 3, *side)} for side in image_sides(encoder))]

    @staticmethod
    def words(results: Mapping) -> str:
        """Returns a description of the encoder's inputs from the results of a run."""
        return "videos of {} frames of {}x{} pixels".format(results["num_frames"], *results["video_size"])

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Returns a sentence for a card about the rate of frames."""
        fps = results["fps"]
        return [f"Frames: {'spread over each video' if fps is None else f'{fps:g} per second'}, resized and cropped."]

    def largest(self) -> str:
        """Returns a description of `noise` with its options."""
        height, width = self.size
        return f"Videos of {self.frames} frames (--num_frames) of {height}x{width} pixels (--video_size)"

    @property
    def outputs(self) -> tuple[str, ...]:
        """All columns that an example may have."""
        return (self.encoder_input,)

    def __call__(self, row: dict, random: np.random.Generator | None, at: float) -> Example:
        """Returns a clip, uint8 `(F, 3, S, S)`. Raises `BadSample` for a video that can't be read."""
        clip = to_clip(row["video"], fps=self.fps, frames=self.frames, at=at, limits=self.limits).frames
        asis = {"do_rescale": False, "do_normalize": False, "do_sample_frames": False}
        (frames,) = self.processor([clip], return_tensors="pt", **asis)[self.processor.model_input_names[0]]
        return {self.encoder_input: frames}

    def finish(self, batch: Batch) -> Batch:
        """Returns normalised float frames, `(B, F, 3, S, S)`, on the batch's device."""
        pixels = batch[self.encoder_input].to(torch.float32, copy=True)
        mean, std = (values.to(pixels.device)[:, None, None] for values in (self.mean, self.std))
        return {**batch, self.encoder_input: pixels.sub_(mean).div_(std)}

    def shape(self) -> dict[str, int]:
        """Returns `image_size`, in pixels, and `num_frames`."""
        return {"image_size": self.size[0], "num_frames": self.frames}

    def fit(self, encoder: PreTrainedModel) -> None:
        """Sets `encoder_input` to the encoder's argument name. Raises `ValueError` if it is not one of `INPUTS`."""
        name = encoder.main_input_name
        if name not in INPUTS:
            raise ValueError(
                f"{type(encoder).__name__} takes {name}. Give a video encoder, which takes {' or '.join(INPUTS)}."
            )
        self.encoder_input = name

    def noise(self, count: int = 2) -> Batch:
        """Returns normalised noise, `(count, F, 3, S, S)`."""
        pixels = torch.randint(0, 256, (count, self.frames, 3, *self.size), dtype=torch.uint8)
        return self.finish({self.encoder_input: pixels})

    def facts(self) -> dict:
        """Returns frame size, frame number and frame rate for results.json."""
        return {"video_size": list(self.size), "num_frames": self.frames, "fps": self.fps}

    def images_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the middle frame of each clip, uint8 `(..., 3, S, S)`."""
        frames = batch[self.encoder_input][..., self.frames // 2, :, :, :]
        if frames.dtype == torch.uint8:
            return frames
        mean, std = (values.to(frames.device)[:, None, None] for values in (self.mean, self.std))
        return (frames.float() * std + mean).round().clamp(0, 255).to(torch.uint8)


def saved_video_processor(path: str):
    """Returns the video processor of a folder or Hub id, or None if it has none.

    Raises `ValueError` for one that needs custom code."""
    try:
        return AutoVideoProcessor.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        refuse_custom_code(path, error)
        return None


def load_video_processor(path: str | None, size: int | None, fallback_size: int):
    """Returns the video processor of an encoder, or a default one.

    path: folder or Hub id of a pretrained encoder, or None for a fresh one. size: overrides the processor's size, in
    pixels. fallback_size: size of a default processor without a `size`, in pixels."""
    processor = None if path is None else saved_video_processor(path)
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
