"""Bytes to pictures, sound, video and text, guarded: what can't be used is a `BadSample`, never the end of a run.

{"bytes": ..., "path": ...} -> picture (3, H, W) uint8 | sound (T,) float | video (F, 3, H, W) uint8
"""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 89_478_485  # Pillow's own: above this a picture is taken for a decompression bomb
HIGHEST_MAX_PIXELS = 2 * MAX_PIXELS  # beyond, Pillow itself refuses
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow knows far more, which nobody trains on
UNREADABLE = "unreadable"  # the entry of a row that could not even be read, with the reason
SHRINKS = (8, 4, 2)  # what libjpeg can divide a picture's sides by while it decodes
TURNED = range(2, 9)  # EXIF orientations of pictures that do not stand upright
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # grey of 16 bits, in Pillow's words
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,flv,gif"  # in FFmpeg's words; its playlists
# (HLS, concat) are left out, since they open other files and addresses


class BadSample(ValueError):
    """A sample that can't be used, and why."""


@contextmanager
def guarded(what: str = "picture") -> Iterator[None]:
    """Turns whatever a decoder says of damaged content into `BadSample`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged EXIF block, and the like
            yield
    except BadSample:
        raise
    except UnidentifiedImageError:
        raise BadSample("not a picture") from None
    except Exception as error:  # a damaged file may raise anything: OSError, struct.error, KeyError, ...
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise BadSample(f"damaged {what}: {reason[:200]}") from error


def to_image(value: dict | bytes | Image.Image, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A picture as the `datasets` library hands it over undecoded, to RGB pixels, upright as its EXIF says.

    Returns uint8 `(3, H, W)`. Raises `BadSample` for what is no readable picture, or a huge one.
    """
    return to_pixels(open_image(value, max_pixels))


def open_image(value: dict | bytes | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture whose header alone was read. Raises `BadSample` for what is none, or has more than `max_pixels`."""
    if isinstance(value, (dict, bytes, bytearray)):
        value = content_of(value)
        with guarded():
            value = Image.open(io.BytesIO(value), formats=FORMATS)
    if not isinstance(value, Image.Image):
        raise BadSample(f"no picture but {type(value).__name__}")
    if value.width * value.height > max_pixels:
        raise BadSample(f"{value.width}x{value.height} pixels, more than {max_pixels:,} (--max_image_pixels)")
    return value


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Height and width of a picture once it stands as its EXIF says."""
    with guarded():
        # a TIFF's size has been swapped by Pillow already
        sideways = picture.format != "TIFF" and picture.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    return (picture.width, picture.height) if sideways else (picture.height, picture.width)


def to_pixels(picture: Image.Image, shrink: int = 1) -> Tensor:
    """Any picture to RGB pixels (see `to_rgb`). Returns uint8 `(3, H, W)`."""
    return pixels_of(to_rgb(picture, shrink))


def to_rgb(picture: Image.Image, shrink: int = 1) -> Image.Image:
    """Any picture to RGB, decoded, upright, the first frame of several; what is transparent lies on white.

    shrink: 1, 2, 4 or 8: a JPEG is decoded with sides so many times smaller, which is many times faster. Other formats
    keep their size. Raises `BadSample` for a damaged picture.
    """
    with guarded():
        if shrink > 1 and picture.format == "JPEG":
            picture.draft("RGB", (picture.width // shrink, picture.height // shrink))
        picture.load()
        if picture.getexif().get(ExifTags.Base.Orientation) in TURNED:  # else it would only copy the picture
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in DEEP:  # Pillow would cut off at 255
            values = np.asarray(picture).astype(np.float32) / 257
            picture = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
        elif picture.mode in TRANSPARENT or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        elif picture.mode == "F":
            raise BadSample("pixels are floating-point numbers, whose range is unknown")
        return picture if picture.mode == "RGB" else picture.convert("RGB")


def pixels_of(picture: Image.Image, box: Sequence[int] | None = None) -> Tensor:
    """The pixels of a decoded RGB picture, or of a part of it (top, left, height, width), as uint8 `(3, H, W)`."""
    if box is not None:
        top, left, height, width = box
        picture = picture.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # channels last in memory: resizing is fastest so


def to_sound(value: dict | bytes, sampling_rate: int, seconds: float, at: float = 0.0) -> Tensor:
    """A part of a sound, as one channel (the mean of all) at a sampling rate, in Hz.

    at: where the part begins, from 0 (the start) to 1 (so late that it just fits). A sound shorter than `seconds` comes
    whole. No more than the part is decoded. Returns float32 `(T,)` in [-1, 1], T at most `seconds * sampling_rate`.
    Raises `BadSample` for what is no sound, an empty one, or one that breaks off; `ImportError` without `soundfile`.
    """
    soundfile = needed("soundfile", "audio")
    from scipy.signal import resample_poly

    content = content_of(value, "sound")
    with guarded("sound"), soundfile.SoundFile(io.BytesIO(content)) as file:
        wanted = min(math.ceil(seconds * file.samplerate), file.frames)
        file.seek(int(at * (file.frames - wanted)))
        samples = file.read(wanted, dtype="float32", always_2d=True).mean(1)
        if not wanted:
            raise BadSample("empty sound")
        if len(samples) < wanted:
            raise BadSample(f"damaged sound: it ends {wanted - len(samples):,} samples early")
        if not np.isfinite(samples).all():
            raise BadSample("damaged sound: not all samples are finite")
        if file.samplerate != sampling_rate:
            shared = math.gcd(sampling_rate, file.samplerate)
            samples = resample_poly(samples, sampling_rate // shared, file.samplerate // shared)
    return torch.from_numpy(samples[: round(seconds * sampling_rate)].astype(np.float32, copy=False))


def sound_of_video(value: dict | bytes, sampling_rate: int, seconds: float, at: float = 0.0) -> Tensor:
    """A part of a film's sound, as `to_sound` gives that of a sound file.

    The film's sound is decoded in full. Returns float32 `(T,)`, T at most `seconds * sampling_rate`.
    Raises `BadSample` for what is no film, or one without sound; `ImportError` without `av`.
    """
    av = needed("av", "video")
    content = content_of(value, "video")
    with (
        guarded("sound of a video"),
        av.open(io.BytesIO(content), options={"format_whitelist": CONTAINERS}) as file,
    ):
        if not file.streams.audio:
            raise BadSample("no sound in the video")
        resampler, parts = av.AudioResampler(format="fltp", rate=sampling_rate), []
        for frame in file.decode(file.streams.audio[0]):
            parts += [resampled.to_ndarray().mean(0) for resampled in resampler.resample(frame)]
        parts += [resampled.to_ndarray().mean(0) for resampled in resampler.resample(None)]
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    wanted = min(round(seconds * sampling_rate), len(samples))
    if not wanted:
        raise BadSample("empty sound of a video")
    if not np.isfinite(samples).all():
        raise BadSample("damaged sound of a video: not all samples are finite")
    first = int(at * (len(samples) - wanted))
    return torch.from_numpy(samples[first : first + wanted].astype(np.float32, copy=True))


def to_video(
    value: dict | bytes, frames: int, at: float = 0.0, stride: int | None = None, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Frames of a video as RGB pixels: all `stride` frames apart, or spread over all of it where that is None.

    at: where the first lies, from 0 (the start) to 1 (so late that the last just fits). A video that is too short for
    the stride has its frames closer together, or several times. Returns uint8 `(frames, 3, H, W)`. Raises `BadSample`
    for what is no video, one that breaks off, or huge frames; `ImportError` without `av`.
    """
    av = needed("av", "video")
    content = content_of(value, "video")

    def opened():
        return av.open(io.BytesIO(content), options={"format_whitelist": CONTAINERS})

    with guarded("video"):
        with opened() as file:
            if not file.streams.video:
                raise BadSample("no video in it")
            promised = file.streams.video[0].frames  # 0 where the container does not say
            available = sum(packet.size > 0 for packet in file.demux(file.streams.video[0]))
        if available < max(promised, 1):
            raise BadSample(f"damaged video: it ends after {available:,} of {promised:,} frames")
        apart = (available - 1) / max(frames - 1, 1)
        apart = apart if stride is None else min(apart, stride)
        first = at * (available - 1 - apart * (frames - 1))
        wanted = [round(first + i * apart) for i in range(frames)]
        decoded = {}
        with opened() as file:
            stream = file.streams.video[0]
            if stream.width * stream.height > max_pixels:
                raise BadSample(f"{stream.width}x{stream.height} pixels, more than {max_pixels:,} (--max_image_pixels)")
            for number, frame in zip(range(wanted[-1] + 1), file.decode(stream), strict=False):
                if number in wanted:
                    decoded[number] = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
        if missing := set(wanted) - set(decoded):
            raise BadSample(f"damaged video: {len(missing)} of {frames} frames can't be decoded")
        return torch.stack([decoded[number] for number in wanted])


def needed(package: str, extra: str):
    """A package that is not always needed. Raises `ImportError` that says how to install it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(f"This needs {package}: pip install 'hf_pretext[{extra}]'") from error


def to_text(value) -> str:
    """A text. Raises `BadSample` for what is none, or blank."""
    if not isinstance(value, str):
        raise BadSample(f"no text but {type(value).__name__}")
    if not value.strip():
        raise BadSample("blank text")
    return value


def content_of(value: dict | bytes, what: str = "picture") -> bytes:
    """The bytes of what the `datasets` library hands over undecoded. Raises `BadSample` where there are none."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else read_file(value.get("path"))
    if not isinstance(value, (bytes, bytearray)):
        raise BadSample(f"no {what} but {type(value).__name__}")
    if not value:
        raise BadSample("no bytes")
    return value


def read_file(path: str | None) -> bytes:
    """The content of a file. Raises `BadSample` where it can't be read."""
    if not path:
        raise BadSample("neither bytes nor a path")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadSample(f"unreadable file: {error.strerror}") from error
