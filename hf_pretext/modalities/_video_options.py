"""Options of videos, and the check that their frames fit into a clip."""

from dataclasses import dataclass
from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ..data.limits import LIMITS
from ..utils.settings import accepts_ints, refuse_without_effect
from ..utils.units import in_seconds


@accepts_ints
@strict
@dataclass
class VideoArguments:
    """Options of videos.

    video_column: Column of the videos. If not set: detected from the column names and types.
    eval_video_column: Column of the videos in --eval_dataset. If not set: detected from the column names and types.
    num_frames: Number of frames of a clip.
    fps: Frames per second, at any frame rate of the video. The frames last `num_frames / fps` seconds, in the middle of
        the clip. Default: the frames are spread over the clip.
    full_video: A clip is the full video, of any length, in place of --seconds.
    video_size: Side of the square frames that the encoder takes, in pixels. Default: the size in the encoder's video
        processor, or else in its config, or else 224.
    max_video_frames: Videos of more frames count as bad samples.
    """

    _argument_group_name: ClassVar[str] = "videos"

    video_column: str | None = None
    eval_video_column: str | None = None
    num_frames: int = 16
    fps: float | None = None
    full_video: bool = False
    video_size: int | None = None
    max_video_frames: int = LIMITS.frames

    def validate_ranges(self):
        for name in ("num_frames", "video_size", "max_video_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps must be above 0, but is {self.fps}.")


def check_lasts(settings: VideoArguments, seconds: float | None) -> None:
    """Raises `ValueError` for frames that last longer than a clip of `seconds`, and for fps in full videos (None)."""
    if seconds is None:
        refuse_without_effect(settings, "fps", True, "clips. With full_video, frames are spread over the video")
        return
    lasts = settings.num_frames / settings.fps if settings.fps else 0
    if lasts > seconds * (1 + 1e-6):
        raise ValueError(
            f"{settings.num_frames} frames (--num_frames) at {settings.fps:g} a second (--fps) last "
            f"{in_seconds(lasts)}, longer than a clip of {in_seconds(seconds)} (--seconds). Give --seconds {lasts:g}, "
            "fewer frames or a higher --fps."
        )
