"""Writes short films into WebDataset tars, `1.mp4` and `1.json` for each, for the scripts that make them.

frames (F, H, W, 3) uint8, sound (T,) int16 or none -> mp4 without loss (H.264 in RGB, FLAC) -> tars

As nothing is lost, decoded frames and samples are those that were made, with any version of the codecs. A clip of 2 s
with 64 x 64 pixels takes 10 to 50 kB, and decodes as fast as with codecs that lose detail.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SHARD = 512  # films of a tar
EFFORT = {  # of the search for motion. A jump of a small image is no new scene
    False: {"preset": "medium", "x264-params": "scenecut=0"},
    True: {"preset": "veryslow", "x264-params": "scenecut=0:me=tesa:merange=64:ref=16"},
}


def mp4(
    frames: np.ndarray, sound: np.ndarray | None, fps: int, rate: int | None = None, thorough: bool = False
) -> bytes:
    """Returns a film as an mp4 file without loss.

    frames: RGB, uint8 `(F, H, W, 3)`. sound: one channel, int16 `(T,)`; None for a silent film. fps: frames per second.
    rate: of the sound, in Hz. thorough: four times slower, for smaller files. Equal arguments give equal bytes (one
    thread; no dates). Raises `ValueError` if PyAV is missing."""
    try:
        import av
    except ImportError as error:
        raise ValueError("Writing films needs PyAV. Run: pip install 'hf_pretext[video]'") from error
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264rgb", rate=fps, options={"qp": "0", **EFFORT[thorough]})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "rgb24"
        video.codec_context.gop_size, video.codec_context.max_b_frames = len(frames), 0
        video.codec_context.thread_count = 1
        audio = None if sound is None else add_flac(container, rate)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        if audio is not None:
            samples = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts = rate, 0
            container.mux(audio.encode(samples))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode())
    return file.getvalue()


def add_flac(container, rate: int):
    """Adds a stream of sound without loss, of one channel, to an open file. Returns it. rate: in Hz."""
    audio = container.add_stream("flac", rate=rate, layout="mono", options={"compression_level": "12"})
    audio.codec_context.format = "s16"
    return audio


def write_tars(folder: Path, split: str, films: Sequence[tuple[bytes, Mapping]]) -> None:
    """Writes films and their JSON fields into tars of `SHARD` films, `train-00000.tar`, in the given order."""
    for number in range(-(-len(films) // SHARD)):
        with tarfile.open(folder / f"{split}-{number:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for i, (film, fields) in enumerate(films[number * SHARD : (number + 1) * SHARD], number * SHARD):
                for suffix, content in (("mp4", film), ("json", json.dumps(fields).encode())):
                    member = tarfile.TarInfo(f"{i:05}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
