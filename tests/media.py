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
