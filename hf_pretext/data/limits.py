"""Limits of what one sample may cost, and the error for a sample that can't be used.

All limits are counts, not times: a slower machine would otherwise see other samples.
"""

from dataclasses import dataclass

from ..utils.units import in_seconds

MAX_PIXELS = 89_478_485  # Pillow warns of a decompression bomb above this
CLIP = 8  # times the pixels of a frame in all frames of a clip: 21 frames of 8K video


class BadSample(ValueError):
    """A sample can't be used; the message is the reason."""


@dataclass(frozen=True)
class Limits:
    """A sample above one of these limits is a bad sample. `StreamSettings`, `VideoArguments` and `AudioArguments` have
    the options that set them.

    bytes: size of an encoded sample. pixels: of an image, or a frame of a video. frames: of a video. seconds: length of
    a sound.
    """

    bytes: int = 2**30
    pixels: int = MAX_PIXELS
    frames: int = 500_000
    seconds: float = 4 * 3600

    def check_bytes(self, size: int) -> None:
        """Raises `BadSample` for an encoded sample of too many bytes."""
        if size > self.bytes:
            raise BadSample(f"{size:,} bytes, more than {self.bytes:,} (--max_sample_bytes)")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises `BadSample` for an image or a frame of too many pixels."""
        if width * height > self.pixels:
            raise BadSample(f"{width}x{height} pixels, more than {self.pixels:,} (--max_image_pixels)")

    def check_clip(self, frames: int, width: int, height: int) -> None:
        """Raises `BadSample` for frames that together take too much memory. They are in memory at the same time."""
        if frames * width * height > CLIP * self.pixels:
            raise BadSample(
                f"{frames} frames of {width}x{height} pixels, more than {CLIP * self.pixels:,} ({CLIP} times "
                "--max_image_pixels)"
            )

    def check_frames(self, frames: int) -> None:
        """Raises `BadSample` for a video of too many frames."""
        if frames > self.frames:
            raise BadSample(f"more than {self.frames:,} frames (--max_video_frames)")

    def check_seconds(self, seconds: float) -> None:
        """Raises `BadSample` for a sound that is too long."""
        if seconds > self.seconds:
            raise BadSample(f"more than {in_seconds(self.seconds)} of sound (--max_sound_seconds)")


LIMITS = Limits()
