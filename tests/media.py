"""Sound and video files made in memory."""

import io

import numpy as np

RATE = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)  # a second


def sound(format="WAV", rate=RATE, samples=TONE) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format)
    return buffer.getvalue()


def video(frames=30, size=(48, 64), format="mp4", codec="mpeg4") -> bytes:
    """Frame i is grey, of brightness 8 i."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            pixels = np.full((*size, 3), 8 * i, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def film(seconds=2.0, size=(48, 64), rate=RATE, silent=0.0, format="mp4") -> bytes:
    """Grey frames, ten a second, of brightness 8 i, with a tone of 440 Hz that begins after `silent` seconds."""
    import av

    buffer, count = io.BytesIO(), int(seconds * rate)
    samples = (0.5 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)).astype(np.float32)
    samples[: int(silent * rate)] = 0
    with av.open(buffer, "w", format=format) as file:
        frames, sounds = file.add_stream("mpeg4", rate=10), file.add_stream("aac", rate=rate, layout="mono")
        frames.height, frames.width, frames.pix_fmt = *size, "yuv420p"
        for i in range(int(10 * seconds)):
            pixels = np.full((*size, 3), 8 * i % 256, np.uint8)
            file.mux(frames.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        file.mux(sounds.encode(frame))
        file.mux(frames.encode())
        file.mux(sounds.encode())
    return buffer.getvalue()


SOUND_FORMATS = {"wav": "WAV", "flac": "FLAC", "mp3": "MP3", "ogg": "OGG", "opus": "OGG"}
CONTAINERS = {  # suffix: format, codec of frames (None: a sound), codec of the sound
    "m4a": ("ipod", None, "aac"),
    "aac": ("adts", None, "aac"),
    "mp4": ("mp4", "mpeg4", "aac"),
    "m4v": ("mp4", "mpeg4", "aac"),
    "mov": ("mov", "mpeg4", "aac"),
    "mkv": ("matroska", "mpeg4", "aac"),
    "webm": ("webm", "libvpx", "libopus"),
    "avi": ("avi", "mjpeg", "mp3"),
    "mpg": ("mpeg", "mpeg1video", "mp2"),
    "mpeg": ("mpeg", "mpeg1video", "mp2"),
    "ts": ("mpegts", "mpeg2video", "mp2"),
}


def file_of(suffix: str, rate: int = RATE) -> bytes:
    """A second of sound, or of film with sound, in the format of a suffix: 440 Hz, frames of brightness 8 i."""
    import av
    import soundfile

    samples, buffer = (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32), io.BytesIO()
    if suffix in SOUND_FORMATS:
        subtype = "OPUS" if suffix == "opus" else None
        soundfile.write(buffer, samples, rate, format=SOUND_FORMATS[suffix], subtype=subtype)
        return buffer.getvalue()
    format, of_frames, of_sound = CONTAINERS[suffix]
    with av.open(buffer, "w", format=format) as file:
        if of_frames:
            frames = file.add_stream(of_frames, rate=25)
            frames.height, frames.width = 48, 64
            frames.pix_fmt = "yuvj420p" if of_frames == "mjpeg" else "yuv420p"
        sounds = file.add_stream(of_sound, rate=rate, layout="mono")
        for i in range(25 if of_frames else 0):
            pixels = np.full((48, 64, 3), 8 * i, np.uint8)
            file.mux(frames.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for part in av.AudioResampler(format=sounds.format, rate=rate).resample(frame):
            file.mux(sounds.encode(part))
        for stream in file.streams:
            file.mux(stream.encode())
    return buffer.getvalue()


def finished(modality, row: dict, at: float = 0.5) -> dict:
    """What an encoder gets of one row, without the axis of the batch."""
    import torch

    batch = {name: torch.as_tensor(value)[None] for name, value in modality(row, None, at).items()}
    return {name: value[0] for name, value in modality.finish(batch).items()}
