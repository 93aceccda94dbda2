"""Films of numbered frames in any container, with sound of the same seconds."""

import io
import os
import tempfile
from fractions import Fraction

import av
import numpy as np
import soundfile

SIZE = (48, 64)
FPS, RATE = 25, 16_000
CLOCK = Fraction(1, 1000)  # of times that are given


def blocks(number: int, size=SIZE) -> np.ndarray:
    """Returns an image of grey blocks, another one for each number."""
    values = np.random.default_rng(number).integers(0, 256, (size[0] // 8, size[1] // 8), np.uint8)
    return np.kron(values, np.ones((8, 8), np.uint8))[..., None].repeat(3, 2)


def tone(seconds: float, rate: int = RATE, pitch: float = 440.0, level: float = 0.5) -> np.ndarray:
    """Returns a sine of some seconds, `(N,)`."""
    return (level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound_file(samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    """Returns a file that soundfile writes. samples: `(N,)` or `(N, C)`."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


# container, codec of images, codec of sound, options of the container
KINDS = {
    "mp4": ("mp4", "libx264", "aac", {}),
    "mp4 index first": ("mp4", "libx264", "aac", {"movflags": "faststart"}),
    "mp4 fragmented": ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "mpeg4", "pcm_s16le", {}),
    "mkv": ("matroska", "libx264", "flac", {}),
    "mkv live": ("matroska", "libx264", "aac", {"live": "1"}),
    "webm": ("webm", "libvpx", "libopus", {}),
    "webm live": ("webm", "libvpx-vp9", "libopus", {"live": "1"}),
    "avi": ("avi", "mpeg4", "mp3", {}),
    "avi h264": ("avi", "libx264", "pcm_s16le", {}),
    "ts": ("mpegts", "mpeg2video", "mp2", {}),
    "ts h264": ("mpegts", "libx264", "aac", {}),
}
QUICK = {"libx264": {"preset": "ultrafast"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}
QUICK["libvpx-vp9"] = QUICK["libvpx"]


def made_film(
    kind="mp4", seconds=2.0, image=blocks, sound=None, times=None, later=0.0, rate=None, layout="mono", gop=12,
    between=2, options=None,
) -> bytes:  # fmt: skip
    """Returns a film whose frame i is `image(i)`.

    sound: samples `(N,)` or `(C, N)`; None: a tone as long as the film; False: no sound. times: of the frames, in
    milliseconds; None: 25 a second. later: seconds at which the sound begins. gop: frames between key frames. between:
    frames that refer to a later one (B frames), at most in a row. options: of the codec of images."""
    container, images, sounds, settings = KINDS[kind]
    rate = rate or (48_000 if sounds == "libopus" else RATE)
    frames = round(seconds * FPS) if times is None else len(times)
    samples = np.atleast_2d(tone(seconds, rate) if sound is None else sound) if sound is not False else None
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "film")
        with av.open(path, "w", format=container, options=settings) as file:
            stream = file.add_stream(images, rate=FPS, options={**QUICK.get(images, {}), **(options or {})})
            stream.height, stream.width, stream.pix_fmt = *image(0).shape[:2], "yuv420p"
            stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
            if "vp" not in images:
                stream.codec_context.max_b_frames = between
            if times is not None:
                stream.codec_context.time_base = CLOCK
            heard = None if samples is None else file.add_stream(sounds, rate=rate, layout=layout)
            at = 0
            for i in range(frames):
                frame = av.VideoFrame.from_ndarray(image(i), format="rgb24")
                frame.pts, frame.time_base = (i, Fraction(1, FPS)) if times is None else (times[i], CLOCK)
                file.mux(stream.encode(frame))
                until = (i + 1) / FPS if times is None else times[i] / 1000
                last = round((until - later) * rate) if i + 1 < frames else max(10**9, 0)
                if heard is not None and last > at and at < samples.shape[1]:
                    file.mux(heard.encode(sound_frame(samples[:, at:last], at + round(later * rate), rate, layout)))
                    at = last
            file.mux(stream.encode())
            if heard is not None:
                file.mux(heard.encode())
        with open(path, "rb") as written:
            return written.read()


def sound_frame(samples: np.ndarray, first: int, rate: int, layout: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
    return frame


def made_m4a(samples: np.ndarray, codec="aac", format="ipod", rate=RATE) -> bytes:
    """Returns a file with only sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        file.mux(stream.encode(sound_frame(np.atleast_2d(samples), 0, rate, "mono")))
        file.mux(stream.encode())
    return buffer.getvalue()


def all_frames(content: bytes, kind="") -> list[tuple[float, np.ndarray]]:
    """Decodes a film from its start. Returns time and pixels of each frame, in order."""
    with av.open(io.BytesIO(content)) as file:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(file.streams.video[0])]
    times = sorted(time for time, _ in frames) if kind.startswith("avi") else [time for time, _ in frames]
    return [(time, pixels) for time, (_, pixels) in zip(times, frames, strict=True)]


def shown_at(frames: list[tuple[float, np.ndarray]], time: float) -> np.ndarray:
    """Returns the frame that is shown at a time."""
    return [pixels for begin, pixels in frames if begin <= time + 1e-6][-1] if frames[0][0] <= time else frames[0][1]
