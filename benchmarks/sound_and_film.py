"""Measures clips per second of films, ours against PyAV in a plain DataLoader, and log-mel on the device against the
feature extractor in the workers.

    python benchmarks/sound_and_film.py           # about 5 minutes on 2 cores

The films are mp4 of 60 seconds with sound. Each contender takes a clip of 2 seconds at a random place: 16 frames of
64x64 and the sound at 16 kHz, with two workers. The plain loader does what most code does: it opens the file with
PyAV, decodes frames and sound from the start of the film to the end of the clip, and resizes with torch. `sought`
seeks to the key frame before the clip first. Each film is large next to a clip, so all contenders read it from memory.

For log-mel, all contenders decode sounds of 2 seconds and give log-mel of 128 bins and 198 frames as
`ASTFeatureExtractor` does: on the device, or by the extractor in the workers. Runs alternate; rates are medians.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import datasets
import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import ASTFeatureExtractor

from hf_pretext.data.sources import open_source
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.image import Augmentation
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.utils.machine import describe

SECONDS, FRAMES, SIDE, RATE, FPS = 2.0, 16, 64, 16_000, 25
BATCH, WORKERS, WARM = 8, 2, 2  # batches before the clock starts
TARGETS = {"films": 1.5, "log-mel": 2.0}
EXTRACTOR = ASTFeatureExtractor(num_mel_bins=128, max_length=198)


def make_film(seed: int, seconds: float, size: tuple[int, int]) -> bytes:
    """Returns an mp4 of moving noise with a tone. size: height and width in pixels."""
    random, buffer = np.random.default_rng(seed), io.BytesIO()
    still = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    still = np.asarray(still.reshape(size[0] // 8, 8, size[1] // 8, 8, 3).mean((1, 3), keepdims=True), np.uint8)
    still = np.broadcast_to(still, (size[0] // 8, 8, size[1] // 8, 8, 3)).reshape(*size, 3)
    samples = (0.3 * np.sin(np.arange(int(44_100 * seconds)) * 0.05)).astype(np.float32)
    with av.open(buffer, "w", format="mp4") as file:
        frames, sounds = file.add_stream("libx264", rate=FPS), file.add_stream("aac", rate=44_100, layout="mono")
        frames.height, frames.width, frames.pix_fmt = *size, "yuv420p"
        for i in range(int(FPS * seconds)):
            moved = np.ascontiguousarray(np.roll(still, 2 * i, 1))
            file.mux(frames.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44_100, 0, Fraction(1, 44_100)
        file.mux(sounds.encode(frame))
        for stream in (frames, sounds):
            file.mux(stream.encode())
    return buffer.getvalue()


def make_sound(seed: int) -> bytes:
    """Returns a WAV file of 2 seconds of noise."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(seed).standard_normal(int(SECONDS * RATE)), RATE, format="WAV")
    return buffer.getvalue()


class Plain(Dataset):
    """Clips of films with PyAV, as most code decodes them. seeks: whether it seeks to the key frame before."""

    def __init__(self, films: list[bytes], seconds: float, count: int, seeks: bool):
        self.films, self.seconds, self.count, self.seeks = films, seconds, count, seeks

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        start = np.random.default_rng(number).random() * (self.seconds - SECONDS)
        content = self.films[number % len(self.films)]
        frames = decoded(content, "video", start, self.seeks)
        picked = [frames[i].to_ndarray(format="rgb24") for i in np.linspace(0, len(frames) - 1, FRAMES).astype(int)]
        pixels = torch.from_numpy(np.stack(picked)).permute(0, 3, 1, 2)
        resized = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        parts = [part for frame in decoded(content, "audio", start, self.seeks) for part in resampler.resample(frame)]
        samples = np.concatenate([part.to_ndarray()[0] for part in parts])[: int(SECONDS * RATE)]
        sound = np.pad(samples, (0, int(SECONDS * RATE) - len(samples)))
        return {"pixel_values_videos": resized, "input_values": torch.from_numpy(sound)}


def decoded(content: bytes, kind: str, start: float, seeks: bool) -> list:
    """Returns the frames of one kind, "video" or "audio", from `start` to `start + SECONDS`."""
    kept = []
    with av.open(io.BytesIO(content)) as file:
        (stream,) = getattr(file.streams, kind)
        if seeks:
            file.seek(int(start * 1_000_000))
        for frame in file.decode(stream):
            if frame.time >= start + SECONDS:
                break
            if frame.time >= start:
                frame.pts = None if kind == "audio" else frame.pts
                kept.append(frame)
    return kept


class Extracted(Dataset):
    """Sounds through the feature extractor, in the workers."""

    def __init__(self, sounds: list[bytes], count: int):
        self.sounds, self.count = sounds, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Tensor:
        samples, _ = soundfile.read(io.BytesIO(self.sounds[number % len(self.sounds)]), dtype="float32")
        return EXTRACTOR(samples, sampling_rate=RATE, return_tensors="pt")["input_values"][0]


def ours(kind: str, contents: list[bytes], inputs: Inputs, batch: int) -> Iterator[dict[str, Tensor]]:
    """Yields finished batches of our loader. kind: "audio" or "video"."""
    data = datasets.Dataset.from_dict({kind: [{"bytes": content, "path": None} for content in contents]})
    source = open_source(data, needed=inputs.needed)
    loader = StreamLoader(source, inputs, batch, num_workers=WORKERS)
    try:
        while True:
            for made in loader:
                yield inputs.finish(made)
    finally:
        loader.close()


def rate(batches: Iterator, count: int, batch: int) -> float:
    """Returns examples per second over `count` batches, after `WARM` batches."""
    for _ in range(WARM):
        next(batches)
    begun = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * batch / (time.perf_counter() - begun)


def alternated(contenders: dict[str, Callable[[], float]], turns: int) -> dict[str, float]:
    """Returns the median rate of each contender, in turns."""
    rates = {name: [] for name in contenders}
    for _ in range(turns):
        for name, measure in contenders.items():
            rates[name].append(measure())
            print(f"{name}: {rates[name][-1]:,.1f} a second", flush=True)
    return {name: statistics.median(values) for name, values in rates.items()}


def of_films(seconds: float, batches: int, turns: int) -> dict[str, float]:
    """Measures clips of films per second."""
    films = [make_film(seed, seconds, (240, 320)) for seed in range(4)]
    sounds = Audio(EXTRACTOR, SECONDS)
    frames = Video(default_video_processor(SIDE), FRAMES, seconds=SECONDS, augmentation=Augmentation())
    count = (batches + WARM + 1) * BATCH

    def plain(seeks: bool) -> float:
        data = Plain(films, seconds, count, seeks)
        return rate(iter(DataLoader(data, BATCH, num_workers=WORKERS)), batches, BATCH)

    return alternated(
        {
            "ours": lambda: rate(ours("video", films, Inputs(sounds, frames), BATCH), batches, BATCH),
            "plain": lambda: plain(seeks=False),
            "sought": lambda: plain(seeks=True),
        },
        turns,
    )


def of_sounds(batches: int, turns: int) -> dict[str, float]:
    """Measures log-mel per second."""
    contents, batch = [make_sound(seed) for seed in range(64)], 4 * BATCH
    count = (batches + WARM + 1) * batch

    def in_workers() -> float:
        return rate(iter(DataLoader(Extracted(contents, count), batch, num_workers=WORKERS)), batches, batch)

    return alternated(
        {
            "ours": lambda: rate(ours("audio", contents, Inputs(Audio(EXTRACTOR, SECONDS)), batch), batches, batch),
            "plain": in_workers,
        },
        turns,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the films")
    parser.add_argument("--batches", type=int, default=12, help="batches of a turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    results = {
        "films": of_films(options.seconds, options.batches, options.turns),
        "log-mel": of_sounds(4 * options.batches, options.turns),
    }
    for name, rates in results.items():
        ratio = rates["ours"] / rates["plain"]
        print(f"{name}: {ratio:.2f} times the plain loader (target {TARGETS[name]})")
    print(json.dumps({**results, **describe(torch.device("cpu"))}, indent=1))


if __name__ == "__main__":
    main()
